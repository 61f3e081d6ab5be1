"""Small histories that show what the checkers' words mean: lost, stale, poll-skip, and so on.

Each line of a history is `process type f value`. Events are 1 ms apart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Any

import pytest
from workbench.checkers import clojure, counter, kafka, set_full, unique_ids
from workbench.checkers.verdict import Verdict
from workbench.record.edn import Keyword, dumps, load_all
from workbench.record.history import HistoryError, Op
from workbench.units import MILLISECOND, SECOND
from workbench.verdicts import UNKNOWN, get


def history(text: str) -> list[Op]:
    """Reads lines like `0 ok read [1 2]`. A last `:final?` sets that entry of the event."""
    ops: list[Op] = []
    for line in filter(None, text.splitlines()):
        process, type, f, value, *flags = load_all(line)
        extras = {flag: True for flag in flags} or None
        index = len(ops)
        name = process if isinstance(process, int) else process.name
        ops.append(Op(name, str(type), str(f), value, index * MILLISECOND, index, extras=extras))
    return ops


def words(verdict: Verdict, name: str) -> str:
    """Returns an entry of the results as text."""
    return dumps(get(verdict.results, name))


# unique-ids


def ids(*values: str) -> Verdict:
    """Judges a history in which process 0 receives these ids."""
    lines = (f"0 invoke generate nil\n0 ok generate {value}" for value in values)
    return unique_ids.check(history("\n".join(lines)))


def test_an_id_that_two_operations_receive_is_duplicated() -> None:
    verdict = ids("7", "8", "7", "8", "7")
    assert verdict.valid is False
    assert dumps(verdict.results) == (
        "{:valid? false, :attempted-count 5, :acknowledged-count 5, :duplicated-count 2, "
        ":duplicated {7 3, 8 2}, :range [7 8]}"
    )
    assert verdict.why[0] == (
        "The id 7 is not unique: process 0 at 0.001 s (index 1) and process 0 at 0.005 s "
        "(index 5), and 1 more received it."
    )


def test_only_acknowledged_ids_count() -> None:
    verdict = unique_ids.check(
        history("0 invoke generate 1\n0 fail generate 1\n0 invoke generate 1\n0 info generate 1")
    )
    assert verdict.valid is True
    assert (words(verdict, "attempted-count"), words(verdict, "acknowledged-count")) == ("2", "0")
    assert words(verdict, "range") == "[nil nil]"


def test_ids_are_compared_as_in_clojure() -> None:
    assert ids("1", "1.0", "true", '"1"').valid is True
    assert ids("[1 2]", "[1 2]").valid is False
    assert ids("nil", "nil").valid is False
    assert words(ids("2.0", "2.0", "1", "1", "1.0"), "duplicated") == "{1 2, 2.0 2}"


def test_the_range_of_ids_is_by_clojures_order() -> None:
    assert words(ids("3", "1.5", "2"), "range") == "[1.5 3]"
    assert words(ids('"b"', '"a"', '"c"'), "range") == '["a" "c"]'
    assert words(ids("true", "false"), "range") == "[false true]"
    assert words(ids("[1 9]", "[2 1]"), "range") == "[[1 9] [2 1]]"
    assert words(ids("true", "1"), "range") == "nil"


def test_ids_without_an_order_have_no_range() -> None:
    assert words(ids("[9]", "nil", "[1 2]"), "range") == "[[9] [1 2]]"  # the shorter list is less
    verdict = ids("1", '"a"', "1")
    assert verdict.valid is False
    assert words(verdict, "range") == "nil"
    assert ":range is nil" in verdict.warnings[0]
    assert ids('{"n" 1}', '{"n" 2}').warnings


def test_at_most_48_duplicates_are_listed_those_with_most_copies() -> None:
    verdict = ids(*(str(number) for number in range(60) for _ in range(2 + number // 30)))
    duplicated = get(verdict.results, "duplicated")
    assert words(verdict, "duplicated-count") == "60"
    assert len(duplicated) == 48
    assert {*range(30, 60)} < duplicated.keys()
    assert list(duplicated) == sorted(duplicated)
    assert verdict.why[-1] == "and 52 more"


# broadcast and g-set

ADD_1 = """
0 invoke add 1
0 ok     add 1
"""
SAW_1 = """
1 invoke read nil
1 ok     read [1]
"""
SAW_NOTHING = """
2 invoke read nil
2 ok     read []
"""


@pytest.mark.parametrize(
    ("text", "outcome", "valid"),
    [
        pytest.param(ADD_1 + SAW_1, "stable", True, id="stable: the last read shows it"),
        pytest.param(ADD_1 + SAW_1 + SAW_NOTHING, "lost", False, id="lost: it vanished"),
        pytest.param(ADD_1 + SAW_NOTHING, "lost", False, id="lost: it never appeared"),
        pytest.param(ADD_1, "never-read", None, id="never-read: there is no read"),
        pytest.param(
            "0 invoke add 1\n2 invoke read nil\n0 ok add 1\n2 ok read []",
            "never-read",
            None,
            id="never-read: the only read began before the add was known",
        ),
        pytest.param(
            "0 invoke add 1\n0 fail add 1" + SAW_NOTHING,
            "never-read",
            None,
            id="never-read: a failed add that no read shows",
        ),
        pytest.param(
            "0 invoke add 1\n0 fail add 1" + SAW_1,
            "stable",
            True,
            id="stable: a failed add that a read shows",
        ),
        pytest.param(
            "0 invoke add 1\n0 info add 1" + SAW_1 + SAW_NOTHING,
            "lost",
            False,
            id="lost: a read proved that it was added",
        ),
        pytest.param(
            ADD_1 + "2 invoke read nil\n1 invoke read nil\n1 ok read [1]\n2 ok read []",
            "stable",
            True,
            id="stable: of two reads the one invoked last counts, not the one ended last",
        ),
        pytest.param(
            ADD_1 + SAW_1 + "1 invoke read nil\n1 fail read []",
            "stable",
            True,
            id="stable: a failed read tells nothing",
        ),
        pytest.param(
            ADD_1 + SAW_1 + "nemesis info read []",
            "stable",
            True,
            id="stable: the nemesis does not count",
        ),
        pytest.param(
            SAW_1 + ADD_1, "never-read", None, id="never-read: shown only before it was added"
        ),
        pytest.param(
            ADD_1 + SAW_1 + "0 invoke add 1\n0 ok add 1",
            "never-read",
            None,
            id="never-read: a second add begins anew",
        ),
    ],
)
def test_outcomes_of_an_element(text: str, outcome: str, valid: bool | None) -> None:
    for f in ("add", "broadcast"):
        verdict = set_full.check(history(text.replace(" add ", f" {f} ")))
        counts = {
            name: words(verdict, f"{name}-count") for name in ("stable", "lost", "never-read")
        }
        assert counts == {"stable": "0", "lost": "0", "never-read": "0", outcome: "1"}
        assert verdict.valid is valid
        assert bool(verdict.why) is (valid is not True)


def test_one_lost_element_makes_a_history_invalid_and_one_stable_element_valid() -> None:
    never_read = "0 invoke add 3\n0 info add 3"
    assert set_full.check(history(ADD_1 + SAW_1 + never_read)).valid is True
    lost = "0 invoke add 2\n0 ok add 2"
    verdict = set_full.check(history(ADD_1 + lost + SAW_1))
    assert verdict.valid is False
    assert words(verdict, "lost") == "[2]"
    assert verdict.why == [
        "Element 2 is lost: process 0's add was acknowledged at 0.003 s (index 3), but process 1's "
        "read, begun at 0.004 s (index 4) and ended at 0.005 s (index 5), lacks it, and no read "
        "has ever shown it."
    ]


def test_a_stable_element_is_stale_if_a_later_read_lacked_it_for_a_while() -> None:
    verdict = set_full.check(history(ADD_1 + SAW_NOTHING + SAW_1))
    assert verdict.valid is True  # stale is allowed
    assert words(verdict, "stale") == "[1]"
    assert words(verdict, "stable-latencies") == "{0 1, 0.5 1, 0.95 1, 0.99 1, 1 1}"  # 1 ms
    (worst,) = get(verdict.results, "worst-stale")
    assert get(worst, "last-absent", "index") == 2
    assert get(worst, "known", "index") == 1


def test_latencies_are_given_by_quantile() -> None:
    adds = "".join(f"0 invoke add {n}\n0 ok add {n}\n" for n in (1, 2, 3))
    verdict = set_full.check(history(adds + SAW_NOTHING + "1 invoke read nil\n1 ok read [1 2 3]"))
    # Known at 1, 3 and 5 ms; last absent in the read begun at 6 ms.
    assert words(verdict, "stable-latencies") == "{0 1, 0.5 3, 0.95 5, 0.99 5, 1 5}"
    assert [get(entry, "element") for entry in get(verdict.results, "worst-stale")] == [1, 2, 3]
    verdict = set_full.check(history(adds + SAW_1 + SAW_NOTHING))
    # Element 1 was last shown by the read begun at 6 ms, the others never.
    assert words(verdict, "lost-latencies") == "{0 0, 0.5 0, 0.95 5, 0.99 5, 1 5}"


@pytest.mark.parametrize(("gap", "stale"), [(999_998, "[]"), (999_999, "[1]")])
def test_stale_begins_at_one_millisecond(gap: int, stale: str) -> None:
    times = [0, 10, 10 + gap, 20 + gap, 30 + gap, 40 + gap]
    text = ADD_1 + SAW_NOTHING + SAW_1
    ops = [
        Op(op.process, op.type, op.f, op.value, time, op.index)
        for op, time in zip(history(text), times, strict=True)
    ]
    assert words(set_full.check(ops), "stale") == stale


def test_duplicated_and_foreign_elements_are_warnings() -> None:
    text = ADD_1 + "1 invoke read nil\n1 ok read [1 9 1 2]\n0 invoke add 2\n0 info add 2"
    verdict = set_full.check(history(text))
    assert verdict.valid is True
    assert words(verdict, "duplicated-count") == "0"  # as Jepsen's checker says
    assert sorted(verdict.warnings) == [
        "Process 1's read at 0.003 s (index 3) shows element 1 at 2 places.",
        "Process 1's read at 0.003 s (index 3) shows element 2, but its add only began at 0.004 s "
        "(index 4).",
        "Process 1's read at 0.003 s (index 3) shows element 9, but nobody has added it.",
    ]


def test_an_integer_that_has_become_a_string_is_told() -> None:
    text = ADD_1 + '1 invoke read nil\n1 ok read [1 "1" "9" "8" "7" "6" "5"]\n'
    slip, other, *rest = set_full.check(history(text)).warnings
    assert slip.endswith(
        'shows element "1", but nobody has added it: it was the integer 1, and has become a string.'
    )
    assert other.endswith('shows element "9", but nobody has added it.')
    assert [text.split('"')[1] for text in rest] == ["8", "7", "6", "5"], "in the read's order"


def test_a_set_without_adds_or_reads_is_unknown() -> None:
    assert set_full.check([]).why == ["No element was added, so there is nothing to judge."]
    assert get(set_full.check([]).results, "valid?") is UNKNOWN
    assert "No read succeeded" in set_full.check(history(ADD_1)).why[0]


def test_a_read_of_null_shows_nothing() -> None:
    text = ADD_1 + "2 invoke read nil\n2 ok read nil"
    assert set_full.check(history(text)).valid is False
    with pytest.raises(HistoryError, match="must be a list"):
        set_full.check(history("0 invoke read nil\n0 ok read 5"))


def plain_outcome(element: int, ops: list[Op]) -> str:
    """Returns an element's outcome by the definition, read by read."""
    begun: dict[int | str, Op] = {}
    invoked = next(op.index for op in ops if (op.f, op.value) == ("add", element))
    known = present = absent = -1
    for op in ops:
        if op.type == "invoke":
            begun[op.process] = op
        elif op.f == "add" and op.value == element and op.type == "ok" and known < 0:
            known = op.index
        elif op.f == "read" and op.index > invoked:
            if element in op.value:
                present = max(present, begun[op.process].index)
                known = op.index if known < 0 else known
            else:
                absent = max(absent, begun[op.process].index)
    if present > absent:
        return "stable"
    return "lost" if absent > known >= 0 else "never-read"


