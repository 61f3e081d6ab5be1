"""A fake storage for raft.py's nodes in tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from raft import Entry, HardState, Log, Snapshot, State, Storage


class Remembered(Storage):
    """A fake storage, which has what it is given. All nodes are members."""

    durable = False  # nothing waits for it

    def __init__(
        self, term: int = 0, vote: str | None = None, entries: Iterable[Entry] = ()
    ) -> None:
        super().__init__("")
        self.index = 10**18
        self.hard, self.log = HardState(term, vote), Log(entries=entries)

    def open(
        self, node_id: str, node_ids: Sequence[str], random: Random
    ) -> tuple[HardState, Log, Snapshot]:
        self.log.mark_stable()
        return self.hard._replace(members=dict.fromkeys(node_ids, 0)), self.log, Snapshot()

    def save(self, hard: HardState, log: Log, state: State) -> None:
        log.mark_stable()
