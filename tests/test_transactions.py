"""The workloads of transactions: requests, replies, verdicts, and the drawings of cycles."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_elle import LISTS, at_once, one_by_one
from test_workloads import NODES, simulate
from workbench import check
from workbench.checkers import list_append, rw_register
from workbench.record import edn, store
from workbench.record.edn import Keyword
from workbench.record.history import Op, by_key
from workbench.report import cycles, reading
from workbench.running import options
from workbench.running.client import contradict
from workbench.verdicts import UNKNOWN, get
from workbench.workloads import WORKLOADS
from workbench.workloads.transactional import Transactional
from workbench.workloads.workload import Body, Settings, Worker

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"txn-list-append": "append", "txn-rw-register": "w"}
TEXT = "{http://www.w3.org/2000/svg}text"
R = Keyword("r")


def made(name: str, **settings: Any) -> Transactional:
    workload = WORKLOADS[name](random.Random(1), Settings(**settings))
    assert isinstance(workload, Transactional)
    return workload


# Requests and replies


@pytest.mark.parametrize("name", NAMES)
def test_a_transaction_has_keywords_in_the_history_and_strings_on_the_wire(name: str) -> None:
    workload, write = made(name), NAMES[name]
    worker = Worker(0, 0)
    drawn = [workload.next([worker], [worker], 0) for _ in range(50)]
    for next in drawn:
        assert next and next[:2] == (worker, "txn")
        assert {mop[0] for mop in next[2]} <= {R, Keyword(write)} and 1 <= len(next[2]) <= 4
    value = [[R, 1, None], [Keyword(write), 2, 3]]
    assert workload.request("txn", value) == {"type": "txn", "txn": [["r", 1, None], [write, 2, 3]]}
    assert workload.reusable and workload.catches and not workload.idempotent


def test_the_settings_limit_the_transactions() -> None:
    workload = made("txn-rw-register", max_txn_length=2, key_count=1, max_writes_per_key=1)
    worker = Worker(0, 0)
    drawn = [next[2] for _ in range(50) if (next := workload.next([worker], [worker], 0))]
    assert {len(txn) for txn in drawn} == {1, 2}
    writes = [(key, value) for txn in drawn for f, key, value in txn if f is not R]
    assert writes == [(key, 1) for key in range(len(writes))]


@pytest.mark.parametrize("name", NAMES)
def test_the_value_of_an_ok_transaction_is_that_of_the_reply(name: str) -> None:
    workload, write = made(name), NAMES[name]
    read: Any = [5, 6] if write == "append" else 6
    reply: Body = {"type": "txn_ok", "txn": [["r", "a", read], ["r", 1, None], [write, 2, {}]]}
    expected = [[R, "a", read], [R, 1, None], [Keyword(write), 2, {}]]
    assert workload.complete("txn", [[R, 9, None]], reply) == expected
    nothing: Any
    for nothing in ([], None):
        assert workload.complete("txn", [[R, 9, None]], {"type": "txn_ok", "txn": nothing}) == []


MALFORMED: list[Any] = [
    {"type": "txn_ok"},
    {"type": "txn", "txn": []},
    {"type": "txn_ok", "txn": [], "more": 1},
    {"type": "txn_ok", "txn": {}},
    {"type": "txn_ok", "txn": [["r", 1]]},
    {"type": "txn_ok", "txn": [["r", 1, None, None]]},
    {"type": "txn_ok", "txn": [None]},
    {"type": "txn_ok", "txn": ["abc"]},
    {"type": "txn_ok", "txn": [["cas", 1, None]]},
    {"type": "txn_ok", "txn": [[["r"], 1, None]]},
]


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_reply_is_refused(name: str) -> None:
    other: Any = {"append": "w", "w": "append"}[NAMES[name]]
    for reply in (*MALFORMED, {"type": "txn_ok", "txn": [[other, 1, 1]]}):
        with pytest.raises(ValueError, match="must"):
            made(name).complete("txn", [[R, 1, None]], reply)


def test_a_read_of_a_list_is_a_list() -> None:
    reply: Body = {"type": "txn_ok", "txn": [["r", 1, 5]]}
    assert made("txn-rw-register").complete("txn", [], reply) == [[R, 1, 5]]
    why = r'must be \["r", key, list\] or \["append", key, value\], not \["r" 1 5\]'
    with pytest.raises(ValueError, match=why):
        made("txn-list-append").complete("txn", [], reply)


def test_a_transaction_that_is_executed_twice_may_read_other_values() -> None:
    first: Body = {"type": "txn_ok", "txn": [["r", 1, 5]]}
    second: Body = {"type": "txn_ok", "txn": [["r", 1, 6]]}
    assert not contradict({"type": "txn"}, first, second)
    assert contradict({"type": "write"}, first, second)


# Verdicts


def test_a_reply_that_is_not_its_request_is_a_warning() -> None:
    history = [
        *one_by_one("0 [[:w 1 5]]"),
        Op(1, "invoke", "txn", edn.loads("[[:r 1 nil] [:w 2 1]]"), 3_000_000_000, 2),
        Op(1, "ok", "txn", edn.loads("[[:r 1 5]]"), 4_000_000_000, 3),
    ]
    workload = made("txn-rw-register")
    found = workload.check(history)
    assert found[Keyword("valid?")] is True and not workload.reasons
    assert workload.warnings == get(found, "warnings") == [
        "Process 1 asked for [[:r 1 nil] [:w 2 1]], but the reply at 4.000 s (index 3) is about "
        "[[:r 1 5]]. A reply must have the reads and writes of its request. The verdict is about "
        "the replies, as in Maelstrom (such replies: 1 of 2)."
    ]  # fmt: skip
    for value in ("[[:r 1 5] [:w 2 1]]", "[[:r 1 nil] [:w 2 1]]"):
        right = [*history[:3], Op(1, "ok", "txn", edn.loads(value), 0, 3)]
        workload.check(right)
        assert not workload.warnings
    for value in ("[[:r 2 5] [:w 2 1]]", "[[:r 1 5] [:w 2 true]]", "[[:w 2 1] [:r 1 5]]", "[]"):
        workload.check([*history[:3], Op(1, "ok", "txn", edn.loads(value), 0, 3)])
        assert workload.warnings


def test_the_models_decide() -> None:
    skew = LISTS["G2-item"][1]
    for models, valid in (
        (("serializable",), False),
        (("read-committed",), True),
        (("read-committed", "serializable"), False),
    ):
        workload = made("txn-list-append", consistency_models=models)
        assert workload.check(skew)[Keyword("valid?")] is valid
        assert bool(workload.reasons) is not valid


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_for_a_model_that_does_not_exist_is_unknown(name: str) -> None:
    workload = made(name, consistency_models=("read-committed,serializable",))
    found = workload.check(one_by_one("0 [[:r 1 nil]]", "0 [[:r 1 nil]]"))
    assert found[Keyword("valid?")] is UNKNOWN
    (why,) = workload.reasons
    assert why.startswith("The history cannot be judged: there is no consistency model ")
    assert "read-committed,serializable" in why and "snapshot-isolation" in why


def test_each_type_is_told_once_and_the_shortest_explanation_comes_first() -> None:
    workload = made("txn-list-append")
    history = at_once(
        "fail [[:append 1 1] [:append 2 1]]", "[[:r 1 [1]]]", "[[:r 2 [1]]]", "[[:append 3 1]]",
        "[[:append 3 2]]", "[[:r 3 [1 2]] [:append 4 1]]", "[[:r 3 nil] [:r 4 [1]]]",
    )  # fmt: skip
    found = workload.check(history)
    first, aborted, *rest = workload.reasons
    assert first.startswith("The history is not strict-serializable: it has G")
    assert aborted.startswith("G1a: T1 read 1 in key 1, which T2 appended; but T2 failed")
    assert aborted.endswith("\n  And 1 more of the type G1a.")
    assert rest and all("no possible order" in text for text in rest)
    assert get(found, "why") == workload.reasons and get(found, "anomalies", "G1a")


def test_the_same_seed_gives_the_same_history_and_results(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    one, other = (
        simulate(tmp_path / folder, "txn-rw-register", "txn.py", nemesis=("partition",))
        for folder in ("a", "b")
    )
    assert one.record.history == other.record.history
    assert edn.dumps(one.results) == edn.dumps(other.results)
    assert one.results[Keyword("valid?")] is False  # it is not strict serializable


# check, the pages and the terminal


def kept(folder: Path, history: list[Op], model: str = "strict-serializable") -> Path:
    """Writes the folder of a run of txn-list-append as a run does, and returns it."""
    folder = folder / "txn-list-append" / "run"
    folder.mkdir(parents=True)
    workload = made("txn-list-append", consistency_models=(model,))
    judged = workload.check(history)
    results = {Keyword("workload"): judged, Keyword("valid?"): judged[Keyword("valid?")]}
    store.write(folder, history, results, workload, ("test", "--consistency-models", model))
    return folder


def test_check_and_the_page_use_the_models_of_the_runs_command(tmp_path: Path) -> None:
    skew = LISTS["G2-item"][1]
    folder = kept(tmp_path / "weak", skew, "read-committed")
    assert options.settings(folder).consistency_models == ("read-committed",)
    (found,) = check.judge(folder)
    assert found.verdict.valid is True
    folder = kept(tmp_path / "strong", skew)
    assert options.settings(folder) == Settings()
    (found,) = check.judge(folder)
    assert found.verdict.valid is False and "G2-item" in found.verdict.anomalies
    assert found.text().startswith("The history is not strict-serializable")
    for models, expected in (("read-committed , serializable", False), ("read-committed", True)):
        (folder / "results.edn").write_text("{:valid? false, :workload {:valid? false}}")
        log = f"Command line: lein run test -w txn-list-append --consistency-models '{models}'\n"
        (folder / "jepsen.log").write_text(log)
        assert options.settings(folder).consistency_models == tuple(models.split(" , "))
        (found,) = check.judge(folder)
        assert (found.verdict.valid is False) is not expected
        assert bool(reading.read(folder).whys) is not expected


def test_two_micro_operations_are_no_key_and_value() -> None:
    history = one_by_one("0 [[:r 1 nil] [:r 2 nil]]", "0 [[:r 1 nil] [:append 2 1]]")
    assert by_key(history) == {None: history}


def test_the_files_have_elles_names(tmp_path: Path) -> None:
    history = at_once(
        "fail [[:append 1 1]]", "[[:r 1 [1]]]", "[[:append 3 1]]", "[[:append 3 2]]",
        "[[:r 3 [1 2]] [:append 4 1]]", "[[:r 3 nil] [:r 4 [1]]]",
    )  # fmt: skip
    folder = kept(tmp_path, history)
    found = sorted(str(path.relative_to(folder)) for path in folder.glob("elle/**/*.*"))
    assert found == ["elle/G-single-item.txt", "elle/G-single-item/0.svg", "elle/G1a.txt"]
    text = (folder / "elle" / "G1a.txt").read_text()
    assert text.startswith("G1a #0\n\nG1a: T1 read 1 in key 1, which T2 appended")
    report = pytest.importorskip("workbench.report.report")
    page = report.html(reading.read(folder))
    assert page.count('<img alt="The drawing of a cycle of G-single-item"') == 1
    assert page.count('href="#cycles"') == 1 and "not linearizable" not in page
    assert not [*kept(tmp_path / "good", one_by_one("0 [[:r 1 nil]]")).glob("elle")]


def test_the_terminal_names_the_drawing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "maelstrom", "test", "-w", "txn-list-append", "--simulate"),
            *("--bin", NODES / "txn.py", "--node-count", "1", "--concurrency", "4", "--seed", "1"),
            *("--time-limit", "10", "--rate", "50", "--", "stale"),
        ],
        cwd=tmp_path,
        env={"MAELSTROM_REPORT": "no", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if " is drawn in " in line]
    drawn = dict(line.split(" is drawn in ") for line in lines)
    assert "The cycle of G-single-item-realtime" in drawn
    assert all((tmp_path / path).read_text().startswith("<svg ") for path in drawn.values())
    assert "T1 comes before T2, since" in done.stdout


# Drawings


def texts(svg: str) -> list[str]:
    """Returns the lines of text in a drawing."""
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(TEXT)]


def drawings(result: Any) -> dict[str, str]:
    return {name: text for name, text in cycles.files(result).items() if name.endswith("svg")}


def test_a_drawing_tells_the_transactions_and_the_reason_of_each_arrow() -> None:
    found = drawings(list_append.check(LISTS["G-single-item"][1]))
    assert [*found] == ["elle/G-single-item/0.svg"]
    svg = found["elle/G-single-item/0.svg"]
    assert texts(svg) == [
        "G-single-item: these 2 transactions have no possible order",
        "rw: this one did not see the next one's write",
        "wr: the next one read this one's write",
        "T1: process 1, ok at index 3", "[:r 1 [1]]", "[:r 2 nil]",
        "rw: T1 comes before T2, since T1 read key 2 as empty, so before T2 appended 1",
        "T2: process 0, ok at index 2", "[:append 1 1]", "[:append 2 1]",
        "wr: T2 comes before T1, since T1 read 1 in key 1, which T2 appended",
        "So T1 would come before itself, which is impossible.",
    ]  # fmt: skip
    assert svg.count('class="marked"') == 4 and svg.count('<path class="last') == 2
    assert "@media (prefers-color-scheme: dark)" in svg


def test_all_text_of_a_drawing_is_escaped() -> None:
    hostile = "</text><script>alert(1)</script>\x00"
    name = edn.dumps(hostile)
    history = at_once(f"[[:append {name} 1] [:append 2 1]]", f"[[:r {name} [1]] [:r 2 nil]]")
    for svg in drawings(list_append.check(history)).values():
        assert "<script>" not in svg and "\x00" not in svg
        assert any("<script>" in text for text in texts(svg))


def test_a_transaction_before_itself_is_a_cycle_too() -> None:
    history = at_once("[[:r 1 1] [:w 1 1] [:r 2 nil] [:w 3 1]]", "[[:r 3 nil] [:w 2 1]]")
    found = drawings(rw_register.check(history))
    svg = found["elle/G1c/0.svg"]
    assert texts(svg)[0].endswith(": this transaction has no possible order")
    assert svg.count("<path") == 2


def test_of_a_long_cycle_and_a_long_transaction_the_middle_is_left_out() -> None:
    more = 3
    count = cycles.MOST_TXNS + more
    many = " ".join(f"[:r {100 + key} nil]" for key in range(40))
    history = at_once(
        *(f"[{many} [:r {n} [1]] [:append {(n + 1) % count} 1]]" for n in range(count))
    )
    ((name, svg),) = drawings(list_append.check(history)).items()
    assert name == "elle/G1c/0.svg"
    lines = texts(svg)
    assert len([line for line in lines if line.startswith("T")]) == cycles.MOST_TXNS
    assert f"T{count}: process" in " ".join(lines) and f"… {more} more transactions …" in lines
    assert lines.count(f"and {40 - cycles.MOST_MOPS} more") == cycles.MOST_TXNS
    assert svg.count('class="marked"') == 2 * cycles.MOST_TXNS
    assert len(svg) < 60_000


def test_everything_is_inside_of_the_drawing() -> None:
    for _, history, *_ in LISTS.values():
        for svg in drawings(list_append.check(history)).values():
            root = ElementTree.fromstring(svg)
            width, height = (float(root.attrib[side]) for side in ("width", "height"))
            for text in root.iter(TEXT):
                end = float(text.attrib["x"]) + 6 * len("".join(text.itertext()))
                assert end <= width and float(text.attrib["y"]) < height
