"""report.html: true to the run, of one piece, and deaf to what a history says."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bokeh.models import FactorRange
from workbench import __main__ as bench
from workbench.console.quantiles import quantile
from workbench.record import edn, store
from workbench.record.edn import Keyword
from workbench.record.history import HistoryError, Op, clients, operations
from workbench.record.journal import Sent
from workbench.report import charts, reading, report
from workbench.report.__main__ import main as report_main
from workbench.report.diagram import MOST_KINDS, kinds_of
from workbench.report.plots import Chart, Fault, fault_legend
from workbench.running.results import availability
from workbench.soak import seeds
from workbench.verdicts import Results, merge
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import Settings

ROOT = Path(__file__).resolve().parents[1]
MS = 1_000_000
COMMAND = ("./maelstrom", "test", "--bin", "my node.py")
HOSTILE = "</script></title><script>document.title='run'</script><img src=x onerror=alert(1)>'\"&"
SIMULATED = [
    *("test", "--bin", str(ROOT / "raft.py"), "--simulate", "--seed", "1", "--rate", "50"),
    *("--node-count", "3", "--concurrency", "2n", "--time-limit", "6", "--latency", "10"),
    *("--nemesis", "partition", "--nemesis-interval", "1"),
]


class Page(HTMLParser):
    """A page, read back: its tags, its words, the words of its table, and its scripts."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (self.scripts if self.tags and self.cdata_elem == "script" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


class History:
    """A history that grows by whole operations."""

    def __init__(self) -> None:
        self.events: list[Op] = []

    def did(
        self,
        process: int,
        f: str,
        value: Any,
        start: float,
        took: float,
        type: str = "ok",
        read: Any = None,
        error: Any = None,
    ) -> History:
        """An operation, with times in ms; the events must come in order."""
        self._note(process, "invoke", f, value, start)
        self._note(process, type, f, value if read is None else read, start + took, error)
        return self

    def fault(self, f: str, at: float, value: Any = "one") -> History:
        for _ in range(2):  # what is wanted, and what was done
            self._note("nemesis", "info", f, value, at)
        return self

    def _note(
        self, process: int | str, type: str, f: str, value: Any, at: float, error: Any = None
    ) -> None:
        self.events.append(Op(process, type, f, value, int(at * MS), len(self.events), error))


def good() -> History:
    return (
        History()
        .did(0, "write", [0, 1], 1000, 20)
        .did(1, "read", [0, None], 2000, 10, read=[0, 1])
        .did(1, "read", [0, None], 3000, 30, read=[0, 1])
        .did(0, "cas", [0, [7, 8]], 4000, 40, "fail", error=[22, "no such value"])
        .did(0, "write", [0, 3], 5000, 1000, "info", error=Keyword("net-timeout"))
    )


def bad() -> History:
    """Key 1 is not linearizable, key 0 is."""
    return (
        good()
        .did(2, "write", [1, 4], 7000, 10)
        .did(3, "read", [1, None], 8000, 10, read=[1, 2])
    )


def kept(history: History, name: str = "20261126T024210.771Z") -> Path:
    """The folder of a run with this history, as the bench leaves it."""
    folder = Path("store").absolute() / "lin-kv" / name
    (folder / "node-logs").mkdir(parents=True)
    for node in ("n0", "n10", "n2"):
        (folder / "node-logs" / f"{node}.log").touch()
    events = [op for op in history.events if op.process != "nemesis"]
    workload = LinKv(random.Random(0), Settings(1))
    results: Results = {
        Keyword("availability"): availability(events, None),
        Keyword("net"): {
            Keyword("servers"): {Keyword("msgs-per-op"): 3.25},
            Keyword("valid?"): True,
        },
        Keyword("workload"): workload.check(history.events),
    }
    parts = (Keyword("workload"), Keyword("availability"))
    results[Keyword("valid?")] = merge(results[part][Keyword("valid?")] for part in parts)
    store.write(folder, history.events, results, workload, COMMAND)
    return folder


def page(folder: Path) -> Page:
    return Page(report.write(folder).read_text("utf-8"))


def drawn(folder: Path) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts.charts(reading.read(folder))}


def points(chart: Chart) -> dict[str, dict[str, list[Any]]]:
    """The columns of each kind and outcome that has operations, by the words of the legend."""
    items = {item.label.value: item.renderers[0].data_source.data for item in legend(chart)}
    return {name: data for name, data in items.items() if data["left"]}


def legend(chart: Chart) -> list[Any]:
    return list(chart.plot.legend[0].items)


