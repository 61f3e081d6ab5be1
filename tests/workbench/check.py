"""`./maelstrom check PATH...`: judges recorded histories, each by the checker of its workload.

A path is the folder of a run, or a file: EDN (one map of an event a line, one vector of such maps,
or one vector a line, each a history), columns as in history.txt, or a log of Jepsen's. Gzipped
files are unpacked. A run's folder names its workload.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .checkers.linearizable import BUDGET, MISMATCHED, NOTHING, Assumptions, first_values
from .checkers.verdict import Verdict
from .console.console import Console
from .reasons import indented, reasons
from .record import edn, store
from .record.edn import Keyword
from .record.history import HistoryError, Op, Recorded, by_key, clients, histories
from .running.options import Parser, settings, whole
from .verdicts import UNKNOWN, VALID, VERDICTS, get, merge
from .workloads import WORKLOADS
from .workloads import judge as judge_history
from .workloads.workload import Settings

DEFAULT = "lin-kv"
VALUES_TRIED = 5  # first values of a register that are tried for an invalid history
QUICK = 100_000  # configurations for each of them; most valid histories need fewer
MEANINGS = {  # by value of --failed-cas
    NOTHING: "a cas that failed without an error says only that it had no effect",
    MISMATCHED: "a cas that failed without an error found another value",
}
EPILOG = """\
For each history a line is printed: path (with :LINE in a file of several histories), verdict,
reason. With --json the line is an object: path, line (null for a file of one history), valid (true,
false or "unknown"), anomalies (sorted names), why and warnings (sentences). The anomalies are
nonlinearizable (lin-kv), errors (echo and the counters), duplicated (unique-ids), lost (broadcast
and g-set), the error types that make a history invalid (kafka), and the anomaly types of Elle
(transactions). Exit status: 0 all are valid, 1 one is invalid, 2 one is unknown.
"""


@dataclass(frozen=True)
class Wishes:
    """The options of `check`. Each has a default that depends on the history."""

    workload: str = ""  # "" for the one that the folder names, or else DEFAULT
    failed_cas: str = ""  # "" for the meaning that is usual in the history's form
    initial: Any = None  # a register's first value; None for an absent key
    budget: int = BUDGET  # configurations for each key of lin-kv

    def settings(self, recorded: Recorded) -> Settings:
        """Returns the settings for a history. A run's command names its consistency models.

        The clients behind Jepsen's undated logs of etcd fail a cas only for a mismatch. In other
        histories any cas that had no effect may have failed, as Knossos assumes
        (knossos.history/complete).
        """
        usual = MISMATCHED if recorded.is_undated_log else NOTHING
        assumptions = Assumptions(self.initial, self.failed_cas or usual)
        given = settings(recorded.path.parent)
        return replace(given, budget=self.budget, assumptions=assumptions)


@dataclass(frozen=True)
class Judgement:
    """The verdict on a history of a path."""

    line: int | None  # the history's line in its file, from 1; None for a file of one history
    verdict: Verdict
    summary: str = ""  # the size of a judged history
    notes: Sequence[str] = field(default_factory=list)  # conditions of the verdict

    def text(self) -> str:
        """Returns the reason and the notes in one line, and a line for each warning."""
        first = self.summary if self.verdict.valid else "\n".join(self.verdict.why)
        warnings = [f"Warning: {warning}" for warning in self.verdict.warnings]
        return "\n".join(["; ".join([first, *self.notes]), *warnings])

    def to_json(self, path: Path) -> str:
        """Returns the line of --json."""
        valid = self.verdict.valid
        return json.dumps(
            {
                "path": str(path),
                "line": self.line,
                "valid": UNKNOWN.name if valid is None else valid,
                "anomalies": self.verdict.anomalies,
                "why": [*self.verdict.why, *self.notes],
                "warnings": self.verdict.warnings,
            },
            ensure_ascii=False,
        )


def judge(path: Path, wishes: Wishes = Wishes()) -> Iterator[Judgement]:
    """Yields the verdict on each history of a path.

    The folder of a run names its workload. The history of a folder that does not, or of a file, is
    one of `wishes.workload`, or else of lin-kv. For the folder of a run, the other results in its
    results.edn count too.
    """
    own = store.workload(path if path.is_dir() else path.parent, WORKLOADS)
    wished = wishes.workload
    name = (own or wished if path.is_dir() else wished or own) or DEFAULT
    if name not in WORKLOADS:
        yield _undecided(None, f"there is no checker for the workload {name}")
        return
    try:
        found = histories(path)
    except HistoryError as error:
        yield _undecided(None, str(error))
        return
    for recorded in found:
        judgement = _judge_one(recorded, name, wishes.settings(recorded))
        if path.is_dir() and judgement.verdict.valid is not False:
            judgement = _with_results(path, judgement, checked=bool(own or wished))
        yield judgement


def _undecided(line: int | None, why: str) -> Judgement:
    return Judgement(line, Verdict(None, {}, [why]))


def _judge_one(recorded: Recorded, name: str, settings: Settings) -> Judgement:
    try:
        ops = recorded.ops()
        verdict = judge_history(name, ops, settings)
        notes = list(_conditions(ops, settings, verdict.valid)) if name == DEFAULT else []
    except HistoryError as error:
        return _undecided(recorded.line, str(error))
    return Judgement(recorded.line, verdict, _size(ops, name), notes)


def _size(ops: list[Op], name: str) -> str:
    count = sum(op.type == "invoke" for op in clients(ops))
    size = f"{count:,} operation{'s' * (count != 1)}"
    if name == DEFAULT and None not in (keys := by_key(ops)):
        size += f" on {len(keys)} key{'s' * (len(keys) != 1)}"
    return size


def _conditions(ops: list[Op], settings: Settings, valid: bool | None) -> Iterator[str]:
    """Yields the other assumptions on registers that would change the verdict, as options."""
    if valid is None:
        return
    given = settings.assumptions

    def verdict(assumptions: Assumptions, budget: int) -> bool | None:
        wanted = replace(settings, assumptions=assumptions, budget=min(budget, settings.budget))
        return judge_history(DEFAULT, ops, wanted).valid

    if any((op.type, op.f, op.error) == ("fail", "cas", None) for op in ops):
        other = NOTHING if given.failed_cas == MISMATCHED else MISMATCHED
        if verdict(replace(given, failed_cas=other), settings.budget) is (not valid):
            yield f"{VERDICTS[not valid]} if {MEANINGS[other]}: --failed-cas {other}"
    if not valid and given.initial is None:
        for value in first_values(ops)[:VALUES_TRIED]:
            if verdict(replace(given, initial=value), QUICK):
                text = edn.dumps(value)
                register = "the register" if None in by_key(ops) else "each key"
                option = f"--initial {shlex.quote(text)}"
                yield f"valid if {register} starts with {text}: {option}"
                return


def _with_results(folder: Path, judgement: Judgement, checked: bool) -> Judgement:
    """Lets the other parts of a run's results count. `checked`: its workload was judged here."""
    try:
        results = edn.loads((folder / "results.edn").read_text("utf-8"))
        parts = {name: part for name, part in results.items() if isinstance(part, dict)}
    except (OSError, ValueError, AttributeError):
        note = "results.edn cannot be read, so only the history was checked"
        return replace(judgement, notes=[*judgement.notes, note])
    if checked or get(results, "workload", "errors") is None:
        parts.pop(Keyword("workload"), None)
    bad = merge(part.get(VALID, True) for part in parts.values())
    if bad is True:
        return judgement
    valid = None if bad else False
    return Judgement(judgement.line, Verdict(valid, {}, reasons(parts)[:1]))