def random_set(rng: random.Random, count: int, processes: int) -> list[Op]:
    """Makes a history of a set that forgets some elements, and shows others late."""
    ops: list[Op] = []
    busy: dict[int, tuple[str, Any]] = {}
    added = 0
    for index in range(count):
        process = rng.randrange(processes)
        if process not in busy:
            f = rng.choice(["add", "read"])
            busy[process] = f, added if f == "add" else None
            added += f == "add"
            ops.append(Op(process, "invoke", *busy[process], index, index))
        else:
            f, value = busy.pop(process)
            type = "ok" if f == "read" else rng.choice(["ok", "ok", "info"])
            shown = [element for element in range(added) if rng.random() < 0.6]
            ops.append(Op(process, type, f, shown if f == "read" else value, index, index))
    return ops


@pytest.mark.parametrize("seed", range(40))
def test_outcomes_agree_with_the_plain_definition(seed: int) -> None:
    ops = random_set(random.Random(seed), count=60, processes=4)
    results = set_full.check(ops).results
    for op in ops:
        if (op.type, op.f) == ("invoke", "add"):
            outcome = plain_outcome(op.value, ops)
            for name in ("lost", "never-read"):
                assert (op.value in get(results, name)) is (outcome == name)


def test_large_sets_are_judged_fast() -> None:
    lines: list[Op] = []
    for number in range(1000):
        for f, value in (("add", number), ("read", list(range(number + 1)))):
            for type in ("invoke", "ok"):
                lines.append(Op(0, type, f, value, len(lines), len(lines)))
    start = time.monotonic()
    assert words(set_full.check(lines), "stable-count") == "1000"
    assert time.monotonic() - start < 5  # 0.1 s here; each read against each element takes 10 s


