"""`./maelstrom serve`: serves the results in store/ to a web browser on this machine."""

from __future__ import annotations

import functools
import io
import re
import sys
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from ..running.options import CRASHED, Parser, whole
from .runs import POLICY, Runs

# Against DNS rebinding: a foreign site whose name resolves to this machine sends another Host.
OUR_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class StoreHandler(SimpleHTTPRequestHandler):
    """Serves the page of all runs, folder listings and files; logs are sent as plain text."""

    extensions_map = {  # noqa: RUF012 (declared like this in the base class)
        **SimpleHTTPRequestHandler.extensions_map,
        ".edn": "text/plain; charset=utf-8",
        ".jsonl": "text/plain; charset=utf-8",
        ".log": "text/plain; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
    }

    def __init__(self, *args: Any, runs: Runs) -> None:
        self._runs = runs
        super().__init__(*args, directory=str(runs.store))  # also handles the request

    def send_head(self):  # type: ignore[no-untyped-def]
        """Refuses requests for other hosts, and links that lead out of the store."""
        if not OUR_HOST.fullmatch(self.headers.get("Host", "localhost")):
            self.send_error(HTTPStatus.FORBIDDEN, "Only for localhost")
        elif not self._is_inside():
            self.send_error(HTTPStatus.NOT_FOUND)
        elif Path(self.translate_path(self.path)) == self._runs.store:
            return self._send_runs()
        else:
            return super().send_head()
        return None

    def _send_runs(self) -> BinaryIO:
        page = self._runs.page().encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")  # a reload must show new runs
        self.end_headers()
        return io.BytesIO(page)

    def _is_inside(self) -> bool:
        try:
            path = Path(self.translate_path(self.path)).resolve()
        except (OSError, RuntimeError, ValueError):  # path too long, circular links, a NUL byte
            return False
        return path.is_relative_to(self.directory)


class Server(ThreadingHTTPServer):
    """Serves on loopback; prints one line for a failed request, not a traceback."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints an error, except if the browser has closed the connection."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            print(f"maelstrom: a request failed: {error}", file=sys.stderr)


def main(argv: list[str]) -> int:
    """Serves on loopback until Ctrl-C."""
    parser = Parser(prog="maelstrom serve", description=__doc__)
    parser.add_argument(
        "-p", "--port", type=whole(0, 65535), default=8080,
        help="port on this machine, 0 for a free one; default: %(default)s",
    )  # fmt: skip
    args = parser.parse_args(argv)
    folder = Path("store").resolve()
    if not folder.is_dir():
        print(f"maelstrom: there is no {folder}; run ./maelstrom test first", file=sys.stderr)
        return CRASHED
    handler = functools.partial(StoreHandler, runs=Runs(folder))
    try:
        server = Server(("127.0.0.1", args.port), handler)
    except OSError as error:
        print(
            f"maelstrom: cannot use port {args.port}: {error.strerror}; try another --port",
            file=sys.stderr,
        )
        return CRASHED
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ (to stop: Ctrl-C)", flush=True)
        server.serve_forever()
    return 0
