"""The options of `./maelstrom test`: what each may be, and what is said of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench.network.nemesis import JEPSEN_KINDS, TARGETS
from workbench.running import options
from workbench.running.options import Options

ROOT = Path(__file__).resolve().parents[1]
BIN = ("--bin", str(ROOT / "raft.py"), "--concurrency", "2n")


def parse(*words: str) -> Options:
    return options.parse([*BIN, *words])


def refused(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error for wrong words."""
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 255
    return capsys.readouterr().err


def test_the_defaults_are_maelstroms() -> None:
    given = parse()
    assert (given.workload, given.node_count, given.time_limit, given.rate) == ("lin-kv", 5, 60, 5)
    assert (given.latency, given.latency_dist, given.nemesis, given.nemesis_interval) == (
        0, "constant", (), 10,
    )  # fmt: skip
    assert given.partition_kinds == tuple(JEPSEN_KINDS) and given.kill_targets == tuple(TARGETS)
    assert (given.availability, given.test_count, given.args) == (None, 1, ())
    assert not (given.log_stderr or given.log_net_send or given.log_net_recv or given.simulate)
    assert given.node_ids == ["n1", "n2", "n3", "n4", "n5"]
    assert parse("--node-count", "5").node_ids == ["n0", "n1", "n2", "n3", "n4"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("0.5", 0.5), ("1e9", 1e9), ("1e-9", 1e-9)],
)
def test_a_number_of_at_least_0(text: str, value: float) -> None:
    assert parse("--rate", text).rate == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-0.1", "must be a number, 0 or more, not '-0.1'"),
        ("nan", "must be a number, 0 or more, not 'nan'"),
        ("inf", "must be a number, 0 or more, not 'inf'"),
        ("ten", "must be a number, 0 or more, not 'ten'"),
        ("1.1e9", "must be at most 1,000,000,000, not '1.1e9'"),
        ("9e-10", "must be 0, or 1e-09 or more, not '9e-10'"),
    ],
)
def test_what_is_none(text: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"argument --rate: {why}" in refused(f"--rate={text}", capsys=capsys)


def test_between_two_steps_of_the_nemesis_there_is_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--nemesis-interval", "0.001").nemesis_interval == 0.001
    said = refused("--nemesis-interval", "0.0009", capsys=capsys)
    assert "must be a number, 0.001 or more, not '0.0009'" in said


def test_a_probability_is_from_0_to_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert [parse("--loss", text).loss for text in ("0", "0.25", "1")] == [0, 0.25, 1]
    for text in ("-0.01", "1.01", "nan", "x"):
        said = refused(f"--loss={text}", capsys=capsys)
        assert f"argument --loss: must be a number from 0 to 1, not {text!r}" in said


def test_whole_numbers_begin_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert (parse("--node-count", "1").node_count, parse("--seed", "0").seed) == (1, 0)
    for text in ("0", "-1", "1.5", "x", "251", "100000", "9" * 5000):
        said = refused(f"--node-count={text}", capsys=capsys)
        assert f"must be a whole number from 1 to 250, not '{text[:100]}" in said
        assert len(said) < 400
    assert "must be a whole number, 0 or more, not '-1'" in refused("--seed=-1", capsys=capsys)


def test_names_are_known_and_each_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--nemesis", "kill,,pause,kill").nemesis == ("kill", "pause")
    said = refused("--nemesis", "kill,flood,fire", capsys=capsys)
    assert "argument --nemesis: unknown: flood, fire; choose from partition, loss" in said
    assert "needs at least one of one, majority" in refused("--partition-kinds", "", capsys=capsys)
    assert "needs at least one of one, minority" in refused("--kill-targets", "", capsys=capsys)


def test_constants_are_whole_numbers_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    given = parse("--simulate", "--constants", "CHUNK_BYTES=2000,TICK=0.02").constants
    assert given == {"CHUNK_BYTES": 2000, "TICK": 0.02}
    assert type(given["CHUNK_BYTES"]) is int
    for text in ("TICK", "TICK=x", "TICK=1=2", "TICK=1.0e999", "TICK=-1.0e999"):
        said = refused("--simulate", "--constants", text, capsys=capsys)
        assert f"must be NAME=NUMBER,NAME=NUMBER, not {text!r}" in said
    assert "--constants needs --simulate" in refused("--constants", "TICK=1", capsys=capsys)


def test_clocks_are_only_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--simulate", "--nemesis", "clock").nemesis == ("clock",)
    assert "--nemesis clock needs --simulate" in refused("--nemesis", "kill,clock", capsys=capsys)


@pytest.mark.parametrize(("text", "clients"), [("6", 6), ("2n", 6), ("4n", 12)])
def test_clients_as_a_number_or_by_node(text: str, clients: int) -> None:
    assert parse("--node-count", "3", "--concurrency", text).concurrency == clients


def test_without_concurrency_lin_kv_takes_twice_the_nodes_and_says_so() -> None:
    def clients(*words: str) -> tuple[int, str]:
        given = options.parse([*BIN[:2], "--node-count", "3", *words])
        return given.concurrency, given.concurrency_note

    note = "no --concurrency: lin-kv takes 2n, which makes 6 clients"
    assert clients() == clients("-w", "lin-kv") == (6, note)
    assert clients("-w", "unique-ids") == (3, "")
    assert clients("--concurrency", "4n") == (12, "")


def test_the_topology_is_a_grid_unless_another_one_is_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (parse().topology, parse("--topology", "tree3").topology) == ("grid", "tree3")
    assert "invalid choice: 'ring'" in refused("--topology", "ring", capsys=capsys)


def test_lin_kv_needs_a_multiple_of_twice_the_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--node-count", "3", "--concurrency")
    for text, clients in (("1n", 3), ("7", 7)):
        said = refused(*words, text, capsys=capsys)
        assert f"makes {clients} clients, but lin-kv needs a multiple of 6" in said
    for text in ("0", "n", "2x", "-2"):
        said = refused(*words[:2], f"--concurrency={text}", capsys=capsys)
        assert "--concurrency: must be a whole number, 1 or more, and may end in n" in said
        assert f"for example 10 or 4n, not {text!r}" in said
    assert parse("-w", "echo", *words, "7").concurrency == 7


@pytest.mark.parametrize(
    ("text", "made"),
    [("10001", "10,001"), ("2001n", "10,005"), ("1000000", "1,000,000"),
     ("9" * 5000, "more than 1,000,000,000")],
)  # fmt: skip
def test_too_many_clients_are_refused(
    text: str, made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-w", "echo", "--node-count", "5", "--concurrency")
    said = refused(*words, text, capsys=capsys)
    assert f"--concurrency: must make at most 10,000 clients, not {made}\n" in said
    assert parse(*words, "2000n").concurrency == parse(*words, "010000").concurrency == 10_000


def test_each_test_of_a_series_has_the_next_seed() -> None:
    given = parse("--seed", "3", "--test-count", "3", "--", "--", "x")
    assert [options.numbered(given, number).seed for number in range(3)] == [3, 4, 5]
    assert options.numbered(given, 0) == given
    third = options.numbered(given, 2).command
    assert third[-3:] == ("--", "--", "x")
    again = options.parse(third[2:])
    assert (again.seed, again.test_count, again.args) == (5, 1, ("--", "x"))


def test_availability_is_total_or_a_fraction(capsys: pytest.CaptureFixture[str]) -> None:
    for text, value in (("total", 1.0), ("0", 0.0), ("0.9", 0.9), ("1", 1.0)):
        assert parse("--availability", text).availability == value
    for text in ("-0.1", "1.1", "most"):
        said = refused(f"--availability={text}", capsys=capsys)
        assert f"--availability: must be total or a number from 0 to 1, not {text!r}" in said


def test_the_command_is_kept_with_its_seed_and_the_binarys_words() -> None:
    given = parse("--", "--reads", "log", "--")
    assert given.args == ("--reads", "log", "--")
    assert 0 <= given.seed < 2**32
    command = ("./maelstrom", "test", *BIN)
    assert given.command == (*command, "--seed", str(given.seed), "--", "--reads", "log", "--")
    assert parse("--seed", "7").command == (*command, "--seed", "7")
    assert parse().seed != given.seed


def test_an_option_is_not_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused("--time", "3", capsys=capsys)
    assert said.startswith("usage: maelstrom test -w WORKLOAD") and "--time" in said


@pytest.mark.parametrize(
    ("word", "meant"),
    [("\u2013-rate", "--rate"), ("\u2014rate", "--rate"), ("\u2013w", "-w")],
)
def test_a_long_dash_is_told_from_a_hyphen(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(word, capsys=capsys)
    assert f"{word} begins with a long dash, which is no hyphen: type {meant}\n" in said


def test_words_without_an_option_may_be_the_binarys(capsys: pytest.CaptureFixture[str]) -> None:
    assert "arguments: a b; arguments for the binary come behind --\n" in refused(
        "a", "b", capsys=capsys
    )
    assert "behind" not in refused("--time", "3", capsys=capsys)


def test_a_binary_may_be_a_script_or_source_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "node.go"
    source.write_text("package main\n")
    said = f"chmod +x {source}, or give the program that is compiled from it\n"
    assert said in refused("--bin", str(source), capsys=capsys)
