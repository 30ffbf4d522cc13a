"""Serving a folder of reports to this machine alone, until interrupted."""

import functools
import http.server
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from cmbench.core.errors import UserError

__all__ = ["serve"]

_LOOPBACK = "127.0.0.1"


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files below one folder: no listings, no log, and only for callers who name this machine."""

    @override
    def send_head(self) -> Any:
        # A page elsewhere may have its own host name resolve to this machine: its name tells.
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in (_LOOPBACK, "localhost"):
            self.send_error(403, "served to this machine alone")
            return None
        return super().send_head()

    @override
    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    @override
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    """A browser that closes a page half loaded is no fault to print."""

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(folder: Path, port: int, started: Callable[[str], None]) -> NoReturn:
    """Serves `folder` on the loopback address until an exception (Ctrl-C) ends it.

    Args:
        folder: What is served; its index.html is the entrance.
        port: 0 takes a free one.
        started: Called with the URL once connections are accepted.

    Raises:
        UserError: If the port is taken or may not be had.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        server = _Server((_LOOPBACK, port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} can't be had: {getattr(error, 'strerror', None) or error}",
            fix="cmbench report --serve --port 0 takes a free one",
        ) from None
    with server:
        started(f"http://{_LOOPBACK}:{server.server_address[1]}/")
        server.serve_forever(poll_interval=0.2)
    raise AssertionError  # serve_forever ends by an exception alone