def _edn(text: str) -> Any:
    try:
        return edn.loads(text)
    except edn.EDNError as error:
        raise argparse.ArgumentTypeError(f"must be EDN, like 0 or nil: {error.problem}") from None


def main(argv: list[str]) -> int:
    """Prints a line for each history. Further lines of a reason are indented.

    Returns the exit status: 0 (all valid), 1 (one is invalid) or 2 (one is unknown).
    """
    parser = Parser(
        prog="maelstrom check",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, nargs="+", help="a history, or the folder of a run")
    parser.add_argument(
        "-w",
        "--workload",
        choices=WORKLOADS,
        default="",
        help=f"workload of histories whose folder does not name one (default: {DEFAULT})",
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each history")
    parser.add_argument(
        "--initial",
        type=_edn,
        metavar="EDN",
        help="value of the registers of lin-kv before their first write (default: nil)",
    )
    parser.add_argument(
        "--failed-cas",
        choices=MEANINGS,
        default="",
        help="meaning of a cas of lin-kv that failed without an error: it had no effect (nothing), "
        "and also found another value (mismatch); default: mismatch in the undated logs of "
        "Jepsen's old console, otherwise nothing",
    )
    parser.add_argument(
        "--budget",
        type=whole(1),
        default=BUDGET,
        help="maximum configurations that the search visits for each key of lin-kv "
        "(default: %(default)s)",
    )
    args = parser.parse_args(argv)
    wishes = Wishes(args.workload, args.failed_cas, args.initial, args.budget)
    console = Console()
    verdicts = set()
    for path in args.path:
        for found in judge(path, wishes):
            valid = found.verdict.valid
            verdicts.add(valid)
            if args.json:
                console.print(found.to_json(path))
            else:
                name = f"{path}:{found.line}" if found.line else str(path)
                console.print("\t".join([name, VERDICTS[valid], indented(found.text())]))
            console.flush()
    console.close()
    return 1 if False in verdicts else 2 if None in verdicts else 0
