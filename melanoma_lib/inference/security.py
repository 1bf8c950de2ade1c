"""Who may reach the web page, and what a request may be: address, login, origin, headers.

Imports neither torch nor a model: `melanoma serve` checks address and password before it loads one.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections import OrderedDict, deque
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from melanoma_lib.core.errors import MelanomaError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
MAX_FAILURES = 10  # wrong passwords of one address within `FAILURE_SECONDS`; it then has to wait
FAILURE_SECONDS = 60
MAX_ADDRESSES = 10_000  # whose wrong passwords are remembered
SESSION_SECONDS = 12 * 3600  # a login lasts so long
COOKIE = "melanoma-login"
WRONG = "Name or password is wrong."
BUSY = (
    "Busy: too many wrong passwords came from your address. Yours was not looked at; try again in "
    "{seconds} seconds."
)
# Scripts and styles of this server only; a style attribute places a mark on an axis. No page
# anywhere may show this one in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # an answer to one visitor is for no other, nor for a disk
}


def credentials(host: str) -> tuple[str, str] | None:
    """User and password from the environment, None if there are none and `host` is local.

    Raises `MelanomaError` if one is missing, or both where other machines can connect.
    """
    user, password = (os.environ.get(f"MELANOMA_{name}", "") for name in ("USER", "PASSWORD"))
    if user and password:
        return user, password
    if user or password or host not in LOCAL_HOSTS:
        raise MelanomaError(
            f"to be reached at {host}, the page needs a user name and a password; put both into "
            "the environment as MELANOMA_USER and MELANOMA_PASSWORD"
        )
    return None


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket at an address, at any free port for None.

    Raises `MelanomaError` if the port is none, or cannot be used.
    """
    if port is not None and not 0 < port < 2**16:
        raise MelanomaError(f"--port is {port}; it must be 1 to {2**16 - 1}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port or 0), family=family)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise MelanomaError(
            f"port {port} of {host} cannot be used ({reason}); try another --port"
        ) from None


class LoginThrottle:
    """Wrong passwords by address; one that sent too many waits, and no other does for it."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def waiting_seconds(self, address: str) -> float:
        """Seconds until another password of this address is looked at, 0 for now."""
        failures = self._failures.get(_network(address), ())
        remaining = failures[0] + FAILURE_SECONDS - time.monotonic() if failures else 0
        return max(0.0, remaining) if len(failures) >= MAX_FAILURES else 0.0

    def add_failure(self, address: str) -> None:
        """Counts a wrong password."""
        network = _network(address)
        self._failures.setdefault(network, deque(maxlen=MAX_FAILURES)).append(time.monotonic())
        self._failures.move_to_end(network)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _network(address: str) -> str:
    """What one client can choose its addresses from: of IPv6, the first 64 bits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


class Login:
    """Checks passwords, and the cookie that a right one is answered with.

    The cookie is signed with a key of this process: a restart ends all logins.
    """

    def __init__(self, user: str, password: str):
        self._known = repr((user, password)).encode()
        self._key = secrets.token_bytes(32)
        self.throttle = LoginThrottle()

    def authenticate(self, address: str, user: str, password: str) -> tuple[bool, float]:
        """Whether name and password are right, and seconds to wait where they were not looked at.

        Compares in constant time.
        """
        if waiting := self.throttle.waiting_seconds(address):
            return False, waiting
        correct = hmac.compare_digest(repr((user, password)).encode(), self._known)
        if not correct:
            self.throttle.add_failure(address)
        return correct, 0.0

    def make_cookie(self) -> str:
        """The value of a cookie that is valid for `SESSION_SECONDS`."""
        expires = str(int(time.time()) + SESSION_SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def is_valid_cookie(self, cookie: str) -> bool:
        """Whether a cookie's value was made by `make_cookie`, and not too long ago."""
        expires, _, signature = cookie.partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(expires).encode())
        return genuine and int(expires) > time.time()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def is_cross_site(request: Request) -> bool:
    """Whether a page of another site made the browser send a request.

    Programs send neither of the headers that tell it, and have no visitor's login to misuse.
    """
    if site := request.headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


class SecurityMiddleware:
    """ASGI middleware: security headers on every answer, and no request that is not welcome.

    Refuses what another site's page sent, and without a login all but the page that asks for one.
    hosts: the names by which the page may be called, any if empty. (The name of a foreign site may
    be made to lead to this machine, and its pages then count as of the same origin.)
    """

    OPEN = ("/login", "/static/page.css")

    def __init__(self, app: ASGIApp, login: Login | None = None, hosts: tuple[str, ...] = ()):
        self.app, self.login, self.hosts = app, login, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":  # nothing here speaks websockets
            return
        answer = self._refusal(Request(scope)) or self.app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if self.hosts and request.url.hostname not in self.hosts:
            return PlainTextResponse("This page is not called by that name.", 403)
        if request.method != "GET" and is_cross_site(request):
            return PlainTextResponse("This request came from another site.", 403)
        if not self.login or request.url.path in self.OPEN:
            return None
        if self.login.is_valid_cookie(request.cookies.get(COOKIE, "")):
            return None
        if request.method == "GET" and request.url.path == "/":
            return RedirectResponse("login", 303)
        return PlainTextResponse("Log in first.", 401)
