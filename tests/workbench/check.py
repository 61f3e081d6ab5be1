"""`./maelstrom check PATH...`: judges recorded histories, each by the checker of its workload.

A run's folder names its workload. The histories of lin-kv are checked for linearizability.
"""

from __future__ import annotations

from pathlib import Path

from .checkers.linearizable import BUDGET, Analysis, check_history
from .console.console import Console
from .reasons import indented, of_part, reasons
from .record import edn, store
from .record.edn import Keyword
from .record.history import HistoryError, Op, clients, read
from .running.options import Parser, settings, whole
from .verdicts import VALID, VERDICTS, get, merge
from .workloads import WORKLOADS
from .workloads import judge as judge_history
from .workloads.workload import Settings

DEFAULT = "lin-kv"


def judge(path: Path, budget: int, workload: str = "") -> tuple[bool | None, str]:
    """Returns the verdict on a history, and its reason.

    The folder of a run names its workload. The history of a folder that does not, or of a file, is
    one of `workload`, or else of lin-kv. For the folder of a run, the other results in its
    results.edn count too.
    """
    own = store.workload(path if path.is_dir() else path.parent, WORKLOADS)
    name = (own or workload if path.is_dir() else workload or own) or DEFAULT
    if name not in WORKLOADS:
        return None, f"there is no checker for the workload {name}"
    verdict, why = _judge_history(path, budget, name)
    if verdict is False or not path.is_dir():
        return verdict, why
    try:
        results = edn.loads((path / "results.edn").read_text("utf-8"))
        parts = {name: part for name, part in results.items() if isinstance(part, dict)}
    except (OSError, ValueError, AttributeError):
        return verdict, f"{why}; results.edn cannot be read, so only the history was checked"
    if own or workload or get(results, "workload", "errors") is None:  # it was checked here
        parts.pop(Keyword("workload"), None)
    bad = merge(part.get(VALID, True) for part in parts.values())
    if bad is not True:
        return (None if bad else False), reasons(parts)[0]
    return verdict, why


def _judge_history(path: Path, budget: int, name: str) -> tuple[bool | None, str]:
    try:
        ops = read(path)
        if name == DEFAULT:
            return _linearizable(ops, budget)
        return _judged(ops, name, settings(path if path.is_dir() else path.parent))
    except HistoryError as error:
        return None, str(error)


def _judged(ops: list[Op], name: str, given: Settings) -> tuple[bool | None, str]:
    """Judges a history by the checker of its workload. A warning adds a line to the reason."""
    workload, results = judge_history(name, ops, given)
    verdict = {True: True, False: False}.get(results[VALID])
    why = [f"{sum(op.type == 'invoke' for op in clients(ops))} operations"]
    if verdict is not True:
        why = workload.reasons or of_part("workload", results)
    return verdict, "\n".join([*why, *(f"Warning: {warning}" for warning in workload.warnings)])


def _linearizable(ops: list[Op], budget: int) -> tuple[bool | None, str]:
    analyses = check_history(ops, budget)
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
    """Prints path, verdict and reason for each path. Further lines of a reason are indented.

    Returns the exit status: 0 (all valid), 1 (one is invalid) or 2 (one is unknown).
    """
    parser = Parser(prog="maelstrom check", description=__doc__)
    parser.add_argument("path", type=Path, nargs="+", help="a history, or the folder of a run")
    parser.add_argument(
        "-w",
        "--workload",
        choices=WORKLOADS,
        default="",
        help=f"workload of histories whose folder does not name one (default: {DEFAULT})",
    )
    parser.add_argument(
        "--budget",
        type=whole(1),
        default=BUDGET,
        help="maximum configurations that the search visits for each key of lin-kv "
        "(default: %(default)s)",
    )
    args = parser.parse_args(argv)
    console = Console()
    verdicts = set()
    for path in args.path:
        verdict, why = judge(path, args.budget, args.workload)
        verdicts.add(verdict)
        console.print("\t".join([str(path), VERDICTS[verdict], indented(why)]))
        console.flush()
    console.close()
    return 1 if False in verdicts else 2 if None in verdicts else 0
