"""Writes report.html of each run: `python -m workbench.report DIR...`."""

from __future__ import annotations

import sys
from pathlib import Path

from ..record.history import HistoryError
from .report import write


def main(argv: list[str]) -> int:
    """Writes the page of each folder. Prints a line and returns 255 if one cannot be written."""
    status = 0
    for name in argv:
        try:
            write(Path(name))
        except (HistoryError, OSError) as error:
            print(f"maelstrom: no report.html: {error}", file=sys.stderr)
            status = 255
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
