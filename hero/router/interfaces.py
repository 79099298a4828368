"""What the two sides of an exchange expect of each other."""

from __future__ import annotations

from zope.interface import Attribute, Interface

from hero.router.errors import Rejection
from hero.router.head import ResponseHead


class IAnswerSink(Interface):
    """Who asked: takes the one answer of an exchange."""

    raw_chunks: bool = Attribute("Whether chunked answers are taken with their chunk framing.")

    def informational(head: ResponseHead) -> None:
        """Pass on an interim answer (RFC 9110 section 15.2)."""

    def start_answer(head: ResponseHead) -> None:
        """Begin the answer."""

    def answer_data(data: bytes) -> None:
        """Pass on a part of the answer's body."""

    def finish_answer() -> None:
        """The answer is complete."""

    def abort_answer(reason: str) -> None:
        """The answer was begun and will not be completed; let nobody believe that it is whole."""

    def refuse(rejection: Rejection) -> None:
        """Nothing was answered; say why."""

    def switch(head: ResponseHead) -> None:
        """The service changed the protocol (101): from here on bytes go both ways as they come."""

    def close_tunnel() -> None:
        """The service closed, after `switch`."""

    def pause_body() -> None:
        """Stop sending the request's body for now."""

    def resume_body() -> None:
        """Go on with the request's body."""
