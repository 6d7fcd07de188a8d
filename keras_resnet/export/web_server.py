"""A small server for an exported page: for this machine only, with the files of one folder."""

from __future__ import annotations

import functools
import http.server
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keras_resnet.errors import UserError

ADDRESS = "127.0.0.1"


class _Handler(http.server.SimpleHTTPRequestHandler):
    # The machine's own table may lack these, and browsers refuse a file of the wrong type.
    extensions_map = {
        "": "application/octet-stream",
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".wasm": "application/wasm",
    }

    def send_head(self) -> Any:
        try:
            # Else a page from elsewhere could read the net: its owner lets its name point to this machine.
            host = urlsplit(f"//{self.headers.get('Host', ADDRESS)}").hostname
            if host in (ADDRESS, "localhost"):
                return super().send_head()
            self.send_error(421)
        except ValueError:  # a host or a path that makes no sense
            self.send_error(400)
        return None

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the next export may be of another net
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: object) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Occupies a port as soon as it is made, so that an export need not fail at its end.

    Args:
        port: 0 for any free one.

    Raises:
        UserError: where the number is not a port, or another program uses it.
    """

    def __init__(self, port: int):
        if not 0 <= port <= 65535:
            raise UserError(f"`serve` must be a port from 0 to 65535. Received: {port}")
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise UserError(
                f"`serve` must be a free port. Received: {port} ({error.strerror}); name another, or 0 "
                "for any"
            ) from None

    def serve(self, folder: Path) -> None:
        """Serve the files of a folder until `shutdown` is called or an exception is raised."""
        self.RequestHandlerClass = functools.partial(_Handler, directory=str(folder))
        self.serve_forever()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing where a browser closed the connection in the middle of a file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"