def columns(chart: Chart, renderer: int) -> dict[str, list[Any]]:
    """The data of a chart's layer; the faults are the first, the others above them."""
    renderers: Any = chart.plot.renderers
    data: dict[str, list[Any]] = renderers[renderer].data_source.data
    return data


def verdict(read_back: Page) -> str:
    classes = [tag.get("class") or "" for tag in read_back.of("span")]
    (found,) = (name for name in classes if "verdict" in name)
    return found


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The page's texts


def test_a_valid_run() -> None:
    read_back = page(kept(good()))
    assert verdict(read_back) == "verdict valid"
    assert [tag for tag in read_back.of("p") if tag.get("class") == "why"] == [{"class": "why"}], (
        "only that of a browser without scripts"
    )
    for words in (
        "nodes n0 n2 n10 · began 2026-11-26 02:42:10 UTC · 6.0 s",
        "./maelstrom test --bin 'my node.py'",
        "cas 0 1 0 read 2 0 0 10 30 30 30 write 1 0 1 20 20 20 20 all 3 1 1 20 30 30 30",
        "60.0% of the operations were ok · 3.25 messages between servers per operation",
    ):
        assert words in read_back.text
    assert not read_back.of("img")


def test_an_invalid_run_says_why_and_shows_its_picture_and_its_key_first() -> None:
    folder = kept(bad())
    read_back = page(folder)
    assert verdict(read_back) == "verdict invalid"
    assert "process 3's read found 2, but key 1 held 4" in read_back.text
    assert "Key 1: not linearizable 0 " in read_back.text, "the options, the worst key first"
    (image,) = read_back.of("img")
    head, _, data = (image["src"] or "").partition(",")
    assert head == "data:image/svg+xml;base64"
    picture = folder / "independent" / "1" / "linear.svg"
    assert base64.b64decode(data) == picture.read_bytes()


def test_every_operation_is_a_point_of_its_latency() -> None:
    found = points(drawn(kept(good()))["latency"])
    shown = {name: list(zip(d["left"], d["took"], strict=True)) for name, d in found.items()}
    assert shown == {
        "write ok": [(1.0, 20.0)],
        "read ok": [(2.0, 10.0), (3.0, 30.0)],
        "cas failed": [(4.0, 40.0)],
        "write unknown": [(5.0, 1000.0)],
    }
    (what,), (error,) = found["cas failed"]["what"], found["cas failed"]["error"]
    assert (what, error) == ("cas [0 [7 8]]", '[22 "no such value"]')
    assert [found["write unknown"][name] for name in ("right", "process")] == [[6.0], ["0"]]


def test_colour_is_the_outcome_and_shape_the_kind() -> None:
    looks = {}
    for item in legend(drawn(kept(good()))["latency"]):
        glyph = item.renderers[0].glyph
        looks[item.label.value] = glyph.marker, glyph.fill_color
    for one, (marker, colour) in looks.items():
        for other, (other_marker, other_colour) in looks.items():
            assert (marker == other_marker) is (one.split()[0] == other.split()[0])
            assert (colour == other_colour) is (one.split()[1] == other.split()[1])


def test_what_took_no_time_has_a_place_on_the_logarithmic_axis() -> None:
    chart = drawn(kept(good().did(5, "read", [0, None], 7000, 0, read=[0, 3])))["latency"]
    *_, took = points(chart)["read ok"]["took"]
    *_, exact = points(chart)["read ok"]["exact"]
    assert took > 0 == exact and chart.plot.y_range.start < took  # type: ignore[attr-defined]


def test_an_operation_without_a_completion_lasts_to_the_end() -> None:
    history = good()
    history._note(7, "invoke", "read", [0, None], 6500)
    history.did(8, "read", [0, None], 7000, 500, read=[0, 3])
    unknown = points(drawn(kept(history))["latency"])["read unknown"]
    assert (unknown["left"], unknown["right"]) == ([6.5], [7.5])


def test_rates_count_each_operation_once() -> None:
    chart = drawn(kept(bad()))["rate"]
    data = columns(chart, -1)
    width = data["right"][0] - data["left"][0]
    counts = {type: round(sum(data[type]) * width, 6) for type in ("ok", "fail", "info")}
    assert counts == {"ok": 5, "fail": 1, "info": 1}
    tops = [sum(data[type][bin] for type in counts) for bin in range(len(data["left"]))]
    assert data["info top"] == pytest.approx(tops), "the outcomes stand on each other"


