"""The generator of transactions, the same as Elle's (elle/txn.clj)."""

from __future__ import annotations

import random
from collections import Counter

from .workload import Settings

MicroOp = tuple[str, int, int | None]  # f, key and value; a read has no value yet


class Transactions:
    """Draws micro-operations: reads and writes, evenly.

    A few keys are active at a time, and the last of them are used most: the one at position i with
    a probability of 2^i / (2^N - 1). A key's writes are 1, 2, 3, ... A write to a key that has its
    maximum of writes replaces the key by a new one, and is drawn again.
    """

    def __init__(self, rng: random.Random, settings: Settings) -> None:
        self._rng = rng
        self._longest = settings.max_txn_length
        self._most_writes = settings.max_writes_per_key
        self._keys = [*range(settings.key_count)]
        self._written: Counter[int] = Counter()  # by key

    def draw(self, write: str) -> list[MicroOp]:
        """Draws a transaction. `write` is the f of a write."""
        return [self.micro_op(write) for _ in range(self._rng.randint(1, self._longest))]

    def micro_op(self, write: str) -> MicroOp:
        """Draws a micro-operation."""
        while True:
            place = (self._rng.randrange(1, 2 ** len(self._keys))).bit_length() - 1
            key = self._keys[place]
            if self._rng.random() < 0.5:
                return "r", key, None
            if self._written[key] < self._most_writes:
                self._written[key] += 1
                return write, key, self._written[key]
            self._keys[place] = max(self._keys) + 1
