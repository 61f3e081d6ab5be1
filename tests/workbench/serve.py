"""`./maelstrom serve`: the results in store/, for a web browser on this machine."""

from __future__ import annotations

import argparse
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .options import CRASHED


class StoreHandler(SimpleHTTPRequestHandler):
    """Lists folders and sends files; logs as text, so that a browser shows them."""

    extensions_map = {  # noqa: RUF012 (as the class above it declares it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".edn": "text/plain; charset=utf-8",
        ".log": "text/plain; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
    }

    def send_head(self):  # type: ignore[no-untyped-def]
        """Serves nothing that a link leads to outside of the store."""
        if not Path(self.translate_path(self.path)).resolve().is_relative_to(self.directory):
            self.send_error(404)
            return None
        return super().send_head()


def main(argv: list[str]) -> int:
    """Serves until Ctrl-C, on loopback only."""
    parser = argparse.ArgumentParser(prog="maelstrom serve", description=__doc__)
    parser.add_argument("-p", "--port", type=int, default=8080, help="default: %(default)s")
    args = parser.parse_args(argv)
    folder = Path("store").resolve()
    if not folder.is_dir():
        print("maelstrom: there is no store/ here yet; ./maelstrom test makes one")
        return CRASHED
    handler = functools.partial(StoreHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", args.port), handler)
    except OSError as error:
        print(f"maelstrom: port {args.port}: {error.strerror}; try --port {args.port + 1}")
        return CRASHED
    print(f"http://127.0.0.1:{args.port}/ (Ctrl-C ends it)", flush=True)
    with server:
        server.serve_forever()
    return 0
