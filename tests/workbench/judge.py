"""`./maelstrom check PATH...`: judges recorded histories."""

from __future__ import annotations

import argparse
from pathlib import Path

from .checker import BUDGET, Analysis, check_history
from .history import HistoryError, read

VERDICTS = {True: "valid", False: "invalid", None: "unknown"}


def judge(path: Path, budget: int) -> tuple[bool | None, str]:
    """The verdict on one history, and why."""
    try:
        analyses = check_history(read(path), budget)
    except HistoryError as error:
        return None, str(error)
    for verdict in (False, None):
        bad = {key: found for key, found in analyses.items() if found.valid is verdict}
        if bad:
            return verdict, _first(bad)
    operations = sum(int(analysis.why.split()[0]) for analysis in analyses.values())
    keys = "" if list(analyses) == [None] else f" on {len(analyses)} keys"
    return True, f"{operations} operations{keys}"


def _first(bad: dict[object, Analysis]) -> str:
    analysis = next(iter(bad.values()))
    more = f" (and {len(bad) - 1} more keys)" if len(bad) > 1 else ""
    return f"{analysis.why}{more}"


def main(argv: list[str]) -> int:
    """Prints a line for each path: PATH, verdict, why. Exit status 0, 1 (invalid), 2 (unknown)."""
    parser = argparse.ArgumentParser(prog="maelstrom check", description=__doc__)
    parser.add_argument("path", type=Path, nargs="+", help="a history, or the folder of a run")
    parser.add_argument(
        "--budget",
        type=int,
        default=BUDGET,
        help="configurations that the search may look at for each key (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    verdicts = set()
    for path in args.path:
        verdict, why = judge(path, args.budget)
        verdicts.add(verdict)
        print(path, VERDICTS[verdict], " ".join(why.split()), sep="\t", flush=True)
    return 1 if False in verdicts else 2 if None in verdicts else 0
