"""`./maelstrom check`: forms of histories, assumptions on registers, and its two outputs."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from histories import simulated, spoilt
from workbench import check
from workbench.record.edn import Keyword
from workbench.record.history import HistoryError, Op, histories, read, to_edn

SHARED = Path(__file__).resolve().parents[2] / "shared"

WROTE_1 = [(0, "invoke", "write", 1), (0, "ok", "write", 1)]
READ_2 = [(1, "invoke", "read", None), (1, "ok", "read", 2)]
FAILED_CAS = [*WROTE_1, (1, "invoke", "cas", [1, 2]), (1, "fail", "cas", [1, 2])]


def events(what: list[Any]) -> list[Op]:
    return [
        Op(process, type, f, value, 0, index)
        for index, (process, type, f, value) in enumerate(what)
    ]


def edn_lines(what: list[Any]) -> str:
    return "".join(f"{to_edn(op)}\n" for op in events(what))


def vector(what: list[Any]) -> str:
    return f"[{' '.join(map(to_edn, events(what)))}]"


def log(prefix: str, *lines: str) -> str:
    return "".join(f"{prefix}{line}\n" for line in lines)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "given"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def asked(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """Runs the command. Returns its status and its lines, without the path."""
    status = check.main([*options, str(path)])
    return status, [line.removeprefix(str(path)) for line in capsys.readouterr().out.splitlines()]


# Forms

COLUMNS = (
    "0\t:invoke\t:write\t1", "0\t:ok\t:write\t1", "1\t:invoke\t:read\tnil", "1\t:ok\t:read\t2"
)  # fmt: skip
PREFIXES = {
    "columns": "",
    "indented": "   ",
    "old": "INFO  jepsen.util - ",
    "dated": "INFO [2014-05-06 07:08:09,123] jepsen worker 1 - jepsen.util ",
    "bracketed": "2021-02-26 23:39:01,300{GMT}\tINFO\t[jepsen worker 1] jepsen.util: ",
    "only a bracket": "[jepsen worker 1] jepsen.util: ",
    "other namespace": "INFO  jepsen.core - ",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("gap", ["\t", "   "])
def test_reads_the_lines_of_jepsens_console(
    prefix: str, gap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.replace("\t", gap) for line in COLUMNS]
    text = log(prefix, *lines) + "WARN [jepsen worker 0] a line of the log\n"
    status, (line,) = asked(written(tmp_path, text), capsys)
    assert status == 1
    assert line.startswith("\tinvalid\tprocess 1's read found 2, but the register held 1")


def test_the_further_column_of_a_log_is_an_error_or_any_text(tmp_path: Path) -> None:
    lines = ("0 :invoke :cas [1 2]", "0 :fail :cas [1 2] :conn-closed", "0 :invoke :cas [1 2]",
             "0 :fail :cas [1 2] (0 rows", "1 :invoke :read nil")  # fmt: skip
    ops = read(written(tmp_path, log("INFO  jepsen.util - ", *lines)))
    assert [op.value for op in ops] == [[1, 2]] * 4 + [None]
    assert ops[1].error == Keyword("conn-closed")
    assert "(0 rows" in ops[3].error


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(edn_lines([*WROTE_1, *READ_2]), id="maps"),
        pytest.param(vector([*WROTE_1, *READ_2]), id="one vector"),
        pytest.param(f"{vector([*WROTE_1, *READ_2])}\n\n; the end\n", id="one vector and no other"),
        pytest.param(vector([*WROTE_1, *READ_2]).replace("} {", "}\n {"), id="vector of lines"),
        pytest.param(gzip.compress(edn_lines([*WROTE_1, *READ_2]).encode()), id="gzipped"),
    ],
)
def test_a_file_of_one_history_has_no_line(text: str | bytes, tmp_path: Path) -> None:
    (found,) = check.judge(written(tmp_path, text))
    assert (found.line, found.verdict.valid) == (None, False)


def test_each_line_that_is_a_vector_is_a_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(
        [vector(WROTE_1), "", "; a comment", vector([*WROTE_1, *READ_2]), "[]", "[{:type 1}]",
         "[{:type :ok", "hello", vector(list(reversed(WROTE_1)))]
    )  # fmt: skip
    path = written(tmp_path, text)
    status, lines = asked(path, capsys)
    assert status == 1
    assert [line.split("\t")[:2] for line in lines] == [
        [":1", "valid"], [":4", "invalid"], [":5", "valid"], [":6", "unknown"], [":7", "unknown"],
        [":8", "unknown"], [":9", "unknown"],
    ]  # fmt: skip
    assert lines[3].endswith(
        f"\t{path}: line 6: entry 1 is not an event: :type must be a keyword, not 1: {{:type 1}}"
    )
    assert lines[4].endswith(f"\t{path}: line 7: the text ends before the }} of this {{")
    assert f"\t{path}: line 8: it holds no operation" in lines[5]
    assert lines[6].endswith("process 0 completes a write (index 0) that it did not invoke")
    with pytest.raises(HistoryError, match="holds 7 histories, a line each, where one is wanted"):
        read(path)


def test_an_error_in_a_history_names_its_line(tmp_path: Path) -> None:
    backwards = vector(WROTE_1).replace(":index 0", ":index 5")
    path = written(tmp_path, f"{vector(WROTE_1)}\n{backwards}\n")
    _, second = histories(path)
    with pytest.raises(HistoryError, match=r"line 2: each :index must be greater .* 1 follows 5"):
        second.ops()
    path = written(tmp_path, f"{edn_lines(WROTE_1)}{{:process 0}}\n")
    with pytest.raises(HistoryError, match="line 3: entry 3 is not an event"):
        read(path)


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "# lein test\nnothing here\n"])
def test_a_file_without_a_history_is_told_the_forms_that_are_read(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (line,) = asked(written(tmp_path, text), capsys)
    assert status == 2
    assert "\tunknown\t" in line and "holds no operation" in line
    assert all(form in line for form in ("EDN", "one vector a line", "columns", "jepsen.util"))


def test_a_damaged_archive_is_unknown(tmp_path: Path) -> None:
    (found,) = check.judge(written(tmp_path, gzip.compress(b"0 :invoke :read nil\n")[:-9]))
    assert found.verdict.valid is None and "cannot be unpacked with gzip" in found.text()


# --json


def test_json_has_a_line_for_each_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, f"{vector(WROTE_1)}\n{vector([*WROTE_1, *READ_2])}\n[7]\n")
    assert check.main(["--json", str(path), str(tmp_path / "none")]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [str(path)] * 3 + [str(tmp_path / "none")]
    assert [line["line"] for line in lines] == [1, 2, 3, None]
    assert [line["valid"] for line in lines] == [True, False, "unknown", "unknown"]
    assert [line["anomalies"] for line in lines] == [[], ["nonlinearizable"], [], []]
    assert [len(line["why"]) > 0 for line in lines] == [False, True, True, True]
    assert all(line["warnings"] == [] for line in lines)


ANOMALIES: dict[str, tuple[str, list[Any]]] = {
    "unique-ids": ("duplicated", [(n, type, "generate", value) for n in (0, 1)
                                  for type, value in (("invoke", None), ("ok", 7))]),
    "g-set": ("lost", [(0, "invoke", "add", 1), (0, "ok", "add", 1),
                       (0, "invoke", "read", None), (0, "ok", "read", [])]),
    "txn-list-append": ("internal", [
        (0, "invoke", "txn", [[Keyword("append"), 1, 1], [Keyword("r"), 1, None]]),
        (0, "ok", "txn", [[Keyword("append"), 1, 1], [Keyword("r"), 1, [2]]]),
        (1, "invoke", "txn", [[Keyword("append"), 1, 2]]),
        (1, "info", "txn", [[Keyword("append"), 1, 2]])]),
}  # fmt: skip


@pytest.mark.parametrize("workload", ANOMALIES)
def test_json_names_the_anomalies(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anomaly, what = ANOMALIES[workload]
    assert check.main(["--json", "-w", workload, str(written(tmp_path, vector(what)))]) == 1
    found = json.loads(capsys.readouterr().out)
    assert anomaly in found["anomalies"] and found["anomalies"] == sorted(found["anomalies"])
    assert found["valid"] is False and found["why"]


# Assumptions on registers

READ_0 = [(0, "invoke", "read", None), (0, "ok", "read", 0)]


def test_a_register_may_start_with_a_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, vector(READ_0))
    status, (line,) = asked(path, capsys)
    assert status == 1
    assert line.endswith("; valid if the register starts with 0: --initial 0")
    assert asked(path, capsys, "--initial", "0") == (0, ["\tvalid\t1 operation"])
    keyed = [(*event[:3], [5, event[3]]) for event in READ_0]
    _, (line,) = asked(written(tmp_path, vector(keyed)), capsys)
    assert line.endswith("; valid if each key starts with 0: --initial 0")
    _, (line,) = asked(written(tmp_path, vector([*WROTE_1, *READ_2])), capsys)
    assert "--initial" not in line


def test_an_initial_value_for_the_shell_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, vector([READ_0[0], (0, "ok", "read", "a b")]))
    _, (line,) = asked(path, capsys)
    assert line.endswith("""starts with "a b": --initial '"a b"'""")
    assert asked(path, capsys, "--initial", '"a b"')[0] == 0


def test_an_initial_value_must_be_edn(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check.main(["--initial", "[1", "path"])
    assert "argument --initial: must be EDN, like 0 or nil: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "mismatch"),
    [
        pytest.param(vector(FAILED_CAS), False, id="EDN"),
        pytest.param("log", False, id="dated log"),
        pytest.param("old log", True, id="undated log"),
    ],
)
def test_a_failed_cas_means_a_mismatch_only_in_undated_logs(
    text: str, mismatch: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ("0 :invoke :write 1", "0 :ok :write 1", "1 :invoke :cas [1 2]", "1 :fail :cas [1 2]",
             "2 :invoke :read nil")  # fmt: skip
    prefix = {"log": PREFIXES["dated"], "old log": PREFIXES["old"]}
    path = written(tmp_path, log(prefix[text], *lines) if text in prefix else text)
    status, (line,) = asked(path, capsys)
    assert status == mismatch
    other = "nothing" if mismatch else "mismatch"
    assert line.endswith(f": --failed-cas {other}")
    assert ("; valid if a cas" if mismatch else "; invalid if a cas") in line
    for rule, wanted in (("nothing", 0), ("mismatch", 1)):
        assert asked(path, capsys, "--failed-cas", rule)[0] == wanted


def test_a_verdict_that_does_not_depend_on_failed_cas_has_no_condition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_value = [*WROTE_1, (1, "invoke", "cas", [3, 2]), (1, "fail", "cas", [3, 2])]
    assert asked(written(tmp_path, vector(other_value)), capsys) == (0, ["\tvalid\t2 operations"])


def test_an_error_that_knossos_ignores_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mismatch = [Keyword("precondition-failed"), "expected 1"]
    ops = [*events(FAILED_CAS[:3]), Op(1, "fail", "cas", [1, 2], 0, 3, mismatch)]
    status, lines = asked(written(tmp_path, "\n".join(map(to_edn, ops))), capsys)
    assert (status, lines[0]) == (0, "\tvalid\t2 operations")
    assert lines[1].startswith("    Warning: process 1's cas 1 to 2 failed, but the register held")
    assert "ignores errors 20 and 22, and reads of nil" in lines[1]


def test_a_read_of_nil_is_ignored_as_by_knossos_unless_it_says_that_nothing_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = [(1, "invoke", "read", None), (1, "ok", "read", None)]
    path = written(tmp_path, vector([*WROTE_1, *read]))
    status, (first, warning) = asked(path, capsys)
    assert (status, first) == (0, "\tvalid\t2 operations")
    assert warning.startswith("    Warning: process 1's read found nil, but the register held 1")
    assert asked(path, capsys, "--failed-cas", "mismatch")[0] == 1


def test_a_search_beyond_the_budget_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ops = spoilt(random.Random(1), simulated(random.Random(1), 200, 10, unknown=5))
    status, (line,) = asked(written(tmp_path, "\n".join(map(to_edn, ops))), capsys, "--budget", "9")
    assert status == 2 and "\tunknown\t" in line and "budget of 9 configurations" in line


# Given histories


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the given inputs are not in {SHARED}")
def test_the_given_inputs_are_judged_right() -> None:
    inputs = SHARED / "inputs"
    (found,) = check.judge(inputs / "check_console_log.log")
    assert found.verdict.valid is False
    (found,) = check.judge(inputs / "check_initial_value.edn")
    assert found.verdict.valid is False and "--initial 0" in found.text()
    (found,) = check.judge(inputs / "check_initial_value.edn", check.Wishes(initial=0))
    assert found.verdict.valid is True
    (found,) = check.judge(inputs / "check_failed_cas.edn")
    assert found.verdict.valid is True
