"""The status page, metrics, health and a JSON API, over HTTP/1.1: to look, and to purge.

``/`` a page for people · ``/metrics`` Prometheus · ``/healthz`` the process lives · ``/readyz`` clients can be served ·
``/api/status`` a summary · ``/api/<name>`` the rows of ``SHOW <NAME>``, those for admins excepted.

``POST /api/purge`` drops stored answers; only from this machine, and with a content type that a page of another site cannot send unasked.
There is no log-in here; the default is loopback. On loopback the Host header must name this machine too, because a web page
may point a name of its own at 127.0.0.1 and read what answers there. HTTP itself is h11's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import h11

from hyperdrive import __version__
from hyperdrive.admin.console import Console
from hyperdrive.admin.exposition import CONTENT_TYPE, Exposition, Families
from hyperdrive.errors import HyperdriveError
from hyperdrive.proxy import lane
from hyperdrive.tasks import spawn

log = logging.getLogger("hyperdrive.admin")

MAX_CONNECTIONS = 64
IDLE_SECONDS = 30.0
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024

_LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost", None})
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class StatusSite:
    """Answers requests. Knows no sockets."""

    def __init__(self, console: Console, registry: Families, *, is_local: bool = True) -> None:
        self._console = console
        self._exposition = Exposition(registry)
        self._is_local = is_local
        self._page = files("hyperdrive.admin").joinpath("page.html").read_bytes()

    async def prepare(self) -> None:
        """Ask the other workers, if there are some; to be awaited before ``respond``."""
        await self._console.state.refresh()

    async def act(self, method: str, target: str, host: str, content_type: str, body: bytes) -> Response | None:
        """Carry out what changes something; ``None``: it is no such request."""
        if method != "POST" or target.partition("?")[0] != "/api/purge":
            return None
        if not self._is_local or _host_name(host) not in _LOCAL_HOSTS:
            return Response(403, b"to purge, ask from this machine, or use the console\n")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            return Response(415, b"expected application/json\n")
        try:
            wanted = json.loads(body or b"{}")
            ((what, name),) = wanted.items()
            if not isinstance(name, str):
                what, name = (what, "") if name is True else ("", "")
            count = await self._console.state.purge(what, name)
        except (ValueError, AttributeError):
            return Response(400, b'expected {"all": true}, or one of table, tag, statement, role with a text\n')
        except HyperdriveError as error:
            return Response(400, f"{error.client_text}\n".encode())
        return _json({"purged": count})

    def respond(self, method: str, target: str, host: str) -> Response:
        """The answer to one request; *host* is its Host header."""
        if method not in ("GET", "HEAD"):
            return Response(405, b"only GET and HEAD\n")
        if self._is_local and _host_name(host) not in _LOCAL_HOSTS:
            return Response(403, b"this page is for this machine only\n")
        path = target.partition("?")[0]
        match path:
            case "/":
                return Response(200, self._page, "text/html; charset=utf-8")
            case "/metrics":
                return Response(200, self._exposition.render(), CONTENT_TYPE)
            case "/healthz":
                return Response(200, b"ok\n")
            case "/readyz":
                missing = self._console.state.readiness()
                return Response(503, f"{missing}\n".encode()) if missing else Response(200, b"ready\n")
            case "/api/status":
                return _json(self._status())
            case _ if path.startswith("/api/"):
                return self._rows(path.removeprefix("/api/"))
        return Response(404, b"there is nothing here\n")

    def _rows(self, name: str) -> Response:
        view = self._console.views.get(name.upper().replace("-", "_")) if name.islower() else None
        if view is None or view.admin_only:
            return Response(404, b"there is nothing here\n")
        return _json([dict(zip(view.columns, row, strict=True)) for row in view.rows(self._console.state)])

    def _status(self) -> dict[str, Any]:
        state = self._console.state
        missing = state.readiness()
        return {
            "version": __version__,
            "compiled": lane.described(),
            "ready": not missing,
            "missing": missing,
            "pools": [asdict(pool) for pool in state.pools()],
            "stats": [asdict(row) for row in state.stats()],
            "lists": dict(state.lists()),
        }


def _json(value: object) -> Response:
    return Response(200, json.dumps(value, ensure_ascii=False).encode() + b"\n", "application/json")


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return ""


class StatusServer:
    """Listens for ``StatusSite``."""

    def __init__(self, site: StatusSite) -> None:
        self._site = site
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Listen; ``*`` is every address. Returns the port.

        Raises:
            OSError: the address cannot be used.
        """
        make: Callable[[], _Connection] = lambda: _Connection(self._site, self._open)  # noqa: E731 - a factory
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            make, None if host == "*" else host, port, reuse_port=reuse_port or None
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._open):
                connection.hang_up()
            await self._server.wait_closed()
            self._server = None


