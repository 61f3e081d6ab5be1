"""`./maelstrom serve`: the results in store/, for a web browser on this machine."""

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

# A page from elsewhere whose name is made to lead to this machine (DNS rebinding) has another.
OUR_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class StoreHandler(SimpleHTTPRequestHandler):
    """Shows the runs, lists their folders and sends files; logs as text, for a browser to show."""

    extensions_map = {  # noqa: RUF012 (as the class above it declares it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".edn": "text/plain; charset=utf-8",
        ".jsonl": "text/plain; charset=utf-8",
        ".log": "text/plain; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
    }

    def __init__(self, *args: Any, runs: Runs) -> None:
        self._runs = runs
        super().__init__(*args, directory=str(runs.store))  # which answers the request, too

    def send_head(self):  # type: ignore[no-untyped-def]
        """Serves nothing to other hosts' pages, nor what a link leads to outside of the store."""
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
        self.send_header("Cache-Control", "no-store")  # there may be another run by now
        self.end_headers()
        return io.BytesIO(page)

    def _is_inside(self) -> bool:
        try:
            path = Path(self.translate_path(self.path)).resolve()
        except (OSError, RuntimeError, ValueError):  # too long, a ring of links, a NUL
            return False
        return path.is_relative_to(self.directory)


class Server(ThreadingHTTPServer):
    """Serves on loopback only; a request that goes wrong costs it a line."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that does not wait for the end is no error of ours."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            print(f"maelstrom: a request failed: {error}", file=sys.stderr)


def main(argv: list[str]) -> int:
    """Serves until Ctrl-C, on loopback only."""
    parser = Parser(prog="maelstrom serve", description=__doc__)
    parser.add_argument(
        "-p", "--port", type=whole(0, 65535), default=8080, help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    folder = Path("store").resolve()
    if not folder.is_dir():
        print("maelstrom: there is no store/ here yet; ./maelstrom test makes one", file=sys.stderr)
        return CRASHED
    handler = functools.partial(StoreHandler, runs=Runs(folder))
    try:
        server = Server(("127.0.0.1", args.port), handler)
    except OSError as error:
        print(
            f"maelstrom: port {args.port}: {error.strerror}; try another --port", file=sys.stderr
        )
        return CRASHED
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0