def test_one_time_axis() -> None:
    charts = drawn(kept(bad().fault("start-partition", 8500).fault("stop-partition", 9000)))
    assert list(charts) == ["faults", "latency", "rate", "processes"]
    (time,) = {chart.plot.x_range for chart in charts.values()}
    assert time.name == "time", "the page's script finds it by this name"
    assert time.start < 0 < 9 < time.end  # type: ignore[attr-defined]


def test_what_is_wrong_leads_to_the_moment_and_tells_which_nodes_were_asked() -> None:
    """A read at 8 s, of a value that was written at 7 s; nodes are n0, n2 and n10."""
    read_back = page(kept(bad()))
    links = [tag["href"] for tag in read_back.of("a")]
    assert "#t=6.750,8.250" in links and "#pictures" in links
    assert {"id": "pictures"} in read_back.of("section")
    assert "(index 12). Process 3 asked n0, process 2 asked n10." in read_back.text
    assert "asked" not in page(kept(good(), "20261126T024210.772Z")).text


def test_nodes_that_never_spoke_to_each_other_are_told_of() -> None:
    folder = kept(bad())
    silence = "No node sent a message to another node."
    assert silence not in page(folder).text
    found = edn.loads((folder / "results.edn").read_text())
    found[Keyword("net")][Keyword("servers")][Keyword("msg-count")] = 0
    (folder / "results.edn").write_text(edn.pretty(found))
    assert silence in page(folder).text


def test_an_operation_tells_which_node_was_asked() -> None:
    data = points(drawn(kept(bad()))["latency"])["read ok"]
    assert dict(zip(data["process"], data["asked"], strict=True)) == {
        "1": "asked n2", "3": "asked n0",
    }  # fmt: skip


