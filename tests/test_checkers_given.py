"""The checkers agree with the real ones on every given history, in each column of the verdicts."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench.checkers import counter, kafka, set_full, unique_ids
from workbench.checkers.verdict import Verdict
from workbench.record.edn import Keyword, dumps
from workbench.record.history import Op, from_edn
from workbench.verdicts import get

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
    synthetic = (folder / "synthetic.edn").read_text().splitlines()
    with (folder / "verdicts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["line"]:
                text = synthetic[int(row["line"]) - 1]
            elif row["file"].endswith(".gz"):
                text = gzip.decompress((folder / row["file"]).read_bytes()).decode()
            else:
                text = (folder / row["file"]).read_text()
            yield row, list(from_edn(text))


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
