"""Reading heads within a router's limits, each one once as long as it is remembered."""

from __future__ import annotations

from functools import partial

from hero.router.forwarding import answer_start
from hero.router.head import ResponseHead, parse_response_head
from hero.router.limits import Limits
from hero.router.memo import memoised
from hero.router.request import Request, read_request


class Heads:
    """``request`` reads the head of a request, ``answer`` that of an answer to one, and
    ``answer_to_head`` that of an answer to a HEAD request.


    """

    def __init__(self, limits: Limits) -> None:
        self.request = memoised(partial(_request, limits))
        self.answer = memoised(partial(_answer, limits, b"GET"))
        self.answer_to_head = memoised(partial(_answer, limits, b"HEAD"), entries=128)


def _request(limits: Limits, block: bytes) -> Request:
    return read_request(block, limits)


def _answer(limits: Limits, method: bytes, block: bytes) -> ResponseHead:
    head = parse_response_head(block, method, limits)
    head.start = answer_start(head)
    return head
