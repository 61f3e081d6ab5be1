"""The cluster's life: from the nodes' own lines and the nemesis's notes to the bands of a page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bokeh.models import FactorRange
from test_report import HOSTILE, MS, SIMULATED, History, columns, drawn, good, kept, page
from workbench.record import life
from workbench.record.edn import Keyword
from workbench.record.life import Line
from workbench.report import charts, reading, report
from workbench.report.plots import TEXT

ROOT = Path(__file__).resolve().parents[1]
LINES = [
    Line(-5 * MS, "n10", "n10 term 1: follower, n2 asks for a vote"),
    Line(0, "n2", "n2 term 1: candidate"),
    Line(1000 * MS, "n2", "n2 term 1: leader, elected by n10 n2"),
    Line(1500 * MS, "n10", "n10 term 1: follower of n2"),
    Line(3000 * MS, "n10", "n10 term 2: follower, n0 is in a later term"),
]


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_life(history: History, lines: Sequence[Line] = LINES) -> Path:
    """The folder of a run of nodes n0, n2 and n10 that lasts until 6 s."""
    folder = kept(history)
    (folder / life.NAME).write_text(life.to_edn(lines, folder), "utf-8", "replace")
    return folder


def happened(f: str, at: int, **nodes: str) -> History:
    """The notes of the nemesis: with start_kill, 5, n1="killed" that n1 was killed at 5 ms."""
    history = History()
    history._note("nemesis", "info", f, None, at)
    history._note("nemesis", "info", f, {name: Keyword(what) for name, what in nodes.items()}, at)
    return history


def said(at: int, text: str, node: str = "n1") -> Line:
    return Line(at * MS, node, f"{node} term {text}")


def was(lines: Sequence[Line], *faults: History, until: int = 100) -> list[tuple[Any, ...]]:
    """The roles of n1, each from when, in ms, and in which term; gapless until the end."""
    events = [op for history in faults for op in history.events]
    spans = life.spans(lines, events, ["n1"], until * MS)
    for one, next in pairwise(spans):
        assert one.end == next.start
    assert spans[-1].end == until * MS and spans[0].start <= 0
    return [(span.start // MS, span.state, span.term) for span in spans]


# Roles


def test_a_node_is_what_it_said_last() -> None:
    lines = [said(-3, "0: follower of n0"), said(5, "1: candidate"), said(7, "1: leader, elected")]
    assert was(lines) == [(-3, "follower", 0), (0 + 5, "candidate", 1), (7, "leader", 1)]
    assert was([]) == [(0, "silent", None)]
    assert was(lines[1:]) == [(0, "silent", None), (5, "candidate", 1), (7, "leader", 1)]
    assert was([*lines, said(6, "9: leader", "n2")]) == was(lines), "another node's"
    assert was([*lines, said(100, "9: follower"), said(150, "9: leader")]) == was(lines)


def test_a_killed_node_is_down_and_then_silent_until_it_speaks() -> None:
    lines = [said(0, "1: leader"), said(60, "1: follower of n2")]
    kill = happened("start-kill", 20, n1="killed", n2="killed")
    start = happened("stop-kill", 50, n1="started", n2="started")
    assert was(lines, kill, start) == [
        (0, "leader", 1), (20, "down", 1), (50, "silent", None), (60, "follower", 1),
    ]  # fmt: skip
    assert was(lines[:1], kill) == [(0, "leader", 1), (20, "down", 1)], "for ever"


def test_the_first_words_at_the_very_moment_of_the_start_are_the_new_lifes() -> None:
    lines = [said(0, "3: leader"), said(50, "2: follower, with its state")]
    kill = happened("start-kill", 20, n1="killed")
    start = happened("stop-kill", 50, n1="started")
    assert was(lines, kill, start) == [(0, "leader", 3), (20, "down", 3), (50, "follower", 2)]


def test_who_speaks_is_not_dead_yet() -> None:
    """A simulated kill may wait for the node's next write."""
    lines = [said(0, "1: follower"), said(25, "2: candidate"), said(28, "2: leader")]
    kill = happened("start-kill", 20, n1="killed")
    start = happened("stop-kill", 50, n1="started")
    assert was(lines, kill, start) == [
        (0, "follower", 1), (25, "candidate", 2), (28, "down", 2), (50, "silent", None),
    ]  # fmt: skip


def test_a_paused_node_goes_on_as_what_it_was_or_has_said_meanwhile() -> None:
    pause = happened("start-pause", 20, n1="paused")
    resume = happened("stop-pause", 50, n1="resumed")
    lines = [said(0, "1: leader")]
    assert was(lines, pause, resume) == [(0, "leader", 1), (20, "paused", 1), (50, "leader", 1)]
    lines.append(said(21, "2: follower of n2"))
    assert was(lines, pause, resume)[-1] == (50, "follower", 2)
    assert [state for _, state, _ in was(lines, pause, resume)] == [
        "leader", "paused", "paused", "follower",
    ]  # fmt: skip