# g-counter and pn-counter


def final(*values: object) -> str:
    """Returns lines in which process 1 makes final reads of these values."""
    pair = "1 invoke read nil :final?\n1 ok read {} :final?\n"
    return "".join(pair.format(value) for value in values)


ADD_5 = "0 invoke add 5\n0 ok add 5\n"
MAYBE_1 = "0 invoke add 1\n0 info add 1\n"
MAYBE_3 = "0 invoke add 3\n0 info add 3\n"


def test_a_final_read_must_be_the_sum_of_the_adds() -> None:
    assert counter.check(history(ADD_5 + ADD_5 + final(10))).valid is True
    verdict = counter.check(history(ADD_5 + final(4, 5)))
    assert verdict.valid is False
    assert dumps(verdict.results) == (
        "{:valid? false, :errors [{:index 3, :time 3000000, :type :ok, :process 1, :f :read, "
        ":value 4, :final? true}], :final-reads [4 5], :acceptable [[5 5]]}"
    )
    assert verdict.why == [
        "Process 1's final read at 0.003 s (index 3) found 4. The acknowledged adds sum to 5."
    ]


@pytest.mark.parametrize(
    ("adds", "acceptable"),
    [
        pytest.param("", "[[0 0]]", id="no add: 0"),
        pytest.param(ADD_5 + MAYBE_3, "[[5 5] [8 8]]", id="an unknown add may count"),
        pytest.param(ADD_5 + MAYBE_1, "[[5 6]]", id="neighbours make one range"),
        pytest.param(MAYBE_1 + MAYBE_1 + MAYBE_3, "[[0 5]]", id="any subset may count"),
        pytest.param(MAYBE_3 + MAYBE_1, "[[0 1] [3 4]]", id="two ranges"),
        pytest.param("0 invoke add -2\n0 info add -2\n", "[[-2 -2] [0 0]]", id="negative"),
        pytest.param("0 invoke add 7\n0 fail add 7\n", "[[0 0]]", id="a failed add never counts"),
        pytest.param("0 invoke add 7\n", "[[0 0]]", id="an add without completion never counts"),
    ],
)
def test_acceptable_values(adds: str, acceptable: str) -> None:
    verdict = counter.check(history(adds + final(0, 1, 3, 4, 5, 6, 8, -2)))
    assert words(verdict, "acceptable") == acceptable
    values = {n for low, high in get(verdict.results, "acceptable") for n in range(low, high + 1)}
    wrong = [get(error, "value") for error in get(verdict.results, "errors")]
    assert wrong == [value for value in (0, 1, 3, 4, 5, 6, 8, -2) if value not in values]


