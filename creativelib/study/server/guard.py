"""What keeps strangers out: signed links and cookies, limits on requests and their size, headers of every answer."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

LARGEST_BODY = 64 * 1024  # bytes; fifty answers need a tenth of it
LONGEST_READ = 1024 * 1024  # bytes of a refused body that are read, and thrown away, before its answer
PATIENCE = 10.0  # seconds that this may take
TEACHER_SECONDS = 12 * 3600  # how long a teacher stays signed in
RATER, TEACHER = "creativelib_rater", "creativelib_teacher"  # cookies
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with "no-referrer" a browser hides the origin of our own forms too
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Signer:
    """Links and cookies that nobody can make without the study's key. One kind of token is never taken for another."""

    def __init__(self, secret: str):
        self.secret = secret

    def token(self, kind: str, value) -> str:
        """A token for an address or a cookie."""
        return URLSafeSerializer(self.secret, salt=f"creativelib {kind}").dumps(value)

    def read(self, kind: str, token: str | None):
        """What a token says; ``None`` for a forged one, or one of another kind."""
        try:
            return URLSafeSerializer(self.secret, salt=f"creativelib {kind}").loads(token or "")
        except (BadSignature, UnicodeError):
            return None

    def teacher_cookie(self) -> str:
        """Signed with the time, so that it ends."""
        return URLSafeTimedSerializer(self.secret, salt="creativelib teacher").dumps("teacher")

    def is_teacher(self, request: Request) -> bool:
        """Whether the request comes from who has signed in as the teacher."""
        try:
            serializer = URLSafeTimedSerializer(self.secret, salt="creativelib teacher")
            return serializer.loads(request.cookies.get(TEACHER, ""), max_age=TEACHER_SECONDS) == "teacher"
        except (BadSignature, UnicodeError):
            return False

    def form_token(self, request: Request) -> str:
        """Stands in every form of the teacher's pages; of this sign-in alone."""
        return hmac.new(self.secret.encode(), b"form " + request.cookies.get(TEACHER, "").encode(), "sha256").hexdigest()


class Limiter:
    """So many requests at once and so many a second, for each key. Kept in memory, the least used keys forgotten."""

    def __init__(self, burst: int, per_second: float, keys: int = 10_000):
        self.burst, self.per_second, self.keys = burst, per_second, keys
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def require(self, key: str) -> None:
        """Raises HTTPException 429, with when to try again, for one too many."""
        now = time.monotonic()
        left, then = self._left.pop(key, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.per_second)
        self._left[key] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > self.keys:
            self._left.popitem(last=False)
        if left < 1:
            wait = max(1, round((1 - left) / self.per_second))
            raise HTTPException(429, "too many requests; wait a little", {"retry-after": str(wait)})


def address(request: Request) -> str:
    """Where a request comes from; behind a proxy uvicorn has put the browser's address there."""
    return request.client.host if request.client else "unknown"


def require_same_origin(request: Request) -> None:
    """Refuse what a page of another site makes a browser send."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "this request comes from another site")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "this request comes from another site")


async def read_body(request: Request) -> bytes:
    """The body. Raises HTTPException 413 if it is larger than ``LARGEST_BODY``, however announced; 400 if it ends early."""
    parts, size = [], 0
    if request.headers.get("content-length", "0").isdigit() and int(request.headers.get("content-length", "0")) > LARGEST_BODY:
        raise HTTPException(413, f"at most {LARGEST_BODY} bytes")
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise HTTPException(413, f"at most {LARGEST_BODY} bytes")
            parts.append(part)
    except ClientDisconnect:  # nobody reads this; what a page could not send it sends again
        raise HTTPException(400, "the connection ended within the body") from None
    return b"".join(parts)


async def read_json(request: Request) -> dict:
    """A JSON object of our own pages: another site's form cannot send this type."""
    require_same_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        body = json.loads(await read_body(request))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is no JSON object")
    return body


async def read_form(request: Request) -> dict[str, str]:
    """Fields of a form; files are not taken."""
    require_same_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send a form without files")
    try:
        return dict(parse_qsl((await read_body(request)).decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None


def file_policy(page: str) -> str:
    """The content security policy of a page that is one file: its style and the pictures in it, and nothing else."""
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; frame-ancestors 'none'; base-uri 'none'"


class Headers:
    """ASGI middleware: security headers on every answer, and nothing but files of ours kept by a browser."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
                if scope["scheme"] == "https":
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        await self.app(scope, receive, send_with_headers)


class WholeRequests:
    """ASGI middleware: before it is refused, a request is read to its end: at most ``LONGEST_READ`` bytes, for ``PATIENCE``.

    A server that answers while bytes still come closes the connection on them, and a proxy that is still sending loses the
    answer: the browser is told that the network failed, and sends again what will never be taken.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        left, more = LONGEST_READ, not announced.isdigit() or int(announced) <= LONGEST_READ
        if b"expect" in headers:  # it waits for a word before it sends
            more = False

        async def counted():
            nonlocal left, more
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False) and left > 0
            return message

        async def send_after(message):
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while more and message["type"] == "http.response.start":
                        await counted()
            await send(message)

        await self.app(scope, counted, send_after)