def test_a_logarithmic_axis_has_a_few_numbers() -> None:
    assert charts.log_ticks(0.1, 10) == [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
    assert charts.log_ticks(0.01, 1000) == [0.01, 0.1, 1, 10, 100, 1000]


def test_faults_are_bands_with_names() -> None:
    history = good().fault("start-partition", 6500, [Keyword("isolated"), {"n0": ["n1"]}])
    history.fault("start-kill", 7000).fault("stop-partition", 8000)
    history.did(3, "read", [0, None], 9000, 1000, read=[0, 3])
    charts = drawn(kept(history))
    lanes = charts["faults"].plot
    assert isinstance(lanes.y_range, FactorRange) and lanes.y_range.factors == ["kill", "partition"]
    data = columns(charts["faults"], 0)
    spans = set(zip(data["kind"], data["left"], data["right"], strict=True))
    assert spans == {("partition", 6.5, 8.0), ("kill", 7.0, 10.0)}, "the kill never ends"
    assert any("isolated" in details for details in data["details"])
    for name in ("latency", "rate", "processes"):
        band = columns(charts[name], 0)
        assert set(zip(band["x0"], band["x1"], strict=True)) == {(6.5, 8.0), (7.0, 10.0)}
    assert len(set(data["colour"])) == 2


def test_of_too_many_operations_those_that_matter_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = bad()
    for number in range(100):
        history.did(9, "read", [0, None], 9000 + 10 * number, 1, read=[0, 3])
    monkeypatch.setattr(charts, "MOST", 20)
    folder = kept(history)
    found = points(drawn(folder)["latency"])
    assert 10 <= sum(len(data["left"]) for data in found.values()) <= 20
    assert len(found["cas failed"]["left"]) == len(found["write unknown"]["left"]) == 1
    keys = [key for data in found.values() for key in data["key"]]
    assert keys.count(0) == 2, "all operations of the key that is not linearizable"
    assert "of 107 operations, all of them ok, are not drawn" in page(folder).text
    assert "all 105 1 1" in page(folder).text, "the figures are of all operations"


# Where it comes from


def test_without_results_the_checker_judges() -> None:
    for history, expected in ((good(), "valid"), (bad(), "invalid")):
        folder = kept(history, expected)
        (folder / "results.edn").unlink()
        read_back = page(folder)
        assert verdict(read_back) == f"verdict {expected}"
        assert "because results.edn cannot be read" in read_back.text
        assert ("but key 1 held 4" in read_back.text) is (expected == "invalid")
        assert "messages between servers" not in read_back.text


def test_results_that_make_no_sense_are_none() -> None:
    folder = kept(good())
    for text in ("{", "[]", "{:valid? 7, :net 1, :workload {:results 3}}", "\x00", "{{} {}}"):
        (folder / "results.edn").write_text(text)
        assert verdict(page(folder)) in ("verdict valid", "verdict unknown")


def test_a_folder_of_the_real_maelstrom() -> None:
    """Its results have no words for the anomaly, and its command is in its log."""
    folder = kept(bad())
    (folder / "results.edn").write_text(
        "{:workload {:valid? false, :results {1 {:valid? false}, 0 {:valid? true}}}, "
        ":valid? false}"
    )
    (folder / "jepsen.log").write_text(
        "2026-11-26 INFO [main] jepsen.cli: Command line:\nlein run test -w lin-kv --rate 10\n\n"
    )
    read_back = page(folder)
    assert verdict(read_back) == "verdict invalid"
    assert "but key 1 held 4" in read_back.text
    assert "lein run test -w lin-kv --rate 10" in read_back.text


def test_a_part_that_is_not_valid_is_told() -> None:
    folder = kept(good())
    (folder / "results.edn").write_text(
        '{:exceptions {:valid? false, :exceptions ["n1 sent no JSON"]}, :valid? false}'
    )
    read_back = page(folder)
    assert verdict(read_back) == "verdict invalid" and "n1 sent no JSON" in read_back.text


def test_a_history_without_times_has_figures_and_no_charts() -> None:
    folder = kept(good())
    (folder / "history.edn").unlink()
    read_back = page(folder)
    assert "all 3 1 1" in read_back.text and not read_back.scripts


@pytest.mark.parametrize("what", ["nothing", "a file", "no history"])
def test_what_is_no_run(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("x")
    if what == "a file":
        folder.touch()
    elif what == "no history":
        folder.mkdir()
    with pytest.raises(HistoryError):
        reading.read(folder)
    assert report_main([str(folder), str(kept(good()))]) == 255
    assert capsys.readouterr().err.startswith("maelstrom: no report.html: x ")
    assert (kept(good(), "other").parent / "20261126T024210.771Z" / "report.html").exists()


# Faulty inputs


def test_hostile_content_is_text() -> None:
    history = bad()
    history.did(4, "write", [HOSTILE, HOSTILE + "\ud800\x00"], 9000, 5)
    history.did(4, HOSTILE, [HOSTILE, None], 9100, 5, "fail", error=HOSTILE)
    history.fault(f"start-{HOSTILE}", 9200, HOSTILE)
    folder = kept(bad())
    harmless = page(folder)
    (folder / "results.edn").write_text(
        store.COMMAND + edn.dumps([HOSTILE]) + f"\n{{:x {{:valid? false, :y {edn.dumps(HOSTILE)}}}"
        ", :valid? false}"
    )
    (folder / "node-logs" / f"{HOSTILE.replace('/', '')}.log").touch()
    hostile_key = folder / "independent" / HOSTILE.replace("/", "")
    hostile_key.mkdir()
    (hostile_key / "linear.svg").write_text("<svg><script>alert(1)</script></svg>")
    run = reading.read(folder)
    run.events, run.operations = history.events, operations(clients(history.events))
    run.title, run.keys = HOSTILE, [(HOSTILE, False)]
    read_back = Page(report.html(run))
    assert "document.title='run'" in read_back.text
    assert len(read_back.scripts) == len(harmless.scripts) > 1
    assert {tag for tag, _ in read_back.tags} <= {tag for tag, _ in harmless.tags}
    for _, attributes in read_back.tags:
        assert not [name for name in attributes if name.startswith("on")]
    for image in read_back.of("img"):
        assert (image["src"] or "").startswith("data:image/svg+xml;base64,")


def test_nothing_runs_but_the_scripts_of_the_page() -> None:
    read_back = page(kept(bad()))
    (policy,) = (tag["content"] or "" for tag in read_back.of("meta") if "http-equiv" in tag)
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    digests = [hashlib.sha256(text.encode()).digest() for text in read_back.scripts]
    assert allowed == [base64.b64encode(digest).decode() for digest in digests]
    assert "unsafe-eval" not in policy and "script-src 'unsafe" not in policy


def test_the_page_needs_no_network() -> None:
    folder = kept(bad())
    read_back = page(folder)
    for tag, attributes in read_back.tags:
        for name in ("src", "href"):
            link = attributes.get(name)
            if link is not None and tag != "a":
                assert link.startswith("data:"), (tag, link)
            elif link is not None and not link.startswith("#"):
                assert (folder / link).exists(), "links lead to the run's other files"


def test_megabytes_are_cut_short() -> None:
    history = bad().did(4, "write", [5, "long" * 500_000], 9000, 5, "fail", error="x" * 2_000_000)
    folder = kept(history)
    (folder / "independent" / "1" / "linear.svg").write_bytes(b" " * (report.PICTURE + 1))
    report.write(folder)
    assert (folder / "report.html").stat().st_size < 2_500_000
    assert "The drawing of key 1 is larger than" in page(folder).text


# When it is written


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "maelstrom"), *SIMULATED],
        env={**os.environ, "MAELSTROM": "workbench", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_run_writes_it_and_its_verdict_stays_the_last_line() -> None:
    with_it, without = run(MAELSTROM_REPORT="yes"), run()
    pages = [path.parent for path in Path("store/lin-kv").glob("2*/report.html")]
    assert len(pages) == 1 and with_it.returncode == without.returncode == 0
    assert with_it.stdout.rstrip().splitlines()[-1].startswith("Everything looks good!")
    assert f"The results are in {pages[0]}; open its report.html in a browser." in with_it.stdout
    assert "report.html" not in without.stdout, "within the tests nobody looks at it"
    read_back = Page((pages[0] / "report.html").read_text("utf-8"))
    assert verdict(read_back) == "verdict valid"
    assert "--simulate --seed 1 --rate 50" in read_back.text


def test_a_run_without_bokeh_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAELSTROM_REPORT", "yes")
    monkeypatch.setattr(store, "reporter", lambda: None)
    assert bench.main(SIMULATED) == 0
    out = capsys.readouterr().out.rstrip().splitlines()
    assert out[-1].startswith("Everything looks good!")
    assert "report.html was not written. To write it: make report" in out
    assert not list(Path("store/latest").glob("report.html"))
    assert bench.main(["report"]) == 255
    assert "make report" in capsys.readouterr().err


def test_where_bokeh_is(monkeypatch: pytest.MonkeyPatch, cwd: Path) -> None:
    assert store.reporter() == Path(sys.executable)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(store, "ROOT", cwd)
    assert store.reporter() is None
    python = cwd / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert store.reporter() is None, "a .venv from before there was a page"
    (cwd / ".venv" / "lib" / "python3.11" / "site-packages" / "bokeh").mkdir(parents=True)
    assert store.reporter() == python


def test_the_command_writes_it_again(capfd: pytest.CaptureFixture[str]) -> None:
    folder = kept(good())
    assert bench.main(["report"]) == 0
    assert capfd.readouterr().out == "store/latest/report.html\n"
    assert (folder / "report.html").exists()
    assert bench.main(["report", "nowhere"]) == 255
    assert "nowhere is not a folder; give the folder of a run" in capfd.readouterr().err


def test_the_soak_writes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAELSTROM_REPORT", "yes")
    monkeypatch.setattr(store, "report", lambda *_: pytest.fail("nobody looks at it"))
    monkeypatch.setattr(store, "write", lambda *_: pytest.fail("nor at the other files"))
    outcome = seeds.run(0, str(ROOT / "raft.py"), tmp_path)
    assert outcome and outcome.operations


# Numbers


def test_quantiles() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [quantile(hundred, part) for part in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert quantile([7.0], 0.5) == 7


@pytest.mark.parametrize("seconds", [0.0003, 0.9, 10, 77, 3600, 1e6])
@pytest.mark.parametrize("operations", [0, 5, 300, 10**6])
def test_bins_are_round_and_few(seconds: float, operations: int) -> None:
    width = charts.bin_width(seconds, operations)
    assert f"{width:e}"[0] in "125" and float(f"{width:.0e}") == pytest.approx(width)
    assert seconds / width <= charts.BINS
    assert seconds / width > min(charts.BINS, max(10, operations / 8)) / 2.6


def test_a_kind_of_message_has_one_colour_in_all_runs() -> None:
    def sent(*types: str) -> list[Sent]:
        return [Sent(n, "n0", "n1", n, type, "{}") for n, type in enumerate(types)]

    one = kinds_of(sent("read", "read_ok", "append_entries", "gossip"))
    other = kinds_of(sent("gossip", "gossip", "cas", "append_entries"))
    assert {one[kind] == other[kind] for kind in ("append_entries", "gossip")} == {True}
    many = kinds_of(sent(*(f"type{number}" for number in range(30))))
    assert len(many) == MOST_KINDS + 1 and "others" in many


def test_every_chart_has_a_legend() -> None:
    faults = [Fault("kill", 0, 1, "", "#8E6FD1"), Fault("kill", 2, 3, "", "#8E6FD1")]
    assert fault_legend(faults).count("during kill") == 1 and not fault_legend([])
    drawn = page(kept(good()))
    assert "ok failed unknown" in drawn.text
    assert "A bar lasts from a request to its reply" in drawn.text