def test_a_wrong_final_read_is_explained_by_the_unknown_adds() -> None:
    (why,) = counter.check(history(ADD_5 + MAYBE_3 + final(6))).why
    assert why.endswith("sum to 5, and 1 add with an unknown outcome may count too: 5 or 8.")
    adds = "".join(f"0 invoke add {n}\n0 info add {n}\n" for n in (10, 30, 90))
    (why,) = counter.check(history(adds + final(6))).why
    assert why.endswith("3 adds with an unknown outcome may count too: 0, 10, 30, 40, 90, ....")
    adds = "".join(f"0 invoke add {n}\n0 info add {n}\n" for n in (1, 30))
    (why,) = counter.check(history(adds + final(6))).why
    assert why.endswith("may count too: 0 to 1 or 30 to 31.")


def test_only_acknowledged_final_reads_are_judged() -> None:
    text = ADD_5 + "1 invoke read nil\n1 ok read 99\n1 invoke read nil :final?\n"
    verdict = counter.check(history(text + "1 info read 98 :final?"))
    assert verdict.valid is True
    assert words(verdict, "errors") == "nil"
    assert verdict.warnings == ["No final read succeeded, so nothing was judged."]


def test_a_counter_with_too_many_acceptable_values_is_unknown() -> None:
    adds = "".join(f"0 invoke add {3**n}\n0 info add {3**n}\n" for n in range(20))
    verdict = counter.check(history(adds + final(5)))
    assert verdict.valid is None
    assert "too many to list" in verdict.why[0]


