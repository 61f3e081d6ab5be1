"""Map.apply: the bodies and error texts of the tutorial's chapter, and what immutable means."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import MAX_NESTING, Map

ABSENT = {"type": "error", "code": 20, "text": "not found"}


def read(key: Any) -> dict[str, Any]:
    return {"type": "read", "key": key}


def write(key: Any, value: Any) -> dict[str, Any]:
    return {"type": "write", "key": key, "value": value}


def cas(key: Any, old: Any, new: Any, **more: Any) -> dict[str, Any]:
    return {"type": "cas", "key": key, "from": old, "to": new, **more}


def run(*ops: dict[str, Any]) -> list[dict[str, Any]]:
    """The responses to operations, one applied after the other."""
    state, responses = Map(), []
    for op in ops:
        state, response = state.apply(op)
        responses.append(response)
    return responses


def test_a_key_that_was_never_written_is_not_found() -> None:
    assert run(read(1)) == [ABSENT]


def test_a_write_is_read() -> None:
    assert run(write(1, 2), read(1)) == [{"type": "write_ok"}, {"type": "read_ok", "value": 2}]


def test_null_is_a_value() -> None:
    assert run(write(1, None), read(1))[1] == {"type": "read_ok", "value": None}


def test_cas_sets_a_value_that_is_as_expected() -> None:
    assert run(write(1, 2), cas(1, 2, 3), read(1))[1:] == [
        {"type": "cas_ok"},
        {"type": "read_ok", "value": 3},
    ]


def test_cas_says_what_it_expected_and_what_it_had() -> None:
    assert run(write(1, 2), cas(1, 4, 3), read(1))[1:] == [
        {"type": "error", "code": 22, "text": "expected 4, but had 2"},
        {"type": "read_ok", "value": 2},
    ]
    assert run(write("k", "b"), cas("k", "a", "c"))[1]["text"] == "expected a, but had b"


def test_cas_needs_the_key_unless_it_may_create_it() -> None:
    assert run(cas(1, 2, 3), read(1)) == [ABSENT, ABSENT]
    assert run(cas(1, 2, 3, create_if_not_exists=False)) == [ABSENT]
    assert run(cas(1, 2, 3, create_if_not_exists=True), read(1)) == [
        {"type": "cas_ok"},
        {"type": "read_ok", "value": 3},
    ]
    assert run(write(1, 9), cas(1, 2, 3, create_if_not_exists=True))[1]["code"] == 22


@pytest.mark.parametrize(
    "op",
    [
        {"type": "read"},
        {"type": "write", "key": 1},
        {"type": "write", "value": 1},
        {"type": "cas", "key": 1, "from": 1},
        {"type": "cas", "key": 1, "to": 1},
        {"key": 1},
        {},
        cas(1, 1, 2, create_if_not_exists="yes"),
    ],
)
def test_a_malformed_operation_is_error_12_and_changes_nothing(op: dict[str, Any]) -> None:
    before, _ = Map().apply(write(1, 1))
    after, response = before.apply(op)
    assert (response["type"], response["code"]) == ("error", 12)
    assert after is before


def test_an_unknown_operation_is_error_10() -> None:
    assert run({"type": "increment", "key": 1})[0]["code"] == 10


# Python says that 1 == True, and that a list is no key; JSON does not.
DIFFERENT = [1, "1", True, 0, False, "", None, [], {}, [1], [True], {"1": 1}, {"1": True}, [[1]]]


def test_different_json_is_different_as_a_key() -> None:
    state = Map()
    for number, key in enumerate(DIFFERENT):
        state, _ = state.apply(write(key, number))
    values = [state.apply(read(key))[1]["value"] for key in DIFFERENT]
    assert values == list(range(len(DIFFERENT)))


@pytest.mark.parametrize("old", DIFFERENT)
@pytest.mark.parametrize("expected", DIFFERENT)
def test_different_json_is_different_to_cas(old: Any, expected: Any) -> None:
    response = run(write(1, old), cas(1, expected, 5))[1]
    assert (response["type"] == "cas_ok") is (repr(old) == repr(expected))


def test_order_within_an_object_does_not_matter() -> None:
    assert run(write({"a": 1, "b": [2]}, 3), read({"b": [2], "a": 1}))[1]["value"] == 3


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_nested_too_deeply_to_be_sent_on_is_error_12() -> None:
    deep, too_deep = nested(MAX_NESTING), nested(MAX_NESTING + 1)
    assert run(write(1, deep), read(1))[1]["value"] == deep
    for op in (write(1, too_deep), write(too_deep, 1), read(too_deep), write(1, nested(5000))):
        assert run(op)[0]["code"] == 12
    assert run(write(1, 1), cas(1, too_deep, 1), cas(1, 1, too_deep), read(1))[1:] == [
        {"type": "error", "code": 12, "text": f"nested deeper than {MAX_NESTING}"},
        {"type": "error", "code": 12, "text": f"nested deeper than {MAX_NESTING}"},
        {"type": "read_ok", "value": 1},
    ]


def test_an_error_text_is_short_even_if_the_values_are_not() -> None:
    assert len(run(write(1, "x" * 1_000_000), cas(1, "y" * 1_000_000, 1))[1]["text"]) < 300


def contents(version: Map, keys: range) -> dict[int, Any]:
    responses = {key: version.apply(read(key))[1] for key in keys}
    return {key: response["value"] for key, response in responses.items() if "value" in response}


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5), st.integers(0, 9), st.booleans())))
def test_every_version_stays_as_it_was(steps: list[tuple[int, int, int, bool]]) -> None:
    """Writes go to any version there is; each is compared with a dict that was copied."""
    versions, models = [Map()], [dict[int, int]()]
    for which, key, value, look in steps:
        at = which % len(versions)
        after, _ = versions[at].apply(write(key, value))
        versions.append(after)
        models.append({**models[at], key: value})
        if look:  # a look at an old version makes it catch up
            assert contents(versions[at], range(6)) == models[at]
    assert [contents(version, range(6)) for version in versions] == models


def test_a_write_copies_nothing() -> None:
    version = Map({key: 0 for key in range(1000)})
    table = version._state[0]
    for key in range(1000):
        version, _ = version.apply(write(key, 1))
    assert version._state[0] is table


def test_a_version_that_is_held_costs_one_record_for_each_key_written_since() -> None:
    held = version = Map({key: 0 for key in range(10)})
    for number in range(10_000):
        version, _ = version.apply(write(number % 3, number))
    assert contents(held, range(10)) == dict.fromkeys(range(10), 0)
    assert held._state == ({0: 0, 1: 0, 2: 0}, version)


def test_a_long_chain_of_versions_can_be_dropped() -> None:
    held = version = Map()
    for number in range(1_000_000):
        version, _ = version.apply(write(0, number))
    assert version.apply(read(0))[1]["value"] == 999_999
    del held  # a million versions go at once


def test_a_write_in_the_middle_of_a_read_does_not_change_what_is_read() -> None:
    class Table(dict[Any, Any]):
        interrupted = False

        def get(self, key: Any, default: Any = None) -> Any:
            if not self.interrupted:
                self.interrupted = True
                version.apply(write(key, "new"))  # as another thread might, just now
            return super().get(key, default)

    version = Map()
    version._state = (Table({1: "old"}), None)
    assert version.apply(read(1))[1]["value"] == "old"


def test_an_old_version_can_be_read_while_another_thread_writes() -> None:
    old = version = Map({key: "old" for key in range(50)})
    wrong: list[Any] = []
    writing = threading.Event()
    done = threading.Event()

    def look() -> None:
        writing.wait()
        while not done.is_set():
            wrong.extend(v for v in contents(old, range(50)).values() if v != "old")

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(30_000):
        version, _ = version.apply(write(number % 50, "new"))
        writing.set()
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
