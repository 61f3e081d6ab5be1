"""The page of a run in a browser: Chromium opens it, and the charts do what they should.

It needs Chromium (Debian's package, say); without one these tests are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright
from workbench import __main__ as bench
from workbench.record import store
from workbench.report import report

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")
CHARTS = ["faults", "life", "commits", "latency", "rate", "messages", "processes"]
# Where on the screen a point of a plot is, by the plot's name and its own axes.
PLACE = """([name, x, y]) => {
  const plot = Bokeh.documents[0].get_model_by_name(name);
  const view = Bokeh.index.find_one(plot);
  const frame = view.frame, box = view.el.getBoundingClientRect();
  const left = frame.x_scale.compute(x), top = frame.y_scale.compute(y);
  return [box.left + left, box.top + top];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
        except Error as error:  # it is not ours to mend
            pytest.skip(f"{CHROMIUM} does not start: {error}")
        yield chromium
        chromium.close()


class Opened:
    """A page that is open, and what the browser had to complain of."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.complaints: list[str] = []
        self.page: Page = browser.new_page(**options)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.resolve().as_uri())

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def when(self, condition: str) -> None:
        """Waits until this is true in the page."""
        self.page.wait_for_function(f"() => {condition}")

    def drawn(self) -> None:
        """Waits until all charts are there."""
        self.when("window.Bokeh && Bokeh.documents[0] && Bokeh.documents[0].is_idle")


def simulated(folder: Path, *words: str, expected: int = 0) -> Path:
    """The folder of a simulated run with these words."""
    folder.mkdir()
    options = ["--bin", str(ROOT / "raft.py"), "--simulate", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(store.REPORT, "yes")
        patch.setattr(store, "reporter", lambda: None)  # it would be another process
        assert bench.main(["test", *options]) == expected
    found = (folder / "store" / "latest").resolve()
    report.write(found)
    return found


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with partitions and kills."""
    return simulated(
        tmp_path_factory.mktemp("browser") / "faulty",
        *("--node-count", "3", "--concurrency", "2n", "--rate", "30", "--latency", "10"),
        *("--nemesis", "partition,kill", "--nemesis-interval", "2", "--time-limit", "10"),
        *("--seed", "5"),
        *("--", "--data-dir", "{run}/data"),
    )


@pytest.fixture(scope="module")
def invalid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chapter 1's server on two nodes."""
    return simulated(
        tmp_path_factory.mktemp("browser") / "invalid",
        *("--node-count", "2", "--concurrency", "2n", "--rate", "30", "--time-limit", "3"),
        *("--seed", "2", "--", "--unreplicated"),
        expected=1,
    )


# As the real Maelstrom writes it: no messages, no life, a verdict in results.edn.
HISTORY = """\
{:process 0, :time 33087562, :type :invoke, :f :write, :value [0 4], :index 0}
{:process 0, :time 33957921, :type :ok, :f :write, :value [0 4], :index 1}
{:process 1, :time 241190121, :type :invoke, :f :read, :value [0 nil], :index 2}
{:process 1, :time 252013417, :type :ok, :f :read, :value [0 4], :index 3}
{:process :nemesis, :time 301190121, :type :info, :f :start-partition, :value :majority, :index 4}
{:process :nemesis, :time 301290121, :type :info, :f :start-partition, :value [:isolated \
{"n0" #{"n1" "n2"}, "n1" #{"n0"}, "n2" #{"n0"}}], :index 5}
{:process 1, :time 311190121, :type :invoke, :f :cas, :value [0 [4 1]], :index 6}
{:process 1, :time 1311190121, :type :info, :f :cas, :value [0 [4 1]], \
:error :net-timeout, :index 7}
"""


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "lin-kv" / "20261126T024210.771+0000"
    (folder / "node-logs").mkdir(parents=True)
    for node in ("n0", "n1", "n2"):
        (folder / "node-logs" / f"{node}.log").write_text("a line of its own\n")
    (folder / "history.edn").write_text(HISTORY)
    (folder / "results.edn").write_text("{:workload {:valid? true, :results {}}, :valid? true}\n")
    report.write(folder)
    return folder


def title(opened: Opened) -> str:
    return opened.page.inner_text("h1")


def charts(opened: Opened) -> list[str]:
    """The sections that have a chart which is drawn."""
    return opened.page.evaluate(  # type: ignore[no-any-return]
        """() => Array.from(document.querySelectorAll("section")).filter((section) => {
          const div = section.querySelector("[data-root-id]");
          const root = div && Bokeh.documents[0].get_model_by_id(div.dataset.rootId);
          const view = root && Bokeh.index.find_one(root);
          return view && view.has_finished() && view.frame.bbox.width > 100;
        }).map((section) => section.id)"""
    )


def test_a_run_with_faults_has_every_chart(browser: Browser, faulty: Path) -> None:
    opened = Opened(browser, faulty / "report.html")
    opened.drawn()
    assert title(opened).startswith("valid ")
    assert charts(opened) == CHARTS
    assert opened.complaints == []


def test_a_message_can_be_read_by_hovering_over_it(browser: Browser, faulty: Path) -> None:
    opened = Opened(browser, faulty / "report.html")
    opened.drawn()
    opened.when("document.getElementById('drawn').textContent.includes('messages')")
    page = opened.page
    moment = page.eval_on_selector_all(
        "#moment option", "all => all.find(one => one.textContent.includes('leader, ')).value"
    )
    page.select_option("#moment", moment)
    opened.when("/^[0-9]+ messages are drawn/.test(document.getElementById('drawn').textContent)")
    page.locator("#messages").scroll_into_view_if_needed()
    x, y, kind, body = page.evaluate(
        """() => {
          const {x, y, kind, body} = Bokeh.documents[0].get_model_by_name("messages shown").data;
          const row = kind.indexOf("append_entries");
          return [x[row], y[row], kind[row], body[row]];
        }"""
    )
    page.mouse.move(*page.evaluate(PLACE, ["messages", x, y]))
    tooltip = page.locator(".bk-tooltip-content").first
    tooltip.wait_for()
    told = tooltip.inner_text()
    assert kind in told and "sent at" in told and body[:40] in told
    assert opened.complaints == []


def test_zooming_one_chart_zooms_the_others_and_the_address_leads_there(
    browser: Browser, faulty: Path
) -> None:
    opened = Opened(browser, faulty / "report.html")
    opened.drawn()
    page = opened.page
    page.locator("#rate").scroll_into_view_if_needed()
    before = page.evaluate("document.getElementById('drawn').textContent")
    left, top = page.evaluate(PLACE, ["rate", 2, 1])
    right, _ = page.evaluate(PLACE, ["rate", 4, 1])
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, top - 20, steps=5)
    page.mouse.up()
    opened.when("window.location.hash.startsWith('#t=')")
    ranges = page.evaluate(
        """() => ["messages", "life", "latency", "rate"].map((name) => {
          const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(name));
          return [view.frame.x_scale.invert(view.frame.x_scale.target_range.start),
                  view.frame.x_scale.invert(view.frame.x_scale.target_range.end)];
        })"""
    )
    for start, end in ranges:
        assert abs(start - 2) < 0.1 and abs(end - 4) < 0.1
    opened.when(f"document.getElementById('drawn').textContent !== {before!r}")
    again = Opened(browser, faulty / "report.html")
    again.drawn()
    again.page.goto(page.url)
    again.drawn()
    again.when("Math.abs(Bokeh.documents[0].get_model_by_name('time').start - 2) < 0.1")
    assert opened.complaints == again.complaints == []