def test_a_counter_adds_and_holds_whole_numbers() -> None:
    assert counter.check(history(final("0.0"))).valid is False
    with pytest.raises(HistoryError, match="must add an integer"):
        counter.check(history('0 invoke add "1"\n0 ok add "1"'))


# kafka


def sent(process: int, offset: int, message: int, type: str = "ok") -> str:
    """Returns the lines of a send to key k."""
    result = f"[{offset} {message}]" if type == "ok" else message
    return (
        f'{process} invoke send [[:send "k" {message}]]\n'
        f'{process} {type} send [[:send "k" {result}]]\n'
    )


def polled(process: int, *pairs: tuple[int, int | str], key: str = "k") -> str:
    """Returns the lines of a poll that shows these offsets and messages."""
    result = " ".join(f"[{offset} {message}]" for offset, message in pairs)
    return f'{process} invoke poll [[:poll]]\n{process} ok poll [[:poll {{"{key}" [{result}]}}]]\n'


def judged(text: str) -> tuple[str, Verdict]:
    """Returns the error types with their counts, and the verdict."""
    verdict = kafka.check(history(text))
    types = [type.name for type in get(verdict.results, "error-types")]
    counts = [get(verdict.results, name, "count") for name in types]
    return " ".join(map("{}={}".format, types, counts)).replace("=None", ""), verdict


LOG = sent(0, 0, 10) + sent(0, 1, 11) + sent(0, 5, 12)  # offsets may have gaps
ALL = (0, 10), (1, 11), (5, 12)


