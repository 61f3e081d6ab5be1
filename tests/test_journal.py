"""The journal of a run's messages, and the diagram that a page draws of it."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, Page, columns, drawn, good, kept, page
from workbench import __main__ as bench
from workbench.record import journal, store
from workbench.record.journal import Journal, Sent
from workbench.report import diagram, reading
from workbench.report.plots import GREY

SIMULATED = [
    *("test", "--bin", str(Path(__file__).resolve().parents[1] / "raft.py"), "--simulate"),
    *("--seed", "1", "--rate", "50", "--node-count", "3", "--concurrency", "2n"),
    *("--time-limit", "3", "--latency", "10", "--nemesis", "loss,duplicate"),
    *("--nemesis-interval", "0.5"),
]


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def message(id: int, src: str, dest: str, **body: Any) -> dict[str, Any]:
    return {"id": id, "src": src, "dest": dest, "body": body}


def noted(*events: tuple[int, str, dict[str, Any]]) -> Journal:
    """A journal of what was sent and received at these times, in us."""
    clock = Clock()
    kept = Journal(clock)
    for time, direction, what in events:
        clock.now = time * 1000
        kept.log(direction, what)
    return kept


READ = message(0, "c1", "n0", type="read", key=1)
ANSWER = message(1, "n0", "c1", type="read_ok", value="é</script>")
APPEND = message(2, "n0", "n1", type="append_entries", entries=[])


def written(folder: Path, kept: Journal, start: int = 0) -> Path:
    (folder / journal.NAME).write_text("".join(kept.to_jsonl(start)), "utf-8")
    return folder


def rows(chart: Any) -> dict[str, list[Any]]:
    """The data for the page's script, column by column."""
    (data,) = (text for tag, text in _scripts(chart.words) if tag.get("id") == "journal")
    found: dict[str, list[Any]] = json.loads(gzip.decompress(base64.b64decode(data)))
    return found


def _scripts(words: str) -> list[tuple[dict[str, str | None], str]]:
    read_back = Page(words)
    return list(zip(read_back.of("script"), read_back.scripts, strict=True))


# The journal


def test_a_message_has_the_times_of_its_sending_and_of_each_receipt() -> None:
    kept = noted(
        (5, "send", READ), (5, "recv", READ), (7, "send", APPEND), (9, "recv", APPEND),
        (12, "recv", APPEND),
    )  # fmt: skip
    lines = [json.loads(line) for line in kept.to_jsonl(5000)]
    assert lines == [
        {**READ, "sent": 0, "received": [0], "type": "read"},
        {**APPEND, "sent": 2000, "received": [4000, 7000], "type": "append_entries"},
    ]


def test_what_is_read_is_what_was_written(cwd: Path) -> None:
    kept = noted((1, "send", READ), (2, "recv", READ), (3, "send", ANSWER))
    assert journal.read(written(cwd, kept, 1000)) == [
        Sent(0, "c1", "n0", 0, "read", json.dumps(READ["body"]), [1000]),
        Sent(1, "n0", "c1", 2000, "read_ok", json.dumps(ANSWER["body"]), []),
    ]


def test_of_a_long_body_an_excerpt_is_kept(cwd: Path) -> None:
    kept = noted((1, "send", message(0, "c1", "n0", type="t" * 1000, value="x" * 1_000_000)))
    (found,) = journal.read(written(cwd, kept))
    assert len(found.body) == journal.LENGTH and len(found.type) == journal.TYPE
    assert found.body.startswith('{"type": "ttt') and found.body.endswith('xxx"}')


def test_only_the_first_messages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST", 2)
    sent = [message(id, "n0", "n1", type="t") for id in range(4)]
    kept = noted(*((id, what, sent[id]) for id in range(4) for what in ("send", "recv")))
    assert [found.id for found in kept.messages.values()] == [0, 1]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "1", '{"id": 0}', json.dumps({**READ, "sent": 0, "received": 3, "type": "read"}),
     json.dumps({**READ, "sent": "0", "received": [], "type": "read"}), "[" * 100_000],
)  # fmt: skip
def test_what_is_no_journal_is_said_and_costs_no_page(line: str) -> None:
    folder = kept(good())
    (folder / journal.NAME).write_text(f"{line}\n")
    with pytest.raises(ValueError, match="line 1 is not a message"):
        journal.read(folder)
    read_back = page(folder)
    assert "The messages are not drawn, because messages.jsonl cannot be read: line 1 is no" in (
        read_back.text
    )


def test_a_run_keeps_one_if_its_page_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(store.REPORT, "yes")
    monkeypatch.setattr(store, "reporter", lambda: None)
    assert bench.main(SIMULATED) == 0
    (folder,) = Path("store/lin-kv").glob("2*")
    found = journal.read(folder)
    assert [sent.id for sent in found] == list(range(len(found)))
    servers = [sent for sent in found if sent.src[0] == sent.dest[0] == "n"]
    assert {len(sent.received) for sent in servers} == {0, 1, 2}, "some were lost, some came twice"
    took = [sent.received[0] - sent.sent for sent in servers if len(sent.received) == 1]
    assert min(took) == 10 * 1_000_000, "the latency"
    monkeypatch.setenv(store.REPORT, "no")
    assert bench.main(SIMULATED) == 0
    assert len(list(Path("store/lin-kv").glob("2*/messages.jsonl"))) == 1


# The diagram


