"""The reader and the writer of EDN: all of the notation, and what is wrong with a bad text."""

from __future__ import annotations

import copy
import math
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbench.record.edn import EDNError, Keyword, Symbol, dumps, load_all, loads, numbered, pretty

A, B = Keyword("a"), Keyword("b")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil", None),
        ("true", True),
        ("-12", -12),
        ("+5", 5),
        ("123456789012345678901N", 123456789012345678901),
        ("0x1F", 31),
        ("1.5e3", 1500.0),
        ("1.5M", Decimal("1.5")),
        ("1/2", Fraction(1, 2)),
        ("##-Inf", -math.inf),
        (r'"a \"b\" \\ \n \u00e9"', 'a "b" \\ \n \u00e9'),
        (r"[\a \newline \u0041 \( ]", ["a", "\n", "A", "("]),
        (":a", A),
        (":jepsen.store/time", Keyword("jepsen.store/time")),
        ("foo/bar", Symbol("foo/bar")),
        ("+", Symbol("+")),
        ("[1 (2, 3) []]", [1, [2, 3], []]),
        ("#{1 [2 3]}", frozenset({1, (2, 3)})),
        ("{:a 1, [1 2] {:b nil}}", {A: 1, (1, 2): {B: None}}),
        ("#jepsen.history.Op{:a 1}", {A: 1}),
        ('#inst "2021-02-26"', "2021-02-26"),
        ("[1 #_ 2 #_ #_ {:a 3} 4 5]", [1, 5]),
        ("; before\n[1 ; [within\n 2]", [1, 2]),
    ],
)
def test_reads_every_form(text: str, value: Any) -> None:
    found = loads(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "cut_off"),
    [
        ("", 1, True),
        ("{:a", 1, True),
        ('[1\n"ab', 2, True),
        ("[1\n\n)", 3, False),
        ("{:a 1 :", 1, True),
        ("{:a 1 : }", 1, False),
        ("}", 1, False),
        ("{:a}", 1, False),
        ("1\n2", 2, False),
        ("\n12x", 2, False),
        ('"\\q"', 1, False),
        ("[1\n\\nothing]", 2, False),
        ("\\u12", 1, False),
        ("##Infinity", 1, False),
        ("{:a 1\n:b}", 2, False),
        (":", 1, False),
        ("[#_]", 1, False),
        ("[" * 1_000_000, 1, False),
        ("[" * 900 + "]" * 900, 1, False),
        ("1e999999999", 1, False),
        ("[1\n1e999999999M]", 2, False),
        ("1e-999999999M", 1, False),
        ("1e400", 1, False),
        ("1e" + "9" * 100_000, 1, False),
        ("7" * 1_000_000, 1, False),
        ("0x" + "f" * 1_000_000, 1, False),
        ("1/" + "7" * 1_000_000, 1, False),
    ],
)
def test_says_on_which_line_a_text_is_wrong(text: str, line: int, cut_off: bool) -> None:
    with pytest.raises(EDNError, match=f"line {line}: ") as caught:
        loads(text)
    assert (caught.value.line, caught.value.cut_off) == (line, cut_off)


def test_the_longest_integer_that_a_node_can_send_is_read() -> None:
    number = -(10**4299)  # as long as Python reads it in JSON, too
    assert loads(f"{number}N") == number
    with pytest.raises(EDNError, match="more than 4302 characters"):
        loads(f"{number}00N")


def test_a_map_in_a_set_or_as_a_key_is_a_map_in_any_order() -> None:
    one, other = "{:a 1 :b {:c 2 :d 3}}", "{:b {:d 3 :c 2} :a 1}"
    assert loads("#{" + one + "}") == loads("#{" + other + "}")
    assert loads("{" + one + " 1}") == loads("{" + other + " 1}")
    assert loads("#{{:a 1}}") != loads("#{[[:a 1]]}")
    assert dumps(loads("#{{:a 1}}")) == "#{{:a 1}}"


def test_forms_before_a_mistake_are_read() -> None:
    forms = load_all("{:a 1}\n{:a 2}\n{:a")
    assert [next(forms), next(forms)] == [{A: 1}, {A: 2}]
    with pytest.raises(EDNError, match="line 3"):
        next(forms)