def test_a_kill_ends_a_pause() -> None:
    lines = [said(0, "1: leader"), said(41, "1: follower")]
    faults = [
        happened("start-pause", 10, n1="paused"),
        happened("start-kill", 20, n1="killed"),
        happened("stop-kill", 40, n1="started"),
        happened("stop-pause", 60, n1="resumed"),
    ]
    assert was(lines, *faults) == [
        (0, "leader", 1), (10, "paused", 1), (20, "down", 1), (40, "silent", None),
        (41, "follower", 1),
    ]  # fmt: skip
    dead = [faults[1], happened("start-pause", 30, n1="paused"), faults[3]]
    assert was(lines[:1], *dead) == [(0, "leader", 1), (20, "down", 1)]


def test_of_who_says_more_than_is_kept_nothing_is_claimed() -> None:
    lines = [said(number // 100, f"{number}: leader") for number in range(life.MOST)]
    assert was(lines)[-1] == (19, "silent", life.MOST - 1)
    assert was(lines[:-1])[-1] == (19, "leader", life.MOST - 2)


# The file


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines = [
        *LINES,
        Line(2**62, "n1", f'n1 term 3: follower, "its" file\\ {tmp_path}/data/n1.db \x00\t\u2028'),
    ]
    text = life.to_edn(lines, tmp_path)
    assert text.splitlines()[0] == '[-5000000 "n10" "n10 term 1: follower, n2 asks for a vote"]'
    assert str(tmp_path) not in text, "a run's folder has another name each time"
    (tmp_path / life.NAME).write_text(text, "utf-8")
    *same, last = life.read(tmp_path)
    assert same == LINES
    assert last.text == lines[-1].text.replace(str(tmp_path), "{run}")


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[1]",
        "{}",
        '[1.5 "n1" "n1 term 1: leader"]',
        '[true "n1" "n1 term 1: leader"]',
        '[1 :n1 "n1 term 1: leader"]',
        '[1 "n2" "n1 term 1: leader"]',
        '[1 "n1" "n1 term 1: king"]',
        f'[{10**30} "n1" "n1 term 1: leader"]',
        "\udcff",
    ],
)
def test_without_sense_it_is_left_out_with_the_reason(text: str) -> None:
    folder = with_life(good())
    (folder / life.NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "life" not in drawn(folder)
    assert "roles are not drawn, because life.edn cannot be read: " in page(folder).text


def test_a_file_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "LARGEST", 10)
    assert "life.edn cannot be read: it is larger than" in page(with_life(good())).text


def test_without_the_file_a_sentence_says_why() -> None:
    folder = kept(good().fault("start-partition", 6500))
    assert list(drawn(folder)) == ["faults", "latency", "rate", "processes"]
    read_back = page(folder)
    assert reading.NO_LIFE in read_back.text
    sections = [tag["id"] for tag in read_back.of("section")]
    assert sections == ["figures", "faults", "life", "latency", "rate", "messages", "processes"]


# The chart


def test_a_band_for_each_node_between_the_faults_and_the_latencies() -> None:
    history = good().fault("start-kill", 6000, {"n2": Keyword("killed")})
    history.did(3, "read", [0, None], 6100, 900, read=[0, 3])
    folder = with_life(history)
    charts = drawn(folder)
    assert list(charts) == ["faults", "life", "latency", "rate", "processes"]
    assert len({chart.plot.x_range for chart in charts.values()}) == 1
    plot = charts["life"].plot
    assert isinstance(plot.y_range, FactorRange)
    assert plot.y_range.factors == ["n10", "n2", "n0"], "from the bottom to the top"
    data = columns(charts["life"], 1)
    rows = zip(*(data[name] for name in ("node", "left", "right", "what", "said")), strict=True)
    assert sorted(rows) == [
        ("n0", 0, 7, "silent", ""),
        ("n10", -0.005, 1.5, "follower in term 1", "follower, n2 asks for a vote"),
        ("n10", 1.5, 3, "follower in term 1", "follower of n2"),
        ("n10", 3, 7, "follower in term 2", "follower, n0 is in a later term"),
        ("n2", 0, 1, "candidate in term 1", "candidate"),
        ("n2", 1, 6, "leader in term 1", "leader, elected by n10 n2"),
        ("n2", 6, 7, "down", "before: leader, elected by n10 n2 (term 1, at 1.000 s)"),
    ]
    colours = dict(zip(data["what"], data["colour"], strict=True))
    assert len(set(colours.values())) == len({what.split()[0] for what in colours})
    text = page(folder).text
    assert "follower candidate leader down silent" in text
    assert "silent paused" not in text and "paused silent" not in text, "nobody is paused"


