"""Refused requests: each has a status and a text that helps.

The text says what to do.
"""

import hmac
import logging
from collections.abc import Mapping
from pathlib import Path
from traceback import extract_tb

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_LOG = logging.getLogger("pfmsmt.serving")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered without a token, for those who watch over processes."""


class Refusal(Exception):
    """A request that gets a status of 400 or more."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """`detail` is what the body says."""
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = dict(self.headers) if self.headers else None
        return JSONResponse({"detail": self.detail}, self.status, headers)


class TokenGuard:
    """Lets requests pass that carry the bearer token (401 otherwise)."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Stand in front of `app`."""
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compare in constant time."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self.passes(scope):
            refusal = Refusal(401, "this server needs a bearer token", {"WWW-Authenticate": "Bearer"})
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def passes(self, scope: Scope) -> bool:
        """Say whether a request carries the token."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


class FailureGuard:
    """Answers 500 where the code below fails.

    Frameworks log the error's text, which may hold feature values; this does not.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log an error's kind and origin, but not its text."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
            _LOG.error("answering failed with %s at %s", type(error).__name__, " ".join(places[-4:]))
            answer = JSONResponse({"detail": "the server failed; its log names the kind of error"}, 500)
            # Fails, and ends the connection, if an answer has begun already.
            await answer(scope, receive, send)


async def read_body(request: Request, limit: int) -> bytes:
    """Read a request's body of at most `limit` bytes.

    Raises:
        Refusal: 413, as soon as it is known to be longer; 415 for a compressed one; 400 where the client went away.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "compressed bodies are not taken; send it without Content-Encoding")
    too_large = Refusal(413, f"the body is larger than {limit} bytes (serve.max_body_mib); send fewer rows at a time")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        raise Refusal(400, "the client went away before the body was complete") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