def test_numbered_forms_come_with_the_line_on_which_they_begin() -> None:
    assert list(numbered("1\n\n{:a\n 2} 3\n; 4\n5")) == [(1, 1), (3, {A: 2}), (4, 3), (6, 5)]


def test_a_keyword_is_no_string() -> None:
    assert Keyword("type") != "type"
    assert Keyword("type") != ":type"
    assert Keyword("type") != Symbol("type")
    assert {Keyword("type"): 1, "type": 2, Symbol("type"): 3}[Keyword("type")] == 1
    assert copy.deepcopy(A) is A
    assert pickle.loads(pickle.dumps(A)) is A


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({A: 1, B: [1, (None, True)]}, "{:a 1, :b [1 [nil true]]}"),
        ('"\\\n\x00\ud800', r'"\"\\\n\u0000\ud800"'),
        (2**63, "9223372036854775808N"),
        (-(2**63), "-9223372036854775808"),
        ({3, 1, 2}, "#{1 2 3}"),
        ([1.0, math.inf, -math.inf, math.nan], "[1.0 ##Inf ##-Inf ##NaN]"),
        ([True, False, 1, 0], "[true false 1 0]"),
        ([Decimal("1.5"), Fraction(1, 2), Symbol("x")], "[1.5M 1/2 x]"),
    ],
)
def test_writes_as_clojure_prints(value: Any, text: str) -> None:
    assert dumps(value) == text


def test_sorted_keys_make_equal_maps_look_equal() -> None:
    assert dumps({"b": 1, "a": 2}) != dumps({"a": 2, "b": 1})
    assert dumps({"b": 1, "a": 2}, sort_keys=True) == dumps({"a": 2, "b": 1}, sort_keys=True)


def test_writes_nothing_that_is_no_edn() -> None:
    with pytest.raises(TypeError, match="object"):
        dumps([object()])


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([A, B, Symbol("x"), Fraction(1, 3), Decimal("1.5")])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just(A), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    # By text, as Python finds 1, 1.0 and true equal.
    assert dumps(loads(dumps(value))) == dumps(value)
    assert dumps(loads(pretty(value, 20))) == dumps(value)


def test_pretty_breaks_only_what_is_too_long() -> None:
    short = {A: 1, B: [1, 2]}
    assert pretty(short) == "{:a 1, :b [1 2]}"
    nested = {A: {B: "x" * 20, A: 1}, B: {A: 1}}
    assert pretty(nested, 30).splitlines() == [
        "{:a",
        ' {:b "xxxxxxxxxxxxxxxxxxxx",',
        "  :a 1},",
        " :b {:a 1}}",
    ]
    assert pretty([{A: 1}, {A: 2}, {B: 3}], 12).splitlines() == ["[{:a 1}", " {:a 2}", " {:b 3}]"]


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        ([1, 2, 3], 7, "[1 2 3]"),
        ([1, 2, 3], 6, "[1\n 2\n 3]"),
        ([[1, 2]], 7, "[[1 2]]"),
        ([[1, 2]], 6, "[[1\n  2]]"),  # there is no room for the outer bracket
        ([[1, 2], 3], 6, "[[1 2]\n 3]"),
        ({A: [1, 2], B: 3}, 10, "{:a [1 2],\n :b 3}"),
        ({A: [1, 2], B: 3}, 9, "{:a\n [1 2],\n :b 3}"),  # nor for the comma
        ({A: 3, B: [1, 2]}, 10, "{:a 3,\n :b [1 2]}"),
        ({A: 3, B: [1, 2]}, 9, "{:a 3,\n :b\n [1 2]}"),
        ([{A: 3, B: [1, 2]}], 11, "[{:a 3,\n  :b\n  [1 2]}]"),
        ({A: 123456789, B: 3}, 9, "{:a 123456789,\n :b 3}"),  # a number stays beside its key
        ({3, 1, 2}, 5, "#{1\n  2\n  3}"),
    ],
)
def test_pretty_breaks_as_soon_as_there_is_no_room(value: Any, width: int, text: str) -> None:
    assert pretty(value, width) == text