class _Connection(asyncio.Protocol):
    """One client; requests are answered in order, one at a time."""

    def __init__(self, site: StatusSite, group: set[_Connection]) -> None:
        self._site = site
        self._group = group
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None
        self._request: h11.Request | None = None
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._group.add(self)
        if len(self._group) > MAX_CONNECTIONS:
            self.hang_up()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._group.discard(self)
        self._transport = None
        if self._timer:
            self._timer.cancel()
        if self._answering:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._wait()
        self._http.receive_data(data)
        if self._answering is None:
            self._answering = spawn(self._answer_what_came(), name="admin request")

    async def _answer_what_came(self) -> None:
        try:
            await self._answer_all()
        except h11.RemoteProtocolError as exc:
            log.debug("! bad request: %s", exc)
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._send(Response(exc.error_status_hint, b"bad request\n"), head_only=False, close=True)
            self.hang_up()
        finally:
            self._answering = None

    def eof_received(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close, after what is written has gone."""
        if self._transport:
            self._transport.close()

    def _wait(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.hang_up)

    async def _answer_all(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request, self._body = event, b""
            elif isinstance(event, h11.EndOfMessage) and self._request is not None:
                request, self._request = self._request, None
                await self._answer(request, self._body)
                if self._http.our_state is h11.MUST_CLOSE:
                    self.hang_up()
                    return
                self._http.start_next_cycle()
            elif (
                isinstance(event, h11.Data)
                and self._request is not None
                and self._request.target.partition(b"?")[0] == b"/api/purge"
                and len(self._body) + len(event.data) <= MAX_BODY_BYTES
            ):
                self._body += event.data
            elif isinstance(event, h11.Data):
                # No other request of ours has a body worth waiting for.
                self._send(Response(413, b"no body is expected\n"), head_only=False, close=True)
                self.hang_up()
                return
            else:
                # NEED_DATA: the rest of a request, or the next one, is still to come.
                return

    async def _answer(self, request: h11.Request, body: bytes) -> None:
        method = request.method.decode("ascii")
        headers = {bytes(name): bytes(value) for name, value in request.headers}
        host = headers.get(b"host", b"").decode("latin-1")
        try:
            target = request.target.decode("latin-1")
            content_type = headers.get(b"content-type", b"").decode("latin-1")
            acted = await self._site.act(method, target, host, content_type, body)
            if acted is None:
                await self._site.prepare()
            response = acted or self._site.respond(method, target, host)
        except Exception:
            log.exception("! cannot answer %s", request.target.decode("latin-1"))
            response = Response(500, b"an error of ours; it is in the log\n")
        self._send(response, head_only=method == "HEAD", close=False)

    def _send(self, response: Response, *, head_only: bool, close: bool) -> None:
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", _POLICY),
        ]
        if response.status == 405:
            headers.append(("allow", "GET, HEAD"))  # POST at /api/purge alone
        if close:
            headers.append(("connection", "close"))
        out = self._http.send(h11.Response(status_code=response.status, headers=headers)) or b""
        if not head_only:
            out += self._http.send(h11.Data(data=response.body)) or b""
        out += self._http.send(h11.EndOfMessage()) or b""
        if self._transport:
            self._transport.write(out)
