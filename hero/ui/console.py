"""The resources of the console, the same behind either door."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from hero.errors import Forbidden, HeroError, InternalError, Timeout, Unauthenticated, Unavailable
from hero.rpc.problems import PROBLEM_TYPE, problem
from hero.rpc.tree import Tree, problem_answer
from hero.ui.door import Door, same_origin
from hero.ui.explorer import Explorer
from hero.ui.relay import Events
from hero.ui.visitor import Visitor

_COOKIE = b"hero_session"

#: A secret as the explorer makes them; anything else is not worth asking about.
_SECRET = re.compile(r"[!-~]{16,256}\Z")

_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@attrs.frozen(kw_only=True)
class Console:
    """What the resources work with. *now* is the time in seconds since the epoch."""

    door: Door
    explorer: Explorer
    events: Events
    now: Callable[[], float]

    def resources(self) -> Mapping[bytes, IResource]:
        """The console's places in a site, by name."""
        static = Tree()
        for name, media_type in _STATIC.items():
            static.putChild(name.encode(), _File(self, name, media_type))
        return {
            b"": _Page(self),
            b"static": static,
            b"overview": _Overview(self),
            b"events": _Events(self),
            b"login": _Login(self),
            b"logout": _Logout(self),
        }

    async def visitor(self, request: Request) -> Visitor:
        """Who sent *request*, by the door or else by the cookie. Raises `Unauthenticated`."""
        proven = self.door.visitor(request)
        if proven is not None:
            return proven
        secret = session_secret(request)
        if secret is None:
            raise Unauthenticated("nobody is signed in", hint="open the link that `hero ui` prints")
        return await self.explorer.session(secret)


def session_secret(request: Request) -> str | None:
    """The secret in the cookie of *request*."""
    value = (request.getCookie(_COOKIE) or b"").decode("latin-1")
    return value if _SECRET.match(value) else None


class _Place(Tree):
    """A resource of the console: refused where the door does not admit it, never framed, never
    cached, and answered by a coroutine."""

    _log = Logger()

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, request: Any) -> Any:
        for name, value in _SECURITY.items():
            request.setHeader(name, value)
        request.setHeader("Cache-Control", "no-store")
        if not self._console.door.admits(request):
            return problem_answer(
                request, 421, "misdirected", "this console answers to 127.0.0.1 and its port only"
            )
        if request.method == b"POST":
            media_type = (request.getHeader("Content-Type") or "").partition(";")[0].strip()
            if media_type.lower() != "application/json":
                return problem_answer(
                    request, 415, "unsupported_media_type", "send Content-Type: application/json"
                )
            if not same_origin(self._console.door, request):
                return problem_answer(
                    request, 403, "cross_origin", "only the console's own pages may ask for this"
                )
        return super().render(request)

    def _later(self, request: Request, work: Any) -> int:
        """Let the coroutine *work* answer *request*, with its bytes unless they are None."""
        answer: Deferred[bytes | None] = Deferred.fromCoroutine(work)
        request.notifyFinish().addErrback(lambda _: answer.cancel())
        answer.addCallback(self._finish, request)
        answer.addErrback(self._fail, request)
        return NOT_DONE_YET

    def _finish(self, body: bytes | None, request: Request) -> None:
        if body is not None:
            request.setHeader("Content-Length", str(len(body)))
            request.write(body)
            request.finish()

    def _fail(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return
        error: BaseException | None = failure.value
        if not isinstance(error, HeroError):
            self._log.failure("the console failed to answer {uri}", failure, uri=request.uri)
            error = InternalError("the console failed to answer", hint="its log has the cause")
        status = _status(error)
        request.setResponseCode(status)
        request.setHeader("Content-Type", PROBLEM_TYPE)
        members = {"hint": error.hint} if error.hint else {}
        self._finish(problem(status, error.kind, error.detail, **members), request)

    def _json(self, request: Request, value: Any) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return msgspec.json.encode(value)

    def _set_cookie(self, request: Request, value: str, max_age: int) -> None:
        # Below its own prefix only: other services behind the same router never see it. Browsers
        # hold 127.0.0.1 to be as trustworthy as TLS, and accept Secure there.
        request.addCookie(
            _COOKIE,
            value,
            path=self._console.door.prefix(request) + "/",
            max_age=str(max_age),
            secure=True,
            httpOnly=True,
            sameSite="strict",
        )


class _Page(_Place):
    """The page itself: the same for everybody."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._template = _read("index.html").decode()

    def render_GET(self, request: Request) -> bytes:
        """The page, with the address that its relative links start from."""
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        base = escape(self._console.door.prefix(request) + "/", quote=True)
        return self._template.replace("{{base}}", base).encode()


class _File(_Place):
    """A script, style sheet or picture."""

    def __init__(self, console: Console, name: str, media_type: str) -> None:
        super().__init__(console)
        self._media_type = media_type
        self._content = _read(name)

    def render_GET(self, request: Request) -> bytes:
        """The file."""
        request.setHeader("Content-Type", self._media_type)
        return self._content


class _Overview(_Place):
    """Nodes and VMs, as JSON."""

    def render_GET(self, request: Request) -> int:
        """What the visitor may see."""
        return self._later(request, self._answer(request))

    async def _answer(self, request: Request) -> bytes:
        visitor = await self._console.visitor(request)
        return self._json(request, await self._console.explorer.overview(visitor))


class _Events(_Place):
    """What changes, as Server-Sent Events."""

    def render_GET(self, request: Request) -> int:
        """The visitor's events, as they happen."""
        return self._later(request, self._answer(request))

    async def _answer(self, request: Request) -> None:
        visitor = await self._console.visitor(request)
        await self._console.events.stream(request, visitor)


class _Login(_Place):
    """Trades a one-time code for a session's cookie."""

    def render_POST(self, request: Request) -> int:
        """Sign in."""
        return self._later(request, self._answer(request))

    async def _answer(self, request: Request) -> bytes:
        try:
            body: Any = request.content
            code = msgspec.json.decode(body.read(), type=dict[str, str])["code"]
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
            raise Unauthenticated("the login code is missing") from None
        if not _SECRET.match(code):
            raise Unauthenticated("this is no login code", hint="run `hero ui` for a new link")
        session = await self._console.explorer.redeem(code)
        life = int(session.expires_at.timestamp() - self._console.now())
        self._set_cookie(request, session.secret, max(life, 0))
        return self._json(request, {"user": session.user})


class _Logout(_Place):
    """Ends a session."""

    def render_POST(self, request: Request) -> int:
        """Sign out."""
        return self._later(request, self._answer(request))

    async def _answer(self, request: Request) -> bytes:
        self._set_cookie(request, "", 0)
        secret = session_secret(request)
        if secret is not None:
            await self._console.explorer.end(secret)
        return self._json(request, {})


def _status(error: HeroError) -> int:
    """The HTTP status by which a browser is told of *error*."""
    match error:
        case Unauthenticated() | Forbidden():
            return error.http_status
        case Unavailable():
            return 503
        case Timeout():
            return 504
        case InternalError():
            return 500
        case _:
            return 502


def _read(name: str) -> bytes:
    return files("hero.ui").joinpath("static", name).read_bytes()
