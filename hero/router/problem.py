"""The router's own answers: RFC 9457 problem documents, or a small page for a browser. No I/O."""

from __future__ import annotations

import html
import json
from email.utils import formatdate

from hero.router.errors import Rejection

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{status} {title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:36em;padding:0 1em}}
code{{color:#666}}@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}}}</style>
</head><body><h1>{title}</h1><p>{detail}</p>
<p><code>{status} {reason} · request {request_id}</code></p></body></html>
"""


def problem_answer(
    rejection: Rejection,
    *,
    request_id: str,
    accept: bytes = b"",
    keep_alive: bool,
    head_only: bool = False,
) -> bytes:
    """The whole answer, ready to send."""
    fields, body = problem_fields(rejection, request_id=request_id, accept=accept)
    lines = [b"HTTP/1.1 %d %s" % (rejection.status, rejection.title.encode())]
    lines += [name + b": " + value for name, value in fields]
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else body)


def problem_fields(
    rejection: Rejection, *, request_id: str, accept: bytes = b""
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The fields and the content of the answer to a client that accepts *accept*."""
    kind, body = problem_body(rejection, request_id=request_id, accept=accept)
    fields = [
        (b"Date", formatdate(usegmt=True).encode()),
        (b"Content-Type", kind),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Request-ID", request_id.encode()),
        *rejection.headers.items(),
    ]
    return fields, body


def problem_body(
    rejection: Rejection, *, request_id: str, accept: bytes = b""
) -> tuple[bytes, bytes]:
    """The content type and the content of the answer to a client that accepts *accept*."""
    if prefers_html(accept):
        page = _PAGE.format(
            status=rejection.status,
            title=html.escape(rejection.title),
            detail=html.escape(rejection.detail),
            reason=html.escape(rejection.reason),
            request_id=html.escape(request_id),
        )
        return b"text/html; charset=utf-8", page.encode()
    document = {
        "type": "about:blank",
        "title": rejection.title,
        "status": rejection.status,
        "detail": rejection.detail,
        "reason": rejection.reason,
        "request_id": request_id,
    }
    return b"application/problem+json", json.dumps(document).encode() + b"\n"


def prefers_html(accept: bytes) -> bool:
    """Whether *accept*, an Accept field (RFC 9110 section 12.5.1), names HTML before any JSON."""
    for part in accept.lower().split(b","):
        kind = part.partition(b";")[0].strip()
        if kind in (b"text/html", b"application/xhtml+xml"):
            return True
        if kind.endswith(b"json"):
            return False
    return False