@pytest.mark.parametrize(
    ("text", "types"),
    [
        pytest.param(LOG + polled(1, *ALL), "", id="valid: a poll shows all, in order"),
        pytest.param(LOG + polled(1, ALL[0]) + polled(1, *ALL[1:]), "", id="valid: in two polls"),
        pytest.param(LOG + polled(1, *ALL) + polled(2, *ALL), "", id="valid: each process reads"),
        pytest.param(
            LOG
            + polled(1, ALL[0])
            + polled(2, ALL[0], ALL[1])
            + polled(3, *ALL)
            + polled(1, ALL[1]),
            "",
            id="valid: polls may be old",
        ),
        pytest.param(
            sent(0, 0, 10) + sent(1, 0, 11) + polled(2, (0, 10)),
            "inconsistent-offsets=1 lost-write=1 unseen",
            id="inconsistent-offsets: two messages at offset 0",
        ),
        pytest.param(
            sent(0, 0, 10) + polled(1, (0, 10)) + polled(2, (1, 10)),
            "duplicate=1",
            id="duplicate: message 10 at offsets 0 and 1",
        ),
        pytest.param(
            sent(0, 0, 10) + sent(0, 1, 11) + polled(1, (1, 11)),
            "lost-write=1 unseen",
            id="lost-write: 11 was polled, 10 before it never",
        ),
        pytest.param(
            LOG + polled(1, (0, 10)) + polled(2, (5, 12)),
            "lost-write=1 unseen",
            id="lost-write: 11 is between messages that were polled",
        ),
        pytest.param(
            sent(0, 0, 10) + sent(0, 1, 11) + polled(1, (0, 10)),
            "unseen",
            id="unseen: 11 was acknowledged and never polled",
        ),
        pytest.param(
            sent(0, 0, 10, "fail") + sent(0, 1, 11) + polled(1, (0, 10), (1, 11)),
            "G1a=1",
            id="G1a: the send of 10 failed, and yet a poll shows it",
        ),
        pytest.param(
            sent(0, 0, 10, "info") + sent(3, 1, 11) + polled(1, (1, 11)),
            "",
            id="valid: a send with an unknown outcome may be absent",
        ),
        pytest.param(
            sent(0, 0, 10, "info") + sent(3, 1, 11) + polled(1, (0, 10), (1, 11)),
            "",
            id="valid: or present",
        ),
        pytest.param(
            LOG + polled(1, ALL[0], ALL[2]) + polled(2, *ALL),
            "int-poll-skip=1",
            id="int-poll-skip: 12 follows 10 in a poll, 11 is skipped",
        ),
        pytest.param(
            LOG + polled(1, ALL[1], ALL[0]) + polled(2, *ALL),
            "int-nonmonotonic-poll=1",
            id="int-nonmonotonic-poll: 10 follows 11 in a poll",
        ),
        pytest.param(
            LOG + polled(1, ALL[0]) + polled(1, ALL[2]) + polled(2, *ALL),
            "poll-skip=1",
            id="poll-skip: process 1 jumps from 10 to 12",
        ),
        pytest.param(
            LOG + polled(1, *ALL) + polled(1, ALL[2]),
            "nonmonotonic-poll=1",
            id="nonmonotonic-poll: process 1 sees 12 twice",
        ),
        pytest.param(
            LOG + polled(1, *ALL) + '1 invoke assign ["k"]\n1 ok assign ["k"]\n' + polled(1, *ALL),
            "nonmonotonic-poll=1",
            id="nonmonotonic-poll: an assign of k keeps its memory",
        ),
        pytest.param(
            LOG + polled(1, *ALL) + '1 invoke assign ["j"]\n1 ok assign ["j"]\n' + polled(1, *ALL),
            "",
            id="valid: an assign of other keys forgets k",
        ),
        pytest.param(
            LOG
            + polled(1, *ALL)
            + '1 invoke assign ["j"]\n1 fail assign ["j"]\n'
            + polled(1, *ALL),
            "nonmonotonic-poll=1",
            id="nonmonotonic-poll: a failed assign forgets nothing",
        ),
        pytest.param(
            LOG + polled(1, ALL[0]) + polled(1) + polled(1, ALL[2]) + polled(2, *ALL),
            "",
            id="valid: an empty list hides the skip after it",
        ),
        pytest.param(
            sent(0, 1, 10) + sent(0, 0, 11) + polled(1, (0, 11), (1, 10)),
            "nonmonotonic-send=1",
            id="nonmonotonic-send: process 0's second send gets a lower offset",
        ),
        pytest.param(
            sent(0, 1, 10) + sent(3, 0, 11) + polled(1, (0, 11), (1, 10)),
            "",
            id="valid: offsets of two processes may come in any order",
        ),
        pytest.param(
            polled(1, (0, 10)) + sent(0, 0, 10),
            "G1c-realtime=1 strong-PL-2-cycle-exists=1",
            id="G1c-realtime: a poll ended before the send that it shows began",
        ),
        pytest.param(
            '1 invoke poll [[:poll]]\n0 invoke send [[:send "k" 10]]\n'
            '1 ok poll [[:poll {"k" [[0 10]]}]]\n0 ok send [[:send "k" [0 10]]]\n' + polled(2),
            "",
            id="valid: a poll that overlaps the send may show it",
        ),
        pytest.param(
            '0 invoke send [[:send "k" 10]]\n0 info send [[:send "k" 10]]',
            "empty-transaction-graph=1",
            id="empty-transaction-graph: a single operation",
        ),
        pytest.param(
            "0 invoke crash nil\n0 info crash nil",
            "empty-transaction-graph=1",
            id="empty-transaction-graph: none at all",
        ),
        pytest.param(
            sent(0, 0, 10, "info") + polled(1, (0, 10)),
            "unseen",
            id="unseen, by a slip of Jepsen's: the last operation is the key's first poll",
        ),
        pytest.param(
            sent(0, 0, 10, "info") + polled(1, (0, 10)) + polled(2, key="j"),
            "",
            id="valid: any operation after it ends the slip",
        ),
    ],
)
def test_error_types_of_kafka(text: str, types: str) -> None:
    found, verdict = judged(text)
    assert found == types
    assert verdict.valid is not bool(types)
    assert bool(verdict.why) is bool(types)
    assert not verdict.warnings


