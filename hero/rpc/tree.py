"""Resources whose errors are problem documents rather than pages."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from hero.rpc.problems import PROBLEM_TYPE, problem


def problem_answer(request: Request, status: int, reason: str, detail: str) -> bytes:
    """Make the answer to *request* a problem document, and return its body."""
    request.setResponseCode(status)
    request.setHeader("Content-Type", PROBLEM_TYPE)
    return problem(status, reason, detail)


class NotThere(Resource):
    """404, whatever is asked for below it."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def render(self, request: Request) -> bytes:
        """Say so."""
        return problem_answer(request, 404, "not_found", "nothing is at this path")


class Tree(Resource):
    """A place in the tree of a site: its children, and what it answers itself, if anything."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def getChild(self, path: bytes, request: Request) -> IResource:
        """No such child."""
        return NotThere()

    def render(self, request: Request) -> Any:
        """Answer with the method's ``render_…``."""
        method = request.method.decode("ascii", "replace")
        # Twisted gives every resource a render_HEAD, which calls render_GET.
        source = "GET" if method == "HEAD" else method
        answer = getattr(self, f"render_{method}", None)
        if answer is not None and hasattr(self, f"render_{source}"):
            return answer(request)
        allowed = [name.removeprefix("render_") for name in dir(type(self)) if name in _METHODS]
        if "GET" not in allowed:
            return NotThere().render(request)
        request.setHeader("Allow", ", ".join(allowed))
        return problem_answer(
            request, 405, "method_not_allowed", f"this path does not answer {method[:32]}"
        )


_METHODS = {"render_GET", "render_HEAD", "render_POST"}
