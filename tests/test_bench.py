"""make bench and make bench-compare: what they write, and their rule. How fast is not looked at."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench import bench, bench_page, compare, driver
from bench.driver import Clients, Cluster, Mix, NodeEnded
from workbench.record import store

HOSTILE = "<script>alert(1)</script>&amp;\u2028"
FIELDS = {
    *("label", "nodes", "clients", "keys", "value_bytes", "earlier", "operations", "seconds"),
    *("per_second", "p50_ms", "p99_ms", "cpu_us", "turns", "messages", "bytes", "peak_mb"),
    *("nodes_percent", "driver_percent", "refused", "unanswered"),
    *("per_second_growth", "cpu_growth"),
}
# A node that does what `serve` says with each request.
NODE = """
import json, sys
def answer(msg):
    body = {"type": "ok", "in_reply_to": msg["body"]["msg_id"]}
    print(json.dumps({"src": msg["dest"], "dest": msg["src"], "body": body}), flush=True)
answer(json.loads(input()))
for number, line in enumerate(sys.stdin):
    msg = json.loads(line)
    SERVE
"""


class Page(HTMLParser):
    """A page, read back: its words, its scripts and its policy."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.policy = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.policy = self.policy or dict(attrs).get("content") or ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self.cdata_elem == "script" else self.words).append(data)


def node(serve: str) -> list[str]:
    return [sys.executable, "-c", NODE.replace("SERVE", serve)]


def row(label: str, **figures: Any) -> dict[str, Any]:
    """A row as make bench writes it."""
    return {
        "label": label, "nodes": 3, "clients": 50, "keys": 10, "value_bytes": 0, "earlier": 0,
        "operations": 100, "seconds": 1.0, "per_second": 43210.0, "p50_ms": 1.25, "p99_ms": 2.5,
        "cpu_us": 33.4, "turns": 0.125, "messages": 0.25, "bytes": 150.0, "peak_mb": 44.0,
        "nodes_percent": 144.0, "driver_percent": 31.0, "refused": 0, "unanswered": 0,
    } | figures  # fmt: skip


def found() -> dict[str, Any]:
    """The files that make bench writes."""
    growth = {"per_second_growth": 0.5, "cpu_growth": 2.25}
    grid = [
        row("bare loop, 50 clients", nodes=0, cpu_ratio=1.0),
        row("3 nodes, 50 clients", cpu_ratio=5.75),
    ]
    durable = [row("in memory", **growth), row("durable", commits=0.0625, **growth)]
    parts = [{"title": "chapter 1; a bare loop", "this": 6.5, "that": 7.5, "ratio": 0.87}]
    return {
        "revision": HOSTILE, "began": "2026-11-26T04:26:40+00:00", "python": "3.11.7", "cores": 2,
        "seconds": 200.0, "driver_percent": 20.0, "load": [0.5, 1.5],
        "problems": [f"log {HOSTILE}"],
        "tables": {
            "grid": {"title": "grid: nodes and clients", "rows": grid},
            "durable": {"title": "durable: in memory and not", "rows": durable},
            "log": {"title": f"log: {HOSTILE}", "rows": [row(HOSTILE, **growth)]},
        },
        "parts": parts,
    }  # fmt: skip


def test_it_writes_what_it_has_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "reporter", lambda: None)
    bench.main(["--quick", "--only", "durable", "--store", str(tmp_path)])
    written = json.loads((tmp_path / "latest" / "bench.json").read_text())
    assert written["problems"] == [] and written["seconds"] > 0
    assert list(written["tables"]) == ["durable"]
    memory, durable = written["tables"]["durable"]["rows"][:2]
    assert memory.keys() == FIELDS and durable.keys() == FIELDS | {"commits"}
    for of in (memory, durable):
        assert of["per_second"] == pytest.approx(of["operations"] / of["seconds"], rel=1e-3)
        assert of["p50_ms"] <= of["p99_ms"]
        # Each request is at least one node's turn, and a write of 3 nodes goes to two others.
        assert min(of["turns"], of["messages"], of["bytes"], of["cpu_us"], of["peak_mb"]) > 0
    assert durable["commits"] > 0 and memory["cpu_growth"] == 1
    out = capsys.readouterr().out
    assert "durable, 1 client" in out and f"{durable['cpu_us']:,.1f}" in out
    assert "bench.html needs Bokeh. To write it: make" in out  # and how to get it
    assert not (tmp_path / "latest" / "bench.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "latest", (tmp_path / "latest").resolve().name
    }  # fmt: skip


@pytest.mark.parametrize(("name", "words"), [("bench", []), ("compare", ["HEAD"])])
def test_a_folder_that_cannot_be_made_is_named_in_a_line(
    name: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "store").touch()
    script = Path(bench.__file__).with_name(f"{name}.py")
    command = [sys.executable, str(script), *words, "--quick", "--store", str(tmp_path / "store/x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"cannot write to {tmp_path}/store/x" in done.stderr and done.stderr.count("\n") == 1
    assert "name another folder: --store FOLDER" in done.stderr


def test_the_bare_loop_is_the_scale(tmp_path: Path) -> None:
    scale = bench.Scale(True, tmp_path)
    bare, one, three = list(bench.grid(scale))[:3]
    assert (bare["nodes"], one["nodes"], three["nodes"]) == (0, 1, 3)
    for of in (bare, one, three):
        assert of["cpu_ratio"] == pytest.approx(of["cpu_us"] / bare["cpu_us"])
    assert one["messages"] == 0 < three["messages"]


def test_a_client_whose_request_is_lost_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 0.05)
    cluster = Cluster(node("number == 0 or answer(msg)"), 1)
    clients = Clients(cluster, 1, Mix(("write",)))
    clients.warm_up(0.2)
    assert clients.run(0.1).operations > 0
    cluster.end()


def test_an_answer_that_is_late_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 0.05)
    # The second request is answered after the first one, which was given up.
    cluster = Cluster(
        node("first = msg if number == 0 else first; number == 1 and answer(first)"), 1
    )
    window = Clients(cluster, 1, Mix(("write",))).run(0.3)
    assert window.operations == 0 and window.unanswered > 1
    cluster.end()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Fails a test that hangs."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