def test_an_invalid_run_shows_why(browser: Browser, invalid: Path) -> None:
    opened = Opened(browser, invalid / "report.html")
    opened.drawn()
    assert title(opened).startswith("invalid ")
    assert "found nothing, but key 0 held 1" in opened.page.inner_text("header")
    assert charts(opened) == ["latency", "rate", "messages", "processes"]
    opened.when("Array.from(document.images).every((image) => image.naturalWidth > 100)")
    assert opened.page.locator("img").count() >= 1
    assert opened.complaints == []


def test_a_run_of_the_real_maelstrom(browser: Browser, real: Path) -> None:
    opened = Opened(browser, real / "report.html")
    opened.drawn()
    assert title(opened).startswith("valid ")
    assert charts(opened) == ["faults", "latency", "rate", "processes"]
    assert "no messages.jsonl" in opened.page.inner_text("#messages")
    assert opened.complaints == []


def test_what_a_history_says_runs_nowhere(browser: Browser, faulty: Path, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='run'</script><img src=x onerror=alert(1)>"
    folder = tmp_path / "hostile"
    shutil.copytree(faulty, folder, ignore=shutil.ignore_patterns("data", "report.html"))
    for name in ("history.edn", "messages.jsonl", "life.edn", "results.edn"):
        text = (folder / name).read_text("utf-8")
        for word in ("not found", "append_entries", "follower", "elected"):
            text = text.replace(word, word + hostile)
        (folder / name).write_text(text, "utf-8")
    report.write(folder)
    opened = Opened(browser, folder / "report.html")
    opened.drawn()
    opened.when("document.getElementById('drawn').textContent.includes('messages')")
    assert opened.page.title() != "run" and opened.complaints == []
    assert hostile in opened.page.inner_text("#messages")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, faulty: Path, width: int) -> None:
    opened = Opened(browser, faulty / "report.html", viewport={"width": width, "height": 800})
    opened.drawn()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
