"""Map: the bodies and texts of the tutorial's chapter. PersistentMap: what immutable means."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import MAX_NESTING, Map, PersistentMap

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
        {"type": ["read"], "key": 1},
        {"type": "write", "key": 1, "value": {1: 2}},
        {"type": "write", "key": {1}, "value": 1},
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
        if look:
            assert contents(versions[at], range(6)) == models[at]
    assert [contents(version, range(6)) for version in versions] == models


def written(version: PersistentMap, count: int, keys: int) -> PersistentMap:
    """The version after so many writes to that many keys in turn."""
    for number in range(count):
        version = version.set(number % keys, number)
    return version


def test_a_write_copies_nothing() -> None:
    version = PersistentMap((key, 0) for key in range(1000))
    table = version._table
    for key in range(1000):
        version = version.set(key, 1)
    assert version._table is table


def test_a_persistent_map_is_a_mapping() -> None:
    version = PersistentMap([(1, "a")])
    after = version.set(2, None)
    assert (len(version), 2 in version, version.get(2, "?")) == (1, False, "?")
    assert (len(after), 2 in after, after[2]) == (2, True, None)
    with pytest.raises(KeyError):
        version[2]
    assert list(PersistentMap([(1, "a"), (1, "b")]).items()) == [(1, "b")]


def test_keys_come_back_as_they_were_given_in_the_order_in_which_they_came() -> None:
    version = PersistentMap((key, 0) for key in DIFFERENT)
    for number, key in enumerate(reversed(DIFFERENT)):
        version = version.set(key, number)
    assert len(version) == len(DIFFERENT)
    assert repr([key for key, _ in version.items()]) == repr(DIFFERENT)
    assert [value for _, value in version.items()] == list(reversed(range(len(DIFFERENT))))


def test_values_are_kept_as_they_are_given() -> None:
    value = {"a": [1, True]}
    assert PersistentMap().set(1, value)[1] is value


def test_the_items_of_a_version_can_be_taken_while_newer_ones_are_written() -> None:
    held = version = PersistentMap((key, "old") for key in range(10))
    items, taken = held.items(), []
    for key, value in items:
        taken.append((key, value))
        version = version.set(9 - key, "new").set(f"{key}", "new")
    assert taken == [(key, "old") for key in range(10)]
    assert (len(held), len(version)) == (10, 20)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans())), st.integers(0), st.integers(0))
def test_changes_since_an_older_version(
    writes: list[tuple[int, bool]], one: int, other: int
) -> None:
    """Exactly the keys that were written between two versions, whoever holds those between."""
    version, keys = PersistentMap(), [key for key, _ in writes]
    line: list[PersistentMap | None] = [version]
    first, last = sorted((one % (len(writes) + 1), other % (len(writes) + 1)))
    for number, (key, hold) in enumerate(writes, 1):
        version = version.set(key, number)
        line.append(version if hold or number in (first, last) else None)
    older, between = line[first], line[last]
    assert older is not None and between is not None
    assert len(between) == len(set(keys[:last]))
    del line[::2]  # some that were held go
    changes = list(version.changes_since(older))
    assert len(changes) == len(set(keys[first:]))
    assert dict(changes) == {keys[n]: n + 1 for n in range(first, len(keys))}


def test_changes_cost_what_was_written_and_not_what_there_is() -> None:
    older = version = PersistentMap((key, 0) for key in range(1000))
    assert list(version.changes_since(older)) == []
    version = written(version, 9, 3)
    finds = 0

    class Counting(PersistentMap):
        __slots__ = ()

        def _item(self, id: Any) -> Any:
            nonlocal finds
            finds += 1
            return super()._item(id)

    newest = Counting()
    newest._table, newest._order, newest._size = version._table, version._order, version._size
    assert list(newest.changes_since(newest)) == []
    assert sorted(newest.changes_since(older)) == [(0, 6), (1, 7), (2, 8)]
    assert finds == 3


def test_changes_since_what_is_no_older_version_of_the_line_are_all_items() -> None:
    version = PersistentMap([(1, "a"), (2, "b")])
    after = version.set(1, "c")
    assert list(after.changes_since(PersistentMap([(1, "c")]))) == [(1, "c"), (2, "b")]
    assert list(version.changes_since(after)) == [(1, "a"), (2, "b")]
    newest = after.set(2, "d")
    assert list(version.changes_since(after)) == [(1, "a"), (2, "b")]
    assert list(version.set(2, "e").changes_since(after)) == [(1, "a"), (2, "e")]
    assert list(newest.changes_since(version)) == [(1, "c"), (2, "d")]
    assert list(after.changes_since(version)) == [(1, "c"), (2, "b")]  # it is not the newest


def test_a_version_that_was_read_costs_one_record_for_each_key_written_before() -> None:
    held = version = PersistentMap((key, 0) for key in range(10))
    version = written(version, 10_000, 3)
    later = version
    version = written(version, 10_000, 2)
    assert (held[0], later[0]) == (0, 9999)
    assert [len(held._lost), len(later._lost)] == [3, 2]
    assert held._newer is later._newer is version
    assert dict(held.items()) == dict.fromkeys(range(10), 0)


def test_a_version_that_nobody_holds_is_freed_and_leaves_nothing() -> None:
    """Neither memory nor steps of a write."""
    version = PersistentMap((key, 0) for key in range(10))
    tracemalloc.start()
    version = written(version, 100_000, 10)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000  # a record for each write would take 20 MB


def test_a_version_that_is_read_now_and_then_holds_no_others() -> None:
    """As a snapshot that is sent does, while each checkpoint takes the place of the last one."""
    snapshot = checkpoint = version = PersistentMap((key, 0) for key in range(10))
    for _ in range(100):
        checkpoint, version = version, written(version, 50, 10)
        assert len(list(version.changes_since(checkpoint))) == 10
        assert snapshot[0] == 0 and snapshot._newer is version
    assert dict(snapshot.items()) == dict.fromkeys(range(10), 0)


def test_a_long_chain_of_versions_is_freed_without_recursion() -> None:
    held = version = PersistentMap([(1, 0)])
    version = written(version, 200_000, 1)
    del held
    assert dict(version.items()) == {1: 0, 0: 199_999}


def test_a_map_is_freed_at_once_when_nobody_holds_it() -> None:
    class Table(dict[Any, Any]):
        pass

    version = PersistentMap()
    version._table = Table()
    table = weakref.ref(version._table)
    version = written(version, 3, 2)
    gc.disable()
    try:
        del version
        assert table() is None
    finally:
        gc.enable()


def test_a_long_line_of_versions_can_be_dropped() -> None:
    version = PersistentMap()
    line = [version]
    for number in range(300_000):
        version = version.set(0, number)
        line.append(version)
    assert version[0] == 299_999
    last = line.pop(0)
    del line, version
    assert 0 not in last
    del last


class Interrupted(dict[Any, Any]):
    """A dict that calls `during(moment)` around what is done to it, as another thread might."""

    during: Callable[[str], object]

    def get(self, key: Any, default: Any = None) -> Any:
        self.during("before get")
        value = super().get(key, default)
        self.during("after get")
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.during("after set")


@pytest.mark.parametrize("when", ["before get", "after get"])
def test_a_write_in_the_middle_of_a_read_does_not_change_what_is_read(when: str) -> None:
    def during(moment: str) -> None:
        if moment == when:
            table.during = lambda _: None
            version.set(1, "new").set(1, "newer")

    version = PersistentMap([(1, "old")])
    version._table = table = Interrupted({1: (1, "old")})
    table.during = during
    assert version.get(1) == "old"


def test_a_read_in_the_middle_of_a_write_does_not_see_it() -> None:
    read: list[Any] = []
    oldest = PersistentMap([(1, "old")])
    version = oldest.set(1, "newer")
    version._table = oldest._table = table = Interrupted(version._table)

    def during(moment: str) -> None:
        if moment == "after set":
            table.during = lambda _: None
            read.extend((oldest[1], version[1]))

    table.during = during
    version.set(1, "newest")
    assert read == ["old", "newer"]


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


def test_a_map_shows_what_it_holds() -> None:
    state, _ = Map({1: "a"}).apply({"type": "write", "key": [2], "value": None})
    assert repr(state) == "Map({1: 'a', [2]: None})"
    assert repr(Map()) == "Map({})"