@pytest.mark.parametrize(
    ("text", "types", "bad"),
    [
        pytest.param(
            LOG
            + '4 invoke txn [[:send "k" 13] [:send "k" 14]]\n'
            + '4 ok txn [[:send "k" [6 13]] [:send "k" [9 14]]]\n'
            + sent(3, 7, 15)
            + polled(1, *ALL, (6, 13), (7, 15), (9, 14)),
            "int-send-skip=1",
            "",
            id="int-send-skip: 15 is between two sends of a transaction, which is allowed",
        ),
        pytest.param(
            '4 invoke txn [[:send "k" 1] [:send "k" 2]]\n'
            '4 ok txn [[:send "k" [1 1]] [:send "k" [0 2]]]\n' + polled(1, (0, 2), (1, 1)),
            "int-nonmonotonic-send=1",
            "int-nonmonotonic-send",
            id="int-nonmonotonic-send: the second send of a transaction has a lower offset",
        ),
        pytest.param(
            '4 invoke txn [[:send "k" 1] [:poll]]\n'
            '4 ok txn [[:send "k" [0 1]] [:poll {"k" [[0 1]]}]]\n' + polled(1, (0, 1)),
            "precommitted-read=1",
            "precommitted-read",
            id="precommitted-read: a transaction polls its own message",
        ),
        pytest.param(
            '4 invoke txn [[:send "k" 1] [:poll]]\n5 invoke txn [[:send "j" 1] [:poll]]\n'
            '4 ok txn [[:send "k" [0 1]] [:poll {"j" [[0 1]]}]]\n'
            '5 ok txn [[:send "j" [0 1]] [:poll {"k" [[0 1]]}]]\n',
            "G1c=1 PL-2-cycle-exists=1",
            "G1c PL-2-cycle-exists",
            id="G1c: two transactions poll each other's messages",
        ),
    ],
)
def test_error_types_of_several_micro_ops(text: str, types: str, bad: str) -> None:
    found, verdict = judged(text)
    assert found == types
    assert " ".join(type.name for type in get(verdict.results, "bad-error-types")) == bad
    assert verdict.valid is not bool(bad)


def test_a_message_that_nobody_sent_makes_a_log_unknown() -> None:
    _, verdict = judged(sent(0, 0, 10) + polled(1, (0, 10), (1, 99)))
    assert verdict.valid is None
    assert "99" in verdict.why[0] and "nobody sent it." in verdict.why[0]
    _, verdict = judged(sent(0, 0, 10) + polled(1, (0, '"10"')))
    slip = "nobody sent it: it was the integer 10, and has become a string."
    assert slip in verdict.warnings[0]
    types, verdict = judged(LOG + polled(1, *ALL, (6, 99)) + polled(1, *ALL))
    assert (types, verdict.valid) == ("nonmonotonic-poll=1", False)
    assert "nobody sent it" in verdict.warnings[0]
    open_send = '0 invoke send [[:send "k" 10]]\n'
    types, verdict = judged(open_send + polled(1, (0, 10)) + polled(2, (0, 10)))
    assert (types, verdict.valid) == ("", True)  # its send has only not ended yet


def test_an_empty_log_is_unknown_and_an_empty_list_is_no_error() -> None:
    assert kafka.check([]).valid is None
    assert judged(polled(1) + polled(1))[1].valid is True


def test_kafkas_errors_say_who_did_what_when() -> None:
    _, verdict = judged(LOG + polled(1, ALL[0]) + polled(1, ALL[2]) + polled(2, *ALL))
    assert verdict.why == [
        'poll-skip: key "k": process 1\'s poll at 0.007 s (index 7) ended with message 10, and '
        "process 1's poll at 0.009 s (index 9) begins with 12; it skips 11."
    ]
    (error,) = get(verdict.results, "poll-skip", "errs")
    assert get(error, "skipped") == [11]
    assert [get(op, "index") for op in get(error, "ops")] == [7, 9]
    _, verdict = judged(LOG + polled(1, (5, 12)) + polled(2, (0, 10)) + polled(3, (5, 12)))
    assert verdict.why[0] == (
        'lost-write: message 11 of key "k" is lost: process 0\'s send at 0.003 s (index 3) put it '
        "at position 1, and no poll shows it, though process 1's poll at 0.007 s (index 7) shows "
        "message 12 at position 2."
    )
    _, verdict = judged(polled(1, (0, 10)) + sent(0, 0, 10))
    assert verdict.why == [
        "G1c-realtime: process 1's poll at 0.001 s (index 1) shows a message of process 0's send "
        "at 0.003 s (index 3), but process 1's poll at 0.001 s (index 1) ended before process 0's "
        "send at 0.003 s (index 3) began at 0.002 s (index 2)."
    ]


