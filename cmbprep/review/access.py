"""Who may ask the server: only the page that it has given out, from this machine.

Any program and any web page on the machine can send requests to 127.0.0.1. A page of another
site has another ``Origin``. A page whose own name points to 127.0.0.1 (DNS rebinding) has another
``Host``. Everything else lacks the token, which only the reader's browser was given.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Largest body of a request, bytes.
BODY_LIMIT = 2**20
#: Headers of every answer.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: Places whose token may stand in the address: tags can send no header.
_IN_ADDRESS = ("/", "/page/")


class TooLargeError(Exception):
    """The body of a request is larger than :data:`BODY_LIMIT`."""


class Guard:
    """Middleware that checks host, origin, token and size of every request.

    A body that turns out to be too large raises :class:`TooLargeError` in what reads it.

    Parameters
    ----------
    app
        The application behind it.
    port
        Port of the server.
    token
        The secret of this session.
    """

    def __init__(self, app: ASGIApp, *, port: int, token: str) -> None:
        self._app = app
        self._token = token.encode()
        names = ("127.0.0.1", "localhost")
        self._hosts = {f"{name}:{port}".encode() for name in names}
        self._origins = {f"http://{name}:{port}".encode() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 413, or pass the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http" or not self._allowed(scope):
            await _answer(send, 403, b"refused")
            return
        lengths = _all(scope, b"content-length")
        if any(not value.isdigit() or int(value) > BODY_LIMIT for value in lengths):
            await _answer(send, 413, b"too large")
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_LIMIT:
                raise TooLargeError
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, limited, with_headers)

    def _allowed(self, scope: Scope) -> bool:
        hosts, origins = _all(scope, b"host"), _all(scope, b"origin")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return False
        if any(origin not in self._origins for origin in origins):
            return False
        given = _all(scope, b"x-review-token")
        path = scope["path"]
        if not given and (path == _IN_ADDRESS[0] or path.startswith(_IN_ADDRESS[1])):
            query = parse_qs(scope.get("query_string", b""), max_num_fields=10)
            given = query.get(b"token", [])
        return len(given) == 1 and hmac.compare_digest(given[0], self._token)


def _all(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


async def _answer(send: Send, status: int, text: bytes) -> None:
    """Send an answer without details, and end the connection."""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