def test_what_pipes_do_not_hold_stops_nobody() -> None:
    cluster = Cluster(driver.RAFT, 3)
    clients = Clients(cluster, 9, Mix(("write", "read"), value_bytes=400_000))
    clients.warm_up(0.2)
    window = clients.run(0.2)
    assert window.bytes > 400_000 and window.messages > 0
    cluster.end()


def test_the_last_words_of_a_node_that_ends_are_told() -> None:
    cluster = Cluster(node("sys.exit('it was too much')"), 1)
    with pytest.raises(NodeEnded, match="n0 ended by itself: it was too much"):
        Clients(cluster, 1, Mix(("write",))).run(10)
    cluster.end()


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.20, 1.19, 1.21, 1.20, 1.22, 1.18, 1.20, 1.21, 1.19], "larger"),
        ([0.80, 0.81, 0.79, 0.80, 0.82, 0.78, 0.80, 0.81, 0.79], "larger"),
        ([1.20, 0.90, 1.40, 1.05, 1.30, 0.95, 1.20, 1.50, 1.10], "within noise"),
        ([1.01, 1.01, 1.01, 1.01, 1.01, 1.01, 1.01, 1.01, 1.01], "within noise"),
        ([1.20, 1.19, 1.21, 9.00, 1.22, 1.18, 0.10, 1.21, 1.19], "larger"),  # two were disturbed
        ([1.50, 1.50, 1.50, 1.50], "too few rounds"),
    ],
)
def test_which_differences_are_larger_than_the_noise(ratios: list[float], verdict: str) -> None:
    assert compare.judge(ratios).verdict == verdict
    assert compare.judge([1 / ratio for ratio in ratios]).verdict == verdict


@pytest.mark.parametrize("name", ["no-such-commit", "--output=here", "HEAD:README.md"])
def test_what_is_no_commit(name: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"is not a commit with raft\.py and node\.py"):
        compare.check_out(name, tmp_path / "that")


@pytest.mark.skipif(not (driver.ROOT / ".git").exists(), reason="it needs the repository")
def test_two_revisions_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "reporter", lambda: None)
    words = ["--quick", "--rounds", "1", "--only", "p50", "--store", str(tmp_path)]
    compare.main([*words, "--", "HEAD"])
    written = json.loads((tmp_path / "latest-compare" / "compare.json").read_text())
    assert written["this"].startswith("the working tree at ") and "HEAD (" in written["that"]
    (of,) = written["rows"]
    assert of["case"].startswith("p50 ms") and of["verdict"] == "too few rounds"
    assert of["ratio"] == pytest.approx(of["this"] / of["that"], rel=1e-3)


def test_the_page_has_all_values_as_text(tmp_path: Path) -> None:
    difference = {"ratio": 1.25, "margin": 0.03, "verdict": "larger", "this": 5.0, "that": 4.0}
    compared = {
        "this": HOSTILE, "that": "v1", "ended": "2026-11-26", "rounds": 9,
        "rows": [{"case": "CPU us: 1 node", **difference}, {"case": "p50", "problem": HOSTILE}],
    }  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps(found()))
    (tmp_path / "compare.json").write_text(json.dumps(compared))
    document = bench_page.write(tmp_path).read_text("utf-8")
    page = Page(document)
    for text in ("5.75", "43,210", "33.4", "0.125", "0.0625", "2.25", "0.87", "1.250", "larger"):
        assert text in page.words
    shown = " ".join(page.words)
    title = f"This ({HOSTILE}) compared with that (v1)"
    for place in (f"Benchmark of {HOSTILE}", f"log {HOSTILE}", title):
        assert place in shown
    # A script of the page is one of those that its policy names, and what was told is in none.
    assert page.scripts and not any(text == "alert(1)" for text in page.scripts)
    for text in page.scripts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page.policy


def test_the_page_of_a_comparison_alone(tmp_path: Path) -> None:
    compared = {"this": "a", "that": "b", "ended": "now", "rounds": 9, "rows": []}
    (tmp_path / "compare.json").write_text(json.dumps(compared))
    page = Page(bench_page.write(tmp_path).read_text("utf-8"))
    assert "Benchmark of a and b" in page.words and not page.scripts


def test_what_holds_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_page.main([str(tmp_path)]) == 1
    assert "has neither bench.json nor compare.json" in capsys.readouterr().err


def test_other_pythons_are_measured_if_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "python3.10"
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(bench, "PYTHONS", (str(stand_in), "python-of-nobody", sys.executable))
    rows = list(bench.pythons(bench.Scale(True, tmp_path)))
    assert [row["label"] for row in rows] == [
        f"{sys.executable}, {what}" for what in ("bare loop", "1 node", "3 nodes")
    ]
    bare, *others = rows
    for row in others:
        assert row["cpu_ratio"] == row["cpu_us"] / bare["cpu_us"]