def test_each_error_type_is_explained_before_any_is_explained_twice() -> None:
    text = LOG + polled(1, *ALL) + polled(1, *ALL) + "".join(polled(1, *ALL) for _ in range(20))
    _, verdict = judged(text + polled(2, ALL[1], ALL[0]))
    assert [line.split(":")[0] for line in verdict.why[:2]] == [
        "int-nonmonotonic-poll",
        "nonmonotonic-poll",
    ]
    assert get(verdict.results, "nonmonotonic-poll", "count") == 21
    assert len(get(verdict.results, "nonmonotonic-poll", "errs")) == 8


def test_unseen_lists_messages_of_each_key() -> None:
    _, verdict = judged(LOG + polled(1, ALL[0]))
    assert words(verdict, "unseen") == ('{:time 7000000, :unseen {"k" 2}, :messages {"k" [11 12]}}')
    assert "unseen: messages 11, 12 of key \"k\" were sent" in " ".join(verdict.why)


def test_realtime_lag_is_the_time_since_a_poll_missed_an_offset() -> None:
    _, verdict = judged(LOG + '1 invoke assign ["k"]\n1 ok assign ["k"]\n' + polled(1, ALL[0]))
    lag = get(verdict.results, "worst-realtime-lag")
    # Offset 1 was known at 3 ms. The poll began at 8 ms and saw only offset 0.
    assert lag == {
        Keyword("time"): 8 * MILLISECOND / SECOND,
        Keyword("process"): 1,
        Keyword("key"): "k",
        Keyword("lag"): 5 * MILLISECOND / SECOND,
    }


def test_an_assigned_key_lags_from_its_first_offset() -> None:
    _, verdict = judged(LOG + '1 invoke assign ["k"]\n1 ok assign ["k"]\n' + polled(1, key="j"))
    lag = get(verdict.results, "worst-realtime-lag")  # offset 0 was known at 1 ms, polled at 8 ms
    assert (get(lag, "key"), get(lag, "lag")) == ("k", 7 * MILLISECOND / SECOND)
    _, verdict = judged(LOG + '1 invoke assign ["k"]\n1 fail assign ["k"]\n' + polled(1, key="j"))
    assert get(verdict.results, "worst-realtime-lag", "lag") == 0


def test_causes_of_unknown_outcomes_are_listed_once() -> None:
    ops = history(sent(0, 0, 1, "info") + sent(1, 0, 2, "info") + polled(2, (0, 1)))
    timed_out = [
        Op(op.process, op.type, op.f, op.value, op.time, op.index, Keyword("net-timeout"))
        if op.type == "info"
        else op
        for op in ops
    ]
    assert words(kafka.check(timed_out), "info-txn-causes") == "[:net-timeout]"


@pytest.mark.parametrize("value", ["5", "[[:send]]", "[[:poll 5]]", '[[:poll {"k" [["a" 1]]}]]'])
def test_other_values_are_no_history_of_kafka(value: str) -> None:
    with pytest.raises(HistoryError, match="must be a list like"):
        kafka.check(history(f"0 invoke poll [[:poll]]\n0 ok poll {value}"))


def test_completions_need_an_invocation() -> None:
    for check, line in ((set_full.check, "0 ok read []"), (kafka.check, "0 ok poll [[:poll {}]]")):
        with pytest.raises(HistoryError, match="did not invoke"):
            check(history(line))


# Clojure's rules


def in_set_order(values: Iterable[int]) -> list[int]:
    return sorted(values, key=clojure.set_order)


def test_sets_are_in_clojures_order() -> None:
    # As Clojure prints (set (range 10)).
    assert in_set_order(range(10)) == [0, 7, 1, 4, 6, 3, 2, 9, 5, 8]
