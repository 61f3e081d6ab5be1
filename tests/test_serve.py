"""`./maelstrom serve`: all runs at a glance, whatever is in their folders, and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import random
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from workbench.record import edn, store
from workbench.record.edn import Keyword
from workbench.record.history import Op
from workbench.serve import runs
from workbench.serve.runs import Runs
from workbench.serve.server import Server, StoreHandler
from workbench.workloads.lin_kv import LinKv
from workbench.workloads.workload import Settings

MS = 1_000_000
VALID = Keyword("valid?")
HOSTILE = "</li></style><script>document.title='run'</script><img src=x onerror=alert(1)>'\"&"
STATS = ":stats {:valid? true, :count 6, :ok-count 3, :fail-count 2, :info-count 1}"
HISTORY = """\
{:type :info, :f :start-kill, :value :one, :time 0, :process :nemesis, :index 0}
{:type :invoke, :f :read, :value [0 nil], :time 1000000, :process 0, :index 1}
{:type :ok, :f :read, :value [0 nil], :time 2000000, :process 0, :index 2}
{:type :info, :f :stop-kill, :value nil, :time 2500000000, :process :nemesis, :index 3}
{:type :invoke, :f :write, :value [0 1], :time 6000000000, :process 0, :index 4}
{:type :fail, :f :write, :value [0 1], :time 10000000000, :process 0, :index 5, :error [1 "x"]}
"""
REAL = """\
{:index 0, :time 5, :type :invoke, :process 0, :f :read, :value [0 nil]}
{:index 1, :time 4500000000, :type :info, :process 0, :f :read, :value [0 nil], :error :timeout}
{:index 2, :time 5000000000, :type :info, :process :nemesis, :f :start-partition, :value nil}
"""
LOG = "2026-01-05 10:11:12,130{GMT}\tINFO\t[main] jepsen.cli: Command line:\nlein run -w echo\n"


class Page(HTMLParser):
    """A page, read back: its tags, its words, and the words of each run's row."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[tuple[str | None, str]] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "li":
            self.rows.append((dict(attrs).get("class"), ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.rows:
            kind, text = self.rows[-1]
            self.rows[-1] = kind, " ".join(f"{text} {data}".split())

    @property
    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.tags if tag == "a"]


def run(parent: Path, name: str, results: str | None = f"{{{STATS}, :valid? true}}") -> Path:
    """The folder of a run of lin-kv, with a history and these results."""
    folder = parent / "lin-kv" / name
    folder.mkdir(parents=True)
    (folder / "history.edn").write_text(HISTORY)
    if results is not None:
        (folder / "results.edn").write_text(results)
    return folder


def row(parent: Path) -> tuple[str | None, str]:
    (only,) = Page(Runs(parent).page()).rows
    return only


# The page


def test_the_runs_of_each_workload_newest_first(tmp_path: Path) -> None:
    for name in ("20260105T101112.000Z", "20261231T000000.500Z", "20260105T101112.999Z", "mine"):
        run(tmp_path, name)
    other = tmp_path / "echo" / "20200101T000000.000Z"
    other.mkdir(parents=True)
    (tmp_path / "lin-kv" / "latest").symlink_to("20261231T000000.500Z")
    (tmp_path / "latest").symlink_to("lin-kv/20261231T000000.500Z")
    page = Page(Runs(tmp_path).page())
    assert list(dict.fromkeys(page.links)) == [
        "/echo/",
        "/echo/20200101T000000.000Z/",
        "/lin-kv/",
        "/lin-kv/20261231T000000.500Z/",
        "/lin-kv/20260105T101112.999Z/",
        "/lin-kv/20260105T101112.000Z/",
        "/lin-kv/mine/",
    ]
    assert len(page.rows) == 5
    assert "1 incomplete" in page.words and "4 valid" in page.words


@pytest.mark.parametrize(
    ("results", "verdict", "why"),
    [
        ("{:valid? true}", "valid", ""),
        ("{:workload {:valid? false, :results {0 {:valid? false, :linearizable {:valid? false, "
         ':why "stale"}}}}, :valid? false}', "invalid", "stale"),
        # a reason in words comes before a part that has none, and an invalid part before others
        ("{:stats {:valid? false}, :net {:valid? :unknown}, :workload {:valid? false, :results "
         '{0 {:valid? false, :linearizable {:why "stale"}}}}, :valid? false}', "invalid", "stale"),
        ('{:exceptions {:valid? false, :exceptions ["broken"]}, :valid? false}',
         "invalid", "Broken rule: broken"),
        ("{:stats {:valid? :unknown}, :valid? :unknown}", "unknown", "stats"),
        ("{:valid? 1}", "unknown", ""),
        ("[1]", "unknown", "it does not contain an EDN map"),
        ("{:valid? }}", "unknown", "results.edn cannot be read: line 1"),
        ('{:valid? true, :stats {:a "', "incomplete", ""),  # it is being written
        ("", "incomplete", ""),
        (None, "incomplete", ""),
    ],
)  # fmt: skip
def test_the_verdict_and_why(
    results: str | None, verdict: str, why: str, tmp_path: Path
) -> None:
    run(tmp_path, "20260105T101112.000Z", results)
    kind, text = row(tmp_path)
    assert kind == verdict
    assert text.startswith(f"{verdict} 2026-01-05 10:11:12 UTC")
    assert why in text if why else "stale" not in text and "cannot" not in text


def test_what_a_run_did(tmp_path: Path) -> None:
    command = ["./maelstrom", "test", "--bin", "my node.py"]
    folder = tmp_path / "lin-kv" / "20260105T101112.000Z"
    (folder / "node-logs").mkdir(parents=True)
    for name in ("n0.log", "n1.log"):
        (folder / "node-logs" / name).touch()
    history = [
        Op("nemesis", "info", "start-partition", None, 0, 0),
        Op(0, "invoke", "read", [0, None], 1 * MS, 1),
        Op(0, "ok", "read", [0, None], 2500 * MS, 2),
    ]
    store.write(folder, history, {VALID: True}, LinKv(random.Random(1), Settings(2)), command)
    kind, text = row(tmp_path)
    assert kind == "valid"
    assert "1 operations (1 ok, 0 failed, 0 unknown) · 2 nodes · faults: partition · 2.5 s" in text
    assert "./maelstrom test --bin 'my node.py'" in text
    assert f"/lin-kv/{folder.name}/timeline.html" in Page(Runs(tmp_path).page()).links


def test_the_results_count_better_than_a_look_at_the_history(tmp_path: Path) -> None:
    folder = run(tmp_path, "20260105T101112.000Z")
    assert "6 operations (3 ok, 2 failed, 1 unknown)" in row(tmp_path)[1]
    (folder / "results.edn").unlink()
    assert "2 operations (1 ok, 1 failed, 0 unknown)" in row(tmp_path)[1]
    with (folder / "history.edn").open("a") as file:
        file.write('{:type :ok, :f :read, :time 10, :value "cut o')
    assert "3 operations (2 ok, 1 failed, 0 unknown)" in row(tmp_path)[1]


def test_a_run_of_the_real_maelstrom(tmp_path: Path) -> None:
    folder = run(tmp_path, "20260105T101112.130+0200", "{:stats {:valid? true}, :valid? true}")
    (folder / "history.edn").write_text(REAL)
    (folder / "jepsen.log").write_text(LOG)
    _, text = row(tmp_path)
    assert "2026-01-05 10:11:12 +0200" in text
    assert "1 operations (0 ok, 0 failed, 1 unknown) · faults: partition · 5.0 s" in text
    assert "lein run -w echo" in text


def test_the_best_page_of_a_run(tmp_path: Path) -> None:
    folder = run(tmp_path, "20260105T101112.000Z")
    files = f"/lin-kv/{folder.name}/"
    shelf = Runs(tmp_path)
    for name in ("", "timeline.html", "report.html"):
        if name:
            (folder / name).touch()
        assert Page(shelf.page()).links == ["/lin-kv/", *[files + name] * (1 + bool(name)), files]


def test_what_is_hostile_is_text(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "\\")
    folder = run(tmp_path, name, None)
    words = edn.dumps([HOSTILE])
    (folder / "results.edn").write_text(
        f"{store.COMMAND}{words}\n{{:exceptions {{:valid? false, :exceptions {words}}}}}"
    )
    (tmp_path / "lin-kv").rename(tmp_path / f"w{name}")
    (tmp_path / f"w{name}" / "bad\udcff").mkdir()
    document = Runs(tmp_path).page()
    document.encode()
    page = Page(document)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert [tag for tag, _ in page.tags].count("li") == 2
    for text in (name, f"w{name}", f"Broken rule: {HOSTILE}"):
        assert text in page.words


def test_links_are_neither_followed_nor_read(tmp_path: Path) -> None:
    outside = run(tmp_path / "elsewhere", "20260105T101112.000Z")
    inside = tmp_path / "store" / "lin-kv" / "20270105T101112.000Z"
    inside.mkdir(parents=True)
    for name in ("results.edn", "history.edn"):
        (inside / name).symlink_to(outside / name)
    (tmp_path / "store" / "elsewhere").symlink_to(tmp_path / "elsewhere" / "lin-kv")
    (tmp_path / "store" / "lin-kv" / "20280105T101112.000Z").symlink_to(outside)
    assert row(tmp_path / "store") == ("incomplete", "incomplete 2027-01-05 10:11:12 UTC files")


@pytest.mark.parametrize("data", ["bench.json", "compare.json"])
def test_what_make_bench_has_measured_is_no_incomplete_run(tmp_path: Path, data: str) -> None:
    folder = tmp_path / "store" / "bench" / "20270105T101112.000Z"
    folder.mkdir(parents=True)
    for name in (data, "bench.html"):
        (folder / name).touch()
    said = "measured 2027-01-05 10:11:12 UTC bench files"
    assert row(tmp_path / "store") == ("measured", said)


def test_a_run_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = runs.read

    def counting(folder: Path, parts: dict[str, tuple[int, int]]) -> runs.Run:
        reads.append(folder.name)
        return read(folder, parts)

    monkeypatch.setattr(runs, "read", counting)
    first, second = (run(tmp_path, f"2026010{day}T101112.000Z") for day in (1, 2))
    shelf = Runs(tmp_path)
    assert shelf.page() == shelf.page()
    assert sorted(reads) == [first.name, second.name]
    (first / "results.edn").write_text('{:valid? false, :why "longer, so it has another size"}')
    assert [kind for kind, _ in Page(shelf.page()).rows] == ["valid", "invalid"]
    assert reads[2:] == [first.name]
    second.rename(tmp_path / "gone")
    assert [kind for kind, _ in Page(shelf.page()).rows] == ["invalid"]
    assert list(shelf._known) == [first]


def test_too_many_or_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MOST", 2)
    monkeypatch.setattr(runs, "LARGEST", len(HISTORY) - 1)
    for day in (1, 2, 3):
        run(tmp_path, f"2026010{day}T101112.000Z")
    page = Page(Runs(tmp_path).page())
    assert len(page.rows) == 2 and "1 older runs" in page.words
    assert "svg" not in [tag for tag, _ in page.tags]
    assert "6 operations" in page.rows[0][1]
    monkeypatch.setattr(runs, "LARGEST", 10)
    assert row_kinds(tmp_path) == ["unknown", "unknown"]


def row_kinds(parent: Path) -> list[str | None]:
    return [kind for kind, _ in Page(Runs(parent).page()).rows]


def test_no_run_at_all(tmp_path: Path) -> None:
    assert "There are no runs yet" in Runs(tmp_path).page()
    assert "There are no runs yet" in Runs(tmp_path / "gone").page()


def test_the_picture() -> None:
    scan = runs.Scan({"ok": [0, 1, 99], "fail": [1], "info": [50]}, [], 99)
    scan.nemesis += [
        Op("nemesis", "info", f, None, time, index)
        for index, (f, time) in enumerate(
            [
                *(("start-kill", 10), ("start-cut", 15), ("stop-cut", 19), ("stop-kill", 24)),
                ("start-kill", 95),
            ]
        )
    ]
    found = dict(re.findall(r'<path class="(\w+)" d="([^"]*)"', runs.picture(scan)))
    assert found == {
        "fault": "M12 0H29V28H12zM114 0H119V28H114z",  # what overlaps is one; the last never ended
        "ok": "M0 28V9h3V28zM117 28V19h3V28z",
        "fail": "M0 9V0h3V9z",  # stands on the ok ones
        "info": "M60 28V19h3V28z",
    }
    assert runs.picture(runs.Scan({"ok": [0], "fail": [], "info": []})) == ""  # without times


# HTTP


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = run(tmp_path / "store", "20260105T101112.000Z")
    (folder / "report.html").write_text("<p>report")
    (folder / "jepsen.log").write_text("<p>log")
    for name in ("?a=#%41 <b>", "bad\udcff"):
        run(tmp_path / "store", name)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store" / "out").symlink_to(tmp_path / "secret")
    runs_ = Runs((tmp_path / "store").resolve())
    with Server(("127.0.0.1", 0), functools.partial(StoreHandler, runs=runs_)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(
    server: Server, path: str, method: str = "GET", host: str = "localhost"
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=600)
    connection.request(method, path, headers={"Host": host})
    response = connection.getresponse()
    body = response.read().decode(errors="replace")
    connection.close()
    return response, body


def test_the_page_can_run_nothing(server: Server) -> None:
    response, body = get(server, "/")
    assert response.status == 200
    policy = str(response.headers["Content-Security-Policy"])
    assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
    page = Page(body)
    # The style has the hash that is allowed; an attribute with a style would not be.
    (style,) = re.findall("<style>(.*?)</style>", body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.tags)


def test_every_link_leads_somewhere(server: Server) -> None:
    _, body = get(server, "/?any")
    assert len(Page(body).rows) == 3
    for href in Page(body).links:
        assert get(server, href)[0].status == 200, href
    files = "/lin-kv/20260105T101112.000Z/"
    assert {"history.edn", "jepsen.log"} < set(Page(get(server, files)[1]).links)
    for name, kind in {
        "report.html": "text/html",
        "jepsen.log": "text/plain; charset=utf-8",
        "history.edn": "text/plain; charset=utf-8",
    }.items():
        assert get(server, files + name)[0].headers["Content-Type"] == kind


def test_head_has_no_body(server: Server) -> None:
    response, body = get(server, "/", "HEAD")
    assert (response.status, body) == (200, "")
    assert int(response.headers["Content-Length"]) > 1000


def test_what_is_not_for_others(server: Server) -> None:
    assert get(server, "/", host="evil.example")[0].status == 403
    for path in ("/out", "/../secret", "/lin-kv/../../secret", "/gone"):
        response, body = get(server, path)
        assert response.status == 404 and "secret" not in body, path
