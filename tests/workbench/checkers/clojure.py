"""Clojure's rules for comparing values, on which the verdicts of Jepsen's checkers depend."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cmp_to_key
from typing import Any, TypeVar

from ..record import edn

T = TypeVar("T")


def identity(value: Any) -> Hashable:
    """Maps values that are equal in Clojure, and only those, to equal objects.

    In Python 1, 1.0 and True are equal; in Clojure they are three values.
    """
    if isinstance(value, bool | float):
        return (type(value), value)
    if isinstance(value, list | tuple):
        return tuple(map(identity, value))
    if isinstance(value, set | frozenset):
        return (set, frozenset(map(identity, value)))
    if isinstance(value, dict):
        return (dict, frozenset((identity(key), identity(item)) for key, item in value.items()))
    return value  # type: ignore[no-any-return]


def map_key(value: Any) -> Any:
    """Returns a key for a map of results that is written as `value`.

    A Python dict cannot hold both 1 and 1.0, so unusual keys are symbols of the same text.
    """
    return value if value is None or type(value) in (int, str) else edn.Symbol(edn.dumps(value))


def compare(left: Any, right: Any) -> int:
    """Orders two values as Clojure's `compare` does. Raises TypeError for values without an order.

    Null comes first. A shorter list comes before a longer one.
    """
    if left is None or right is None:
        return (left is not None) - (right is not None)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return len(left) - len(right)
        return next(filter(None, map(compare, left, right)), 0)
    number = isinstance(left, int | float) and not isinstance(left, bool)
    other = isinstance(right, int | float) and not isinstance(right, bool)
    same = type(left) is type(right) and not isinstance(left, dict | set | frozenset)
    if not same and not (number and other):
        raise TypeError(f"{edn.dumps(left)[:60]} and {edn.dumps(right)[:60]} have no order")
    return int(left > right) - int(left < right)


def in_order(items: Iterable[T], key: Callable[[T], Any] = lambda item: item) -> list[T]:
    """Sorts items by a value as Clojure does. Items without an order stay as they are."""
    found = list(items)
    by_value = cmp_to_key(compare)
    try:
        return sorted(found, key=lambda item: by_value(key(item)))
    except TypeError:
        return found


def set_order(value: Hashable) -> tuple[int, ...]:
    """Returns a sort key that puts integers in the order in which Clojure iterates over a set.

    A Clojure set is a tree of 32-way nodes, indexed by the hash five bits at a time, lowest first.
    The hash of an integer is Murmur3. Values of other types are given no order.
    """
    if type(value) is not int or not -(2**63) <= value < 2**63:
        return ()
    hash = _murmur3(value & MASK, (value >> 32) & MASK) if value else 0
    return tuple(hash >> shift & 31 for shift in range(0, 32, 5))


MASK = 0xFFFFFFFF


def _murmur3(*words: int) -> int:
    """Hashes 32-bit words with MurmurHash3 (A. Appleby, 2008), seed 0."""
    hash = 0
    for word in words:
        word = _rotate(word * 0xCC9E2D51 & MASK, 15) * 0x1B873593 & MASK
        hash = (_rotate(hash ^ word, 13) * 5 + 0xE6546B64) & MASK
    hash ^= 4 * len(words)
    hash = (hash ^ hash >> 16) * 0x85EBCA6B & MASK
    hash = (hash ^ hash >> 13) * 0xC2B2AE35 & MASK
    return hash ^ hash >> 16


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & MASK
