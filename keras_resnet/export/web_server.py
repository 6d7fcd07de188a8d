"""A small server for an exported page: for this machine only, with the files of one folder."""

import functools
import http.server
import sys
from pathlib import Path

from keras_resnet.errors import UserError

ADDRESS = "127.0.0.1"


class _Handler(http.server.SimpleHTTPRequestHandler):
    # The machine's own table may be wrong here, and browsers refuse a file of the wrong type.
    extensions_map = {".js": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # the next export may be of another net
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Occupies its port when it is made: a port in use is a UserError before the export, not after it."""

    def __init__(self, port: int):
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"`serve` must be a free port from 0 (any) to 65535. Received: {port} ({error}); name "
                "another"
            ) from None
        self.url = f"http://{ADDRESS}:{self.server_port}/"

    def serve(self, folder: Path) -> None:
        """Serve the files of a folder until `shutdown` is called or an exception is raised."""
        self.RequestHandlerClass = functools.partial(_Handler, directory=str(folder))
        self.serve_forever()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing where a browser closed the connection in the middle of a file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
