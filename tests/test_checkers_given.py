"""The checkers agree with the real ones on every given history, in each column of the verdicts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import check as check_command
from workbench.checkers import counter, kafka, set_full, unique_ids
from workbench.checkers.verdict import Verdict
from workbench.record import history
from workbench.record.edn import Keyword, dumps
from workbench.record.history import Op
from workbench.verdicts import get
from workbench.workloads import WORKLOADS as RUN

GIVEN = Path(__file__).resolve().parents[2] / "shared" / "workloads"
Row = dict[str, str]


def ids(verdict: Verdict) -> Row:
    results = verdict.results
    return {
        "anomalies": "duplicated" if get(results, "duplicated") else "",
        "attempted": dumps(get(results, "attempted-count")),
        "acknowledged": dumps(get(results, "acknowledged-count")),
        "duplicated_count": dumps(get(results, "duplicated-count")),
    }


def sets(verdict: Verdict) -> Row:
    results = verdict.results
    counts = ("attempt", "stable", "lost", "never-read", "stale")
    lists = ("lost", "never-read", "stale")
    return {
        "anomalies": " ".join(name for name in lists if get(results, name)),
        **{
            f"{name}-count".replace("-", "_"): dumps(get(results, f"{name}-count"))
            for name in counts
        },
        **{name.replace("-", "_"): " ".join(map(dumps, get(results, name))) for name in lists},
    }


def counters(verdict: Verdict) -> Row:
    results = verdict.results
    errors = get(results, "errors") or []
    return {
        "anomalies": "errors" if errors else "",
        "acceptable": " ".join(f"{low}..{high}" for low, high in get(results, "acceptable")),
        "final_reads": " ".join(map(dumps, get(results, "final-reads"))),
        "error_count": str(len(errors)),
    }


def logs(verdict: Verdict) -> Row:
    results = verdict.results
    types = [type.name for type in get(results, "error-types")]
    counts = []
    for name in types:
        entry = get(results, name)
        count = sum(get(entry, "unseen").values()) if name == "unseen" else get(entry, "count")
        counts.append(f"{name}={count}")
    return {
        "anomalies": " ".join(types),
        "bad": " ".join(type.name for type in get(results, "bad-error-types")),
        "counts": " ".join(counts),
    }


DEFAULT_MODEL = "strict-serializable"
WORKLOADS: dict[str, tuple[Callable[[list[Op]], Verdict], Callable[[Verdict], Row]]] = {
    "unique-ids": (unique_ids.check, ids),
    "broadcast": (set_full.check, sets),
    "g-set": (set_full.check, sets),
    "g-counter": (counter.check, counters),
    "pn-counter": (counter.check, counters),
    "kafka": (kafka.check, logs),
}


def histories(folder: Path) -> Iterator[tuple[Row, list[Op]]]:
    """Yields each row of the verdicts with its history."""
    synthetic = {str(one.line): one for one in history.histories(folder / "synthetic.edn")}
    with (folder / "verdicts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found = synthetic.get(row["line"])
            yield row, found.ops() if found else history.read(folder / row["file"])


def differences(workload: str) -> Iterator[tuple[Row, str, Any, Any]]:
    """Yields each column that differs: the row, the column, the real verdict and ours."""
    check, columns = WORKLOADS[workload]
    for row, ops in histories(GIVEN / workload):
        verdict = check(ops)
        ours = {"valid": {True: "true", False: "false", None: "unknown"}[verdict.valid]}
        assert get(verdict.results, "valid?") == (
            Keyword("unknown") if verdict.valid is None else verdict.valid
        )
        assert bool(verdict.why) is (verdict.valid is not True), row
        dumps(verdict.results)
        if row["error"]:  # the real checker crashed
            continue
        for column, value in {**ours, **columns(verdict)}.items():
            if value != row[column]:
                yield row, column, row[column], value


@pytest.mark.skipif(not GIVEN.is_dir(), reason=f"the given histories are not in {GIVEN}")
@pytest.mark.parametrize("workload", WORKLOADS)
def test_verdicts_equal_the_real_ones(workload: str) -> None:
    assert list(differences(workload)) == []


@pytest.mark.skipif(not GIVEN.is_dir(), reason=f"the given histories are not in {GIVEN}")
@pytest.mark.parametrize("workload", [name for name in RUN if (GIVEN / name).is_dir()])
def test_check_judges_the_files_like_the_real_checkers(workload: str) -> None:
    folder = GIVEN / workload
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for path in folder.glob("*.edn*"):
        for judgement in check_command.judge(path, check_command.Wishes(workload)):
            line = "" if judgement.line is None else str(judgement.line)
            verdict = judgement.verdict
            valid = {True: "true", False: "false", None: "unknown"}[verdict.valid]
            found[path.name, line] = valid, verdict.anomalies
    with (folder / "verdicts.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("model", "") in ("", DEFAULT_MODEL)]
    assert len(found) == len(rows)
    for row in rows:
        valid, names = found[row["file"], row["line"]]
        if not row["error"]:
            assert valid == row["valid"], row
            # After a time-out the types depend on the machine.
            assert names == anomalies(row) or "cycle-search-timeout" in row["anomalies"], row


def anomalies(row: Row) -> list[str]:
    """Returns the anomalies of a row that make a history invalid or unknown."""
    harmless = {"never-read", "stale"}  # of the sets
    names = row.get("bad", row["anomalies"]).split()
    return [name for name in names if name not in harmless]