def test_a_term_has_one_text_for_as_long_as_the_role_stays() -> None:
    terms = columns(drawn(with_life(good()))["life"], -1)
    names = ("node", "left", "right", "long", "short")
    assert list(zip(*(terms[name] for name in names), strict=True)) == [
        ("n10", -0.005, 3, "term 1", "1"),
        ("n10", 3, 6, "term 2", "2"),
        ("n2", 0, 1, "term 1", "1"),
        ("n2", 1, 6, "term 1", "1"),
    ]
    lines = [top != bottom for top, bottom in zip(terms["top"], terms["bottom"], strict=True)]
    assert lines == [False, True, False, False], "where the colour stays, and the term does not"


ISOLATED = Keyword("isolated")


@pytest.mark.parametrize(
    ("value", "reach"),
    [
        ([ISOLATED, {"n10": ["n0", "n2"], "n2": ["n10"], "n0": ["n10"]}], "n0 n2 | n10"),
        ([ISOLATED, {"n0": ["n2", "n10"], "n2": ["n0", "n10"], "n10": ["n0", "n2"]}],
         "n0 | n2 | n10"),
        ([ISOLATED, {"n2": ["n0", "n10"]}],
         "n0 hears n2 n10; n2 hears nobody; n10 hears n0 n2"),
        ([ISOLATED, {"n0": ["n2"], "n2": ["n10"], "n10": ["n0"]}],
         "n0 hears n10; n2 hears n0; n10 hears n2"),
        ([ISOLATED, {}], "n0 n2 n10"),
        ([ISOLATED, {7: ["n2"]}], ""),
        ([ISOLATED, {"n0": 7}], ""),
        ([ISOLATED, 7], ""),
        ([ISOLATED], ""),
        ([Keyword("healed"), {"n0": ["n2"]}], ""),
        ({"n0": Keyword("killed")}, ""),
        (None, ""),
    ],
)  # fmt: skip
def test_a_partition_says_who_hears_whom(value: Any, reach: str) -> None:
    chart = drawn(kept(good().fault("start-partition", 6500, value)))["faults"]
    assert columns(chart, 0)["reach"] == [reach]


def test_a_partition_of_very_many_nodes_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "MOST_NODES", 2)
    value = [ISOLATED, {"n0": ["n2"]}]
    chart = drawn(kept(good().fault("start-partition", 6500, value)))["faults"]
    assert columns(chart, 0)["reach"] == [""]


# Faulty inputs


def test_hostile_lines_are_text() -> None:
    folder = with_life(good())
    harmless = page(folder)
    text = f"n0<script> term 1: leader, {HOSTILE}{'long ' * 80}\x00\ud800"
    lines = [Line(9 * MS, "n0<script>", text)]
    (folder / life.NAME).write_text(life.to_edn(lines, folder), "utf-8", "replace")
    read_back = page(folder)
    words = max(columns(drawn(folder)["life"], 0)["said"])
    assert "alert(1)" in words, "it is there"
    assert len(words) == TEXT and words.isprintable()
    assert len(read_back.scripts) == len(harmless.scripts) > 1
    assert {tag for tag, _ in read_back.tags} <= {tag for tag, _ in harmless.tags}


def test_of_too_many_bands_some_are_drawn_and_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(charts, "MOST_SPANS", 2)
    monkeypatch.setattr(charts, "MOST_NODES", 2)
    folder = with_life(good())
    data = columns(drawn(folder)["life"], 0)
    assert sorted(data["what"]) == ["leader in term 1", "silent"], "the long ones of n0 and n2"
    told = "1 of 3 nodes are not drawn. The 1 shortest parts of bands are not drawn."
    assert told in page(folder).text


def test_a_run_as_loud_as_can_be_makes_a_page_of_bounded_size() -> None:
    words = "why " * (life.LENGTH // 5)
    lines = [
        Line(number * MS, f"n{node}", f"n{node} term {number}: leader, {words}")
        for node in range(60)
        for number in range(1500)
    ]
    folder = with_life(good(), lines)
    report.write(folder)
    assert (folder / "report.html").stat().st_size < 4_000_000


# A whole run


@pytest.mark.parametrize("words", [[], ["--", "--data-dir", "{run}/data"]])
def test_the_same_seed_gives_the_same_life(words: list[str], tmp_path: Path) -> None:
    def run(name: str) -> bytes:
        (tmp_path / name).mkdir()
        command = [sys.executable, str(ROOT / "maelstrom"), *SIMULATED, *words]
        subprocess.run(
            command, cwd=tmp_path / name, check=True, capture_output=True, timeout=600
        )
        return (tmp_path / name / "store" / "latest" / life.NAME).read_bytes()

    one, other = run("one"), run("a name that is longer")
    assert one == other
    assert b": leader, elected by" in one and b": follower of n" in one
    lines = life.read(tmp_path / "one" / "store" / "latest")
    assert [line.time for line in lines] == sorted(line.time for line in lines)
    assert 0 <= -lines[0].time < 1000 * MS < lines[-1].time < 7000 * MS
