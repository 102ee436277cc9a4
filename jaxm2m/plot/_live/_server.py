"""The widget as a page of a local server: loopback alone, a token in every request, no other host's names."""

import hmac
import json
import secrets
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jaxm2m.plot._live import _page
from jaxm2m.plot._live._wire import pack

_HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")
_LARGEST = 1 << 16  # octets of a request
_PATIENCE = 20.0  # s that a page waits for changes
# what the page may change; all else comes from Python
_SETTABLE = ("x", "y", "turn", "tilt_x", "tilt_y", "distance", "didt", "component", "limit", "stimulus", "request")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data: blob:"
)


class Changes:
    """What of a widget's state has changed since when, for pages that ask."""

    def __init__(self, view: Any, names: Sequence[str]):
        self._view, self._names, self._condition = view, list(names), threading.Condition()
        self._version, self._changed = 0, dict[str, int]()
        self._messages: list[tuple[int, Any, list[bytes]]] = []
        view.observe(self._note, self._names)
        view.send = self._send

    def _note(self, change: Any) -> None:
        with self._condition:
            self._version += 1
            self._changed[change["name"]] = self._version
            self._condition.notify_all()

    def _send(self, content: Any, buffers: Any = None) -> None:
        with self._condition:
            self._version += 1
            self._messages = [*self._messages[-9:], (self._version, content, list(buffers or []))]
            self._condition.notify_all()

    def whole(self) -> bytes:
        """Pack the whole state."""
        with self._condition:
            version = self._version
        return pack({"version": version, "state": {name: getattr(self._view, name) for name in self._names}})

    def since(self, version: int, patience: float = 0.0) -> bytes:
        """Pack the changes after `version`, for which `patience` s are waited."""
        with self._condition:
            self._condition.wait_for(lambda: self._version > version, patience)
            now = self._version
            names = [name for name, when in self._changed.items() if when > version]
            messages = [{"content": c, "buffers": b} for when, c, b in self._messages if when > version]
        # the answer last: it is drawn with all that came with it
        names.sort(key=lambda name: name == "answer")
        return pack(
            {"version": now, "state": {name: getattr(self._view, name) for name in names}, "messages": messages}
        )


class Server:
    """A widget served to one browser on this machine.

    Attributes
    ----------
    url
        The page, with the token that every request must have.
    """

    def __init__(self, view: Any, names: Sequence[str], port: int = 0):
        token = secrets.token_urlsafe(24)
        changes = Changes(view, names)
        try:
            self._server = ThreadingHTTPServer((_HOST, port), _make_handler(view, changes, token))
        except OSError as error:
            raise OSError(f"port: {port} cannot be listened on ({error.strerror}); choose another, or 0.") from None
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://{_HOST}:{self.port}/?token={token}"

    def serve(self) -> None:
        """Answer until `close` is called, or the process is interrupted."""
        self._server.serve_forever(poll_interval=0.2)

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


def _make_handler(view: Any, changes: Changes, token: str) -> type[BaseHTTPRequestHandler]:
    files = {
        "/live.css": ("text/css", lambda: (_page.read_style() + _FULL).encode()),
        "/live.js": ("text/javascript", lambda: _page.read_program("served.js").encode()),
        "/": ("text/html", lambda: _PAGE.format(token=token).encode()),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "jaxm2m", ""

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a request holds the token."""

        def do_GET(self) -> None:
            """Answer with a file, the state, or what has changed."""
            path, query = self._read_path()
            if not self._is_allowed(query):
                self._refuse(HTTPStatus.FORBIDDEN)
            elif path in files:
                kind, read = files[path]
                self._reply(read(), f"{kind}; charset=utf-8")
            elif path == "/state":
                self._reply(changes.whole())
            elif path == "/changes" and query.get("after", [""])[0].isdigit():
                self._reply(changes.since(int(query["after"][0]), _PATIENCE))
            else:
                self._refuse(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            """Take changes of the state, or what a button asks for."""
            path, query = self._read_path()
            size = self.headers.get("Content-Length", "")
            if not self._is_allowed(query) or not self._is_same_origin():
                return self._refuse(HTTPStatus.FORBIDDEN)
            if not size.isdigit() or int(size) > _LARGEST:
                return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            try:
                content = json.loads(self.rfile.read(int(size)))
                if not isinstance(content, dict):
                    raise ValueError("no object")
                if path == "/update":
                    view.take_changes({name: value for name, value in content.items() if name in _SETTABLE})
                    after = query.get("after", [""])[0]
                    return self._reply(changes.since(int(after)) if after.isdigit() else b"")
                elif path == "/message":
                    view.take_message(content)
                else:
                    return self._refuse(HTTPStatus.NOT_FOUND)
            except (ValueError, TypeError):
                return self._refuse(HTTPStatus.BAD_REQUEST)
            return self._reply(b"")

        def _read_path(self) -> tuple[str, dict[str, list[str]]]:
            parts = urlsplit(self.path)
            return parts.path, parse_qs(parts.query)

        def _is_allowed(self, query: dict[str, list[str]]) -> bool:
            # a name that leads here by another host's wish is not ours
            named = self.headers.get("Host", "").rpartition(":")
            local = named[0] in _NAMES and named[2] == str(self.connection.getsockname()[1])
            offered = query.get("token", [""])[0].encode()
            return hmac.compare_digest(offered, token.encode()) and local

        def _is_same_origin(self) -> bool:
            origin = self.headers.get("Origin")
            return origin is None or origin == f"http://{self.headers.get('Host')}"

        def _refuse(self, status: HTTPStatus) -> None:
            self.close_connection = True  # what else it sends is not read
            self._reply(f"{status.value} {status.phrase}\n".encode(), "text/plain", status)

        def _reply(
            self, content: bytes, kind: str = "application/octet-stream", status: HTTPStatus = HTTPStatus.OK
        ) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                ("Cache-Control", "no-store"),
                ("Content-Security-Policy", _POLICY),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Frame-Options", "DENY"),
            ):
                self.send_header(name, value)
            try:
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:  # the page was closed while it waited
                self.close_connection = True

    return Handler


_FULL = """
html, body { margin: 0; height: 100%; background: white; }
#live, #live .jaxm2m-live { height: 100vh; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jaxm2m live</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="live.css?token={token}">
</head>
<body>
<div id="live"></div>
<script type="module" src="live.js?token={token}"></script>
</body>
</html>
"""