def test_the_page_has_a_row_for_each_receipt_and_one_for_what_was_lost() -> None:
    folder = kept(good())
    lost = message(3, "n0", "n10", type="append_entries")
    written(folder, noted(
        (5, "send", READ), (6, "recv", READ), (7, "send", ANSWER), (7, "recv", ANSWER),
        (8, "send", APPEND | {"dest": "n2"}), (18, "recv", APPEND), (30, "recv", APPEND),
        (40, "send", lost),
    ))  # fmt: skip
    chart = drawn(folder)["messages"]
    found = rows(chart)
    assert chart.plot.yaxis[0].major_label_overrides == {0: "clients", 1: "n0", 2: "n2", 3: "n10"}
    columns = (found[name] for name in ("sent", "took", "from", "to", "who"))
    assert list(zip(*columns, strict=True)) == [
        (5, 1, 0, 1, "c1 → n0"),
        (7, 0, 1, 0, "n0 → c1"),
        (8, 10, 1, 2, "n0 → n2"),
        (8, 22, 1, 2, "n0 → n2"),
        (40, None, 1, 3, "n0 → n10"),
    ]
    assert [found["types"][type] for type in found["type"]] == [
        "read", "read_ok", "append_entries", "append_entries", "append_entries",
    ]  # fmt: skip
    assert found["replies"] == [False, True, False]
    assert found["kinds"] == [0, 0, 1], "a reply is of its request's kind"


def test_a_service_that_was_called_has_a_lane() -> None:
    folder = kept(good())
    request, reply = message(0, "n0", "seq-kv", type="read"), message(1, "seq-kv", "n0", type="ok")
    written(folder, noted((5, "send", request), (6, "recv", request), (7, "send", reply)))
    chart = drawn(folder)["messages"]
    lanes = chart.plot.yaxis[0].major_label_overrides
    assert lanes == {0: "clients", 1: "n0", 2: "n2", 3: "n10", 4: "seq-kv"}
    found = rows(chart)
    assert [*zip(found["from"], found["to"], strict=True)] == [(1, 4), (4, 1)]


def test_the_most_frequent_kinds_have_a_colour_that_depends_on_the_kind_alone() -> None:
    count = diagram.MOST_KINDS + 2
    messages = [
        Sent(0, "n0", "n1", 0, f"t{n}" + "_res" * (turn % 2), "{}")
        for n in range(count)
        for turn in range(n + 1)
    ]
    kinds = diagram.kinds_of(messages)
    assert list(kinds) == [*(f"t{n}" for n in range(count - 1, 1, -1)), "others"]
    assert kinds["others"] == GREY
    for kind, colour in list(kinds.items())[:-1]:
        one = [message for message in messages if message.type.startswith(kind)]
        assert diagram.kinds_of(one)[kind] == colour


def test_what_messages_say_is_text() -> None:
    folder = kept(good())
    hostile = message(0, "n0", "n2", type=HOSTILE, value=HOSTILE)
    written(folder, noted((1, "send", hostile)))
    read_back = page(folder)
    assert read_back.of("title") == [{}] and not read_back.of("img")
    assert HOSTILE[:20] in read_back.text
    data = rows(drawn(folder)["messages"])
    assert json.loads(data["body"][0]) == hostile["body"]


def test_a_hundred_thousand_messages_have_bodies_that_the_page_can_carry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagram, "MOST_LENGTH", 1000)
    folder = kept(good())
    long = message(0, "n0", "n2", type="t", value="x" * 500)
    written(folder, noted(*((n, "send", long | {"id": n}) for n in range(10))))
    assert {len(body) for body in rows(drawn(folder)["messages"])["body"]} == {100}


def test_a_moment_can_be_gone_to(cwd: Path) -> None:
    folder = kept(good().fault("start-partition", 5500).fault("stop-partition", 5700))
    written(folder, noted((5, "send", READ)))
    (folder / "life.edn").write_text(
        '[1000000000 "n0" "n0 term 1: leader, elected by n0 n2"]\n'
        '[5 "n2" "n2 term 1: follower of n0"]\n'
    )
    words = Page(drawn(folder)["messages"].words).text
    assert "1.000 s: n0 leader, elected by n0 n2, term 1" in words
    assert "5.500 s: partition begins" in words and "5.700 s: partition ends" in words
    assert "follower of" not in words


def test_of_nodes_that_tell_no_role_nothing_is_said(cwd: Path) -> None:
    folder = kept(good())
    assert reading.NO_LIFE in page(folder).text
    written(folder, noted((5, "send", READ)))
    assert "Roles of the nodes" not in page(folder).text
    (folder / "life.edn").write_text("[")
    assert "life.edn cannot be read" in page(folder).text


def test_the_commit_index_is_what_leaders_told() -> None:
    folder = kept(good())
    told = [("n0", 1, 0), ("n0", 1, 3), ("n0", 1, 3), ("n10", 2, 4), ("n0", 3, 4)]
    appends = [
        message(number, leader, "n2", type="append_entries", term=term, leader_commit=index)
        for number, (leader, term, index) in enumerate(told)
    ]
    written(folder, noted(*((1_000_000 * sent["id"], "send", sent) for sent in appends)))
    chart = drawn(folder)["commits"]
    lines = [columns(chart, layer) for layer in (0, 2, 4)]
    assert [(line["leader"][0], line["time"], line["index"]) for line in lines] == [
        ("n0 in term 1", [0.0, 1.0], [0, 3]),
        ("n10 in term 2", [3.0], [4]),
        ("n0 in term 3", [4.0], [4]),
    ]


def test_without_a_journal_a_sentence_says_why() -> None:
    folder = kept(good())
    assert "messages" not in drawn(folder)
    assert reading.NO_JOURNAL in page(folder).text
    assert reading.read(folder).messages == []
