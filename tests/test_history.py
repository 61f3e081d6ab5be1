"""Histories: Jepsen's files are read, ours look like them, and keys are told apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workbench import check
from workbench.record.edn import Keyword, dumps
from workbench.record.history import (
    HistoryError,
    Op,
    by_key,
    completions,
    operations,
    read,
    shorten,
    to_edn,
    to_map,
    to_txt,
)

MISMATCH = [Keyword("precondition-failed"), "expected 3, but had 2"]

# As Maelstrom 0.2.4 writes it; keys of the maps come in any order, and there may be more.
MAELSTROM = r"""
{:process 0, :type :invoke, :f :write, :value [0 2], :index 0, :time 3331862}
{:type :invoke, :f :read, :value [0 nil], :time 3340000, :process 1, :index 1}
{:process :nemesis, :type :info, :f :start-partition, :value :majority, :time 3350000, :index 2}
{:type :ok, :f :write, :value [0 2], :time 4331862, :process 0, :index 3, :node "n0"}
{:type :ok, :f :read, :value [0 2], :time 4340000, :process 1, :index 4}
{:process :nemesis, :type :info, :f :start-partition, :value [:isolated {"n0" #{"n1"}}],
 :time 4350000, :index 5}
{:type :invoke, :f :cas, :value [0 [3 1]], :time 5000000, :process 0, :index 6}
{:type :fail, :f :cas, :value [0 [3 1]], :time 5100000, :process 0, :index 7,
 :error [:precondition-failed "expected 3, but had 2"]}
{:type :invoke, :f :write, :value [1 4], :time 5200000, :process 1, :index 8}
{:type :info, :f :write, :value [1 4], :time 6200000, :process 1, :index 9, :error :net-timeout}
"""
FORMS = MAELSTROM.strip().replace(",\n ", ", ").splitlines()
OPS = [
    Op(0, "invoke", "write", [0, 2], 3331862, 0),
    Op(1, "invoke", "read", [0, None], 3340000, 1),
    Op("nemesis", "info", "start-partition", Keyword("majority"), 3350000, 2),
    Op(0, "ok", "write", [0, 2], 4331862, 3, extras={Keyword("node"): "n0"}),
    Op(1, "ok", "read", [0, 2], 4340000, 4),
    Op("nemesis", "info", "start-partition",
       [Keyword("isolated"), {"n0": frozenset({"n1"})}], 4350000, 5),
    Op(0, "invoke", "cas", [0, [3, 1]], 5000000, 6),
    Op(0, "fail", "cas", [0, [3, 1]], 5100000, 7, MISMATCH),
    Op(1, "invoke", "write", [1, 4], 5200000, 8),
    Op(1, "info", "write", [1, 4], 6200000, 9, Keyword("net-timeout")),
]  # fmt: skip


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def seen(ops: list[Op]) -> list[tuple[object, ...]]:
    """Returns the columns of a log for a history, without times and indexes."""
    return [(op.process, op.type, op.f, dumps(op.value), dumps(op.error)) for op in ops]


def test_writes_the_lines_of_jepsen() -> None:
    assert to_edn(OPS[0]) == (
        "{:type :invoke, :f :write, :value [0 2], :time 3331862, :process 0, :index 0}"
    )
    assert to_edn(OPS[7]).endswith(
        ':index 7, :error [:precondition-failed "expected 3, but had 2"]}'
    )
    assert to_edn(OPS[3]).endswith(':process 0, :index 3, :node "n0"}')
    assert to_txt(OPS[2]) == ":nemesis\t:info\t:start-partition\t:majority"
    assert to_txt(OPS[9]) == "1\t:info\t:write\t[1 4]\t:net-timeout"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(MAELSTROM, id="maps"),
        pytest.param(f"[{MAELSTROM}]", id="vector"),
        pytest.param("\n".join(f"#jepsen.history.Op{form}" for form in FORMS), id="records"),
        pytest.param("\n".join(map(to_edn, OPS)), id="ours"),
        pytest.param(MAELSTROM + "{:type :invoke, :f :re", id="cut off"),
        pytest.param(MAELSTROM + '{:type :fail, :error "exp', id="cut off in a text"),
        pytest.param(MAELSTROM + "{:type :fail, :", id="cut off in a name"),
        pytest.param(f"[{MAELSTROM}{{:type :inv", id="vector, cut off"),
        pytest.param(f"({MAELSTROM})", id="list"),
        pytest.param(f"; of Jepsen\n,{MAELSTROM}", id="after a comment"),
        pytest.param(f"\ufeff{MAELSTROM}", id="byte order mark"),
    ],
)
def test_reads_history_edn(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, "history.edn", text)) == OPS


def test_keeps_the_other_entries_of_an_event(tmp_path: Path) -> None:
    line = "{:type :invoke, :f :assign, :value nil, :time 5, :process 0, :index 0"
    line += ', :final? true, :unseen {9 {:polled -1, :sent 0}}, :error ["a" nil]}'
    op, *_ = read(written(tmp_path, "history.edn", line))
    assert to_edn(op) == line
    assert op.extra("final?") is True
    assert op.extra("missing") is None
    assert dumps(to_map(op)) == (
        "{:index 0, :time 5, :type :invoke, :process 0, :f :assign, :value nil, :final? true, "
        ':unseen {9 {:polled -1, :sent 0}}, :error ["a" nil]}'
    )


TXT = "".join(f"{to_txt(op)}\n" for op in OPS)


@pytest.mark.parametrize(
    "prefix",
    ["", "INFO  jepsen.util - ",
     "2021-02-26 23:39:01,300{GMT}\tINFO\t[jepsen worker 1] jepsen.util: "],
)  # fmt: skip
@pytest.mark.parametrize("gap", ["\t", "    "])
def test_reads_columns_with_and_without_a_loggers_prefix(
    tmp_path: Path, prefix: str, gap: str
) -> None:
    lines = [prefix + line.replace("\t", gap) for line in TXT.splitlines()]
    text = "\n".join(["Running test lin-kv:", *lines, "Everything looks good!", ""])
    assert seen(read(written(tmp_path, "jepsen.log", text))) == seen(OPS)


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("1 :ok :read 1", False),  # of 12, maybe
        ("1 :ok :read [0 1]", True),
        ("1 :fail :cas [0 [1 2]]", False),  # :temporarily-unavailable, maybe
        ('1 :fail :cas [0 [1 2]] [:precondition-failed "expected 1, but had 2"]', True),
        ("1 :ok :read [0 1]   ", True),
    ],
)
def test_of_columns_cut_off_nothing_is_taken_for_more_than_it_may_be(
    tmp_path: Path, line: str, whole: bool
) -> None:
    text = f"1 :invoke :read [0 nil]\n{line}"
    assert len(read(written(tmp_path, "history.txt", text))) == 1 + whole
    assert len(read(written(tmp_path, "history.txt", f"{text}\n"))) == 2


def test_a_folder_stands_for_the_best_history_in_it(tmp_path: Path) -> None:
    for name, count in (("jepsen.log", 1), ("history.txt", 2)):
        written(tmp_path, name, "".join(TXT.splitlines(keepends=True)[:count]))
        assert len(read(tmp_path)) == count
    written(tmp_path, "history.edn", MAELSTROM)
    assert len(read(tmp_path)) == len(OPS)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no operation"),
        (b"hello\nworld\n", "no operation"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"{:a 1}\n", "entry 1 is not an event: :type must be a keyword, not nil: {:a 1}"),
        (b"{:type :invoke, :f :read, :process 1.5}", ":process must be an integer, not 1.5"),
        (b"{:type :invoke, :f :read, :process true}", ":process must be an integer, not true"),
        (b"{:type :invoke, :process 1}", ":f must be a keyword, not nil"),
        (b"{:type :begin, :f :read, :process 1}", "or :info, not :begin"),
        (b"[7]", "it must be a map: 7"),
        (b"{:type :invoke, :f :read, :process 1, :time 1e999M}", ":time must be an integer"),
        (b"{:type :invoke, :f :write, :process 1, :value 1e99999999M}", "out of range"),
        (b"1 :invoke :write 1e99999999M\n1 :ok :write 1", "line 1: .*out of range"),
        (b"[}", "} does not close"),
        (b"\n{:type :invoke, :f 1x}", "line 2"),
        (b"[" * 100_000, "deeper"),
        (b"{:type :invoke, :f :read, :process 1, :index 3}\n"
         b"{:type :ok, :f :read, :process 1, :index 3}", "each :index must be greater"),
        (b"0 :invoke :write 1\n0 :ok :write [1\n0 :ok :write 1", "line 2: "),
        (b"0 :invoke :write " + b"[" * 900 + b"]" * 900 + b"\n0 :ok :write 1", "deeper"),
    ],
)
def test_says_what_is_wrong_with_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, problem: str
) -> None:
    path = tmp_path / "history.edn"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=problem):
        read(path)
    assert check.main([str(path)]) == 2
    name, verdict, why = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (name, verdict) == (str(path), "unknown")
    assert re.search(problem, why)


def test_a_nemesis_may_say_anything(tmp_path: Path) -> None:
    text = "0 :invoke :write 1\n:nemesis :info :start-kill [killed n1 (\n0 :ok :write 1\n"
    assert len(read(written(tmp_path, "history.txt", text))) == 2


def test_of_a_log_the_last_line_may_be_cut_off(tmp_path: Path) -> None:
    text = "0 :invoke :write [0 1]\n0 :ok :write [0"
    assert len(read(written(tmp_path, "history.txt", text))) == 1


def test_a_sequence_that_is_cut_off_after_a_whole_one_is_left_out(tmp_path: Path) -> None:
    text = f"[{MAELSTROM}]\n[{{:type :invoke, :f :read, :process 9, :index 90}} {{:type"
    assert read(written(tmp_path, "history.edn", text)) == OPS


def test_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"history\.edn"):
        read(tmp_path)
    with pytest.raises(HistoryError, match="No such file"):
        read(tmp_path / "missing")


def test_the_status_is_that_of_the_worst_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(written(tmp_path, "good.edn", MAELSTROM))
    bad = str(
        written(
            tmp_path,
            "bad.edn",
            MAELSTROM.replace(":ok, :f :read, :value [0 2]", ":ok, :f :read, :value [0 3]"),
        )
    )
    missing = str(tmp_path / "missing")
    assert check.main([good]) == 0
    assert check.main([good, missing]) == 2
    assert check.main([bad, missing, good]) == 1
    last = [line.split("\t") for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [verdict for _, verdict, _ in last] == ["invalid", "unknown", "valid"]
    assert last[0][2] == (
        "process 1's read found 3, but key 0 held 2: written by process 0, at 0.003 s (index 0); "
        "the read was at 0.003 s (index 1); valid if each key starts with 3: --initial 3"
    )


def test_splits_a_history_by_key() -> None:
    histories = by_key(OPS)
    assert {key: [op.value for op in ops] for key, ops in histories.items()} == {
        0: [2, None, 2, 2, [3, 1], [3, 1]],
        1: [4, 4],
    }


def test_a_history_without_keys_is_one_register() -> None:
    ops = [
        Op(0, "invoke", "write", [1, 2], 0, 0),  # a pair that is a value, as the read shows
        Op(0, "ok", "write", [1, 2], 1, 1),
        Op(0, "invoke", "read", None, 2, 2),
        Op(0, "ok", "read", [1, 2], 3, 3),
    ]
    assert by_key(ops) == {None: ops}


@pytest.mark.parametrize("value", [[0, 5], [0, [1, 2, 3]], 5])
def test_a_cas_without_a_key_among_keys_is_a_mistake_and_no_other_register(value: object) -> None:
    ops = [Op(0, "invoke", "read", [0, None], 0, 0), Op(1, "invoke", "cas", value, 1, 7)]
    with pytest.raises(HistoryError, match=r"the cas at index 7 has .*not \[key \[from to\]\]"):
        by_key(ops)


def test_a_malformed_cas_is_shown_as_edn() -> None:
    with pytest.raises(HistoryError, match=r"must be \[from to\], not \[:a nil true\]"):
        operations([Op(0, "invoke", "cas", [Keyword("a"), None, True], 0, 0)])


def test_joins_invocations_and_completions() -> None:
    first, second, third = operations(
        [
            Op(0, "invoke", "write", 1, 0, 0),
            Op(1, "invoke", "read", None, 1, 1),
            Op(0, "invoke", "write", 2, 2, 2),  # never answered the first
            Op(1, "ok", "read", 1, 3, 3),
        ]
    )
    assert (first.type, first.end_index, third.type, third.end_index) == ("info", None) * 2
    assert (second.type, second.value, second.start_index, second.end_index) == ("ok", 1, 1, 3)


def test_a_completion_needs_an_invocation() -> None:
    with pytest.raises(HistoryError, match="did not invoke"):
        operations([Op(0, "ok", "read", 1, 0, 0)])


# Events and operations


def events(*what: tuple[object, ...]) -> list[Op]:
    """Events of process, type, f and value, a second after another."""
    return [
        Op(process, type, f, value, index * 10**9, index, *error)  # type: ignore[arg-type]
        for index, (process, type, f, value, *error) in enumerate(what)
    ]


def test_invocations_and_completions_make_operations() -> None:
    ops = events(
        (0, "invoke", "read", None),
        (1, "invoke", "write", 3),
        (1, "ok", "write", 9),
        (0, "ok", "read", 3),
        (0, "invoke", "cas", [1, 2]),
        (1, "invoke", "read", None),
        (0, "fail", "cas", [7, 8], MISMATCH),
        (1, "info", "read", 5, Keyword("net-timeout")),
        (2, "invoke", "write", 4),
        (2, "invoke", "write", 6),  # again: nobody knows of the one before
    )
    second = 10**9
    found = [
        (op.process, op.f, op.value, op.type, op.start, op.end, op.start_index, op.end_index)
        for op in operations(ops)
    ]
    assert found == [
        (0, "read", 3, "ok", 0, 3 * second, 0, 3),
        (1, "write", 3, "ok", second, 2 * second, 1, 2),
        (0, "cas", [1, 2], "fail", 4 * second, 6 * second, 4, 6),
        (1, "read", None, "info", 5 * second, None, 5, None),
        (2, "write", 4, "info", 8 * second, None, 8, None),
        (2, "write", 6, "info", 9 * second, None, 9, None),
    ]
    assert [op.error for op in operations(ops)] == [
        None, None, MISMATCH, Keyword("net-timeout"), None, None,
    ]  # fmt: skip


def test_an_error_may_stand_in_the_place_of_the_value() -> None:
    late, why = Keyword("timed-out"), Keyword("why")
    asked = (0, "invoke", "read", None)
    for completion, error in (
        ((0, "fail", "read", late), late),
        ((0, "fail", "read", late, why), why),
        ((0, "fail", "read", "timed-out"), None),
    ):
        assert operations(events(asked, completion))[0].error == error


@pytest.mark.parametrize(
    ("ops", "problem"),
    [
        ([(0, "ok", "read", 1)], "process 0 completes a read (index 0) that it did not invoke"),
        ([(0, "invoke", "read", None), (0, "ok", "write", 1)], "completes a write (index 1)"),
        ([(0, "invoke", "read", None), (0, "ok", "read", 1), (0, "ok", "read", 1)], "(index 2)"),
        ([(0, "invoke", "cas", 7)], "the cas at index 0 must be [from to], not 7"),
        ([(0, "invoke", "cas", [1, 2, 3])], "the cas at index 0 must be [from to], not [1 2 3]"),
    ],
)
def test_what_makes_none_is_told(ops: list[tuple[object, ...]], problem: str) -> None:
    with pytest.raises(HistoryError, match=re.escape(problem)):
        operations(events(*ops))


def test_operations_read_well() -> None:
    def text(f: str, value: object) -> str:
        return str(operations(events((0, "invoke", f, value)))[0])

    assert text("cas", [1, None]) == "cas 1 to nil"
    assert text("cas", [0, [1, 2]]) == "cas [0 [1 2]]"
    assert text("write", [0, "a"]) == 'write [0 "a"]'
    assert text("read", None) == "read nil"


def test_each_completion_of_a_client_takes_its_time() -> None:
    ops = events(
        (0, "invoke", "read", None),
        ("nemesis", "info", "start-kill", None),
        (1, "invoke", "write", 3),
        (0, "ok", "read", 3),
        (1, "info", "write", 3),
        (1, "info", "write", 3),
    )
    second = 10**9
    assert [(op.index, took) for op, took in completions(ops)] == [(3, 3 * second), (4, 2 * second)]
    begun: dict[int | str, int] = {}
    parts = [[(op.index, took) for op, took in completions([op], begun)] for op in ops]
    assert parts == [[], [], [], [(3, 3 * second)], [(4, 2 * second)], []]


def test_the_middle_of_a_long_text_is_left_out() -> None:
    assert shorten("0123456789", 10) == "0123456789"
    assert shorten("0123456789", 9) == "012345…89"
    assert shorten("0123456789", 4) == "01…9"
    assert len(shorten("x" * 1000, 100)) == 100


def test_a_pair_is_a_key_and_a_value() -> None:
    found = by_key(events((0, "invoke", "write", [5, 1]), (0, "info", "write", None)))
    assert [(op.type, op.value) for op in found[5]] == [("invoke", 1), ("info", None)]
    (single,) = by_key(events((0, "invoke", "write", [5, 1, 2]), (0, "ok", "write", 7))).items()
    assert (single[0], len(single[1])) == (None, 2)
