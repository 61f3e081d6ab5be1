"""Stable storage: a node that comes back knows all that it acknowledged, or it does not start.

Nodes run in this process, on real SQLite files. A crash is a copy of the files at that moment.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from in_process import World
from test_raft import Scene, append, ask, entry, no_op, vote, write
from test_snapshot import ENTRY, KEPT, part
from workbench.simulation.simulated_cluster import Ended

import raft
from node import Body
from raft import (
    TICK,
    Entry,
    HardState,
    Log,
    Map,
    Memory,
    PersistentMap,
    Raft,
    Sessions,
    State,
    Storage,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft, "KEPT_BYTES", KEPT * ENTRY)
    monkeypatch.setattr(raft, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(raft, "CHECKPOINT_BYTES", 5000)  # five entries, or ten without operations


class Founded(Storage):
    """A storage whose new files are those of members, as if the cluster had been founded."""

    def _create(self, path: Path, me: dict[str, Any], hard: HardState) -> None:
        known = dict.fromkeys(me["node_ids"], 0)
        super()._create(path, me, hard._replace(incarnation=0, members=known))


class Disk:
    """A folder with nodes' files. `refuses(statement)` returns an error text, or ""."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refuses: Callable[[str], str] = lambda sql: ""
        self.statements: list[str] = []
        self.rows = Counter[str]()  # put, by table
        self.copies = 0
        self.lives = 0  # of nodes before: their clients have counted up their msg_ids

    def storage(self, kind: type[Storage] | None = None) -> Storage:
        storage = (kind or Founded)(str(self.folder))
        storage.connect = self.connect
        return storage

    def connect(self, path: str, **options: Any) -> Any:
        database = sqlite3.connect(path, factory=Watched, **options)
        database.disk = self
        return database

    def after_crash(self) -> Disk:
        """Returns a copy of the files, as a crash now would leave them."""
        self.copies += 1
        folder = self.folder.with_name(f"{self.folder.name}-{self.copies}")
        shutil.copytree(self.folder, folder)
        disk = Disk(folder)
        disk.lives = self.lives + 1
        return disk

    def commits(self) -> int:
        return self.statements.count("COMMIT")

    def is_full(self) -> None:
        self.fails("database or disk is full")

    def fails(self, why: str, at: str = "COMMIT") -> None:
        self.refuses = lambda sql: why if sql.startswith(at) else ""

    def works(self) -> None:
        self.refuses = lambda sql: ""


class Watched(sqlite3.Connection):
    """A database whose disk may have no room, or a fault."""

    disk: Disk

    def execute(self, sql: str, *words: Any) -> sqlite3.Cursor:
        self.disk.statements.append(sql)
        if why := self.disk.refuses(sql):
            raise sqlite3.OperationalError(why)
        if sql == "PRAGMA synchronous = full":
            sql = "PRAGMA synchronous = off"  # no test needs to wait for a real disk
        return super().execute(sql, *words)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        if why := self.disk.refuses(sql):
            raise sqlite3.OperationalError(why)
        rows = list(rows)
        self.disk.rows[sql.split()[4]] += len(rows)
        return super().executemany(sql, rows)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "data")


# Storage and Memory directly, without a node

NOTHING = State(0, PersistentMap(), Sessions())


def opened(disk: Disk) -> tuple[Storage, HardState, Log]:
    storage = disk.storage(Storage)
    hard, log, _ = storage.open("n0", ["n0", "n1"], Random(1))
    return storage, hard, log


def test_a_new_storage_has_an_empty_log_and_a_new_incarnation(disk: Disk) -> None:
    _, hard, log = opened(disk)
    assert log.size == 0 and hard == HardState(incarnation=hard.incarnation)
    assert hard.incarnation != 0


def test_a_storage_gives_back_the_hard_state_and_the_log(disk: Disk) -> None:
    storage, _, log = opened(disk)
    saved = HardState(3, "n1", 17, 0.0, 18, {"n0": 18, "n1": 17})
    log.append([Entry(1), Entry(3, "n1", 5, [["c1", 1, {"type": "read", "key": 1}]])])
    assert log.stable == 0
    storage.save(saved, log, NOTHING)
    assert log.stable == 2
    log.truncate(1)
    log.append([Entry(4), Entry(4)])
    storage.save(saved._replace(term=4), log, NOTHING)
    _, hard, found = opened(disk.after_crash())
    assert hard == saved._replace(term=4)
    assert [found[index].term for index in range(4)] == [0, 1, 4, 4] and found.stable == 3


def test_a_storage_gives_back_the_state_of_its_last_checkpoint(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft, "CHECKPOINT_BYTES", 1)
    storage, hard, log = opened(disk)
    write = {"type": "write", "key": "x", "value": 1}
    log.append([Entry(1, "n0", 1, [["c1", 1, write]])])
    sessions = Sessions()
    state, _ = sessions.apply(Map(), log[1].operations)
    storage.save(hard, log, State(1, state.map, sessions))
    assert storage.index == 1
    _, _, snapshot = disk.after_crash().storage(Storage).open("n0", ["n0", "n1"], Random(1))
    assert (snapshot.index, [*snapshot.map.items()]) == (1, [("x", 1)])
    assert snapshot.sessions == [["c1", 1, {"type": "write_ok"}]]


def test_memory_takes_each_entry_for_stable_and_needs_no_log() -> None:
    memory = Memory()
    hard, log, snapshot = memory.open("n0", ["n0"], Random(1))
    assert (log.size, snapshot.size, memory.durable) == (0, 0, False)
    assert hard.incarnation != memory.open("n0", ["n0"], Random(2))[0].incarnation
    log.append([Entry(1)])
    memory.save(hard, log, NOTHING)
    assert log.stable == 1 and memory.index > 1 << 53


# Nodes with files


def follower(disk: Disk) -> Scene:
    """n1 of n0, n1, n2."""
    return Scene("n1", storage=disk.storage())


def lone(disk: Disk) -> Scene:
    """The only node there is; it leads."""
    scene = Scene("n0", 1, storage=disk.storage())
    scene.world.count_from(disk.lives * 100_000)
    scene.world.until(lambda: scene.raft.role == "leader")
    scene.advance(2 * raft.TICK)
    return scene


def written(disk: Disk, count: int, keys: int = 3) -> Scene:
    scene = lone(disk)
    for value in range(count):
        assert scene.answer(scene.request(write(value, f"k{value % keys}"))) == {"type": "write_ok"}
    return scene


def known(node: Raft, applied: int | None = None) -> dict[str, Any]:
    """All that a node must not forget, with so much of its log applied."""
    if applied is not None:
        node.commit_index = applied
        node.advance_state_machine()
    log = node.log
    return {
        "term": node.term, "vote": node.voted_for, "applied": node.last_applied,
        "log": [list(log[index]) for index in range(max(log.start, 0) + 1, log.size + 1)],
        "map": sorted(map(json.dumps, node.state_machine.map.items())),
        "sessions": sorted(map(json.dumps, node.sessions.records())),
    }  # fmt: skip


def as_it_was(scene: Scene, disk: Disk) -> None:
    """A node that ends now comes back with all that this one knows."""
    before = known(scene.raft)
    other = Scene(scene.node_id, len(scene.peers) + 1, storage=disk.after_crash().storage())
    after = known(other.raft, scene.raft.last_applied)
    more = len(after["log"]) - len(before["log"])  # it may have more of the past
    assert more >= 0
    after["log"] = after["log"][more:]
    assert after == before


# Kept state


@pytest.mark.parametrize("most", [1, 3], ids=["single", "batches"])
@pytest.mark.parametrize("seed", range(4))
def test_all_is_as_it_was_after_the_end_of_any_turn(disk: Disk, seed: int, most: int) -> None:
    rng, scene = Random(seed), follower(disk)
    term, log, commit, msg_id = 0, list[Any](), 0, 0
    for _ in range(60):
        scene.advance(1.0)  # no promise binds
        match rng.choice(["append", "append", "append", "vote", "conflict", "snapshot"]):
            case "vote":
                term = scene.raft.term + 1
                scene.says("n2", ask(term, (1000, term - 1)))
                assert scene.raft.voted_for == "n2"
                as_it_was(scene, disk)
                continue
            case "conflict":
                log = log[: rng.randint(commit, len(log))]
            case "snapshot":
                index = len(log) + rng.randint(1, 3)
                term = scene.raft.term + 1
                items = dict(scene.raft.state_machine.map.items())
                items |= {"k0": [index], f"s{index}": index}
                done = {"type": "write_ok"}
                sessions = [*scene.raft.sessions.records(), ("c9", index, done)]
                data = [*map(list, {record[0]: record for record in sessions}.values()),
                        *map(list, items.items())]  # fmt: skip
                scene.says("n0", part(data, index, 0, len(data), term, term))
                assert scene.raft.last_applied == index
                log, commit = [no_op(term)] * index, index
                as_it_was(scene, disk)
                continue
        term = scene.raft.term + 1
        previous = (len(log), log[-1][0] if log else 0)
        new = []
        for _ in range(rng.randint(1, 4)):
            operations = []
            for _ in range(rng.randint(1, most)):
                msg_id += 1
                operations.append(["c1", msg_id, write(msg_id, f"k{rng.randrange(3)}")])
            new.append([term, "n0", msg_id, operations])
        log += new
        commit = rng.randint(commit, len(log))
        scene.says("n0", append(term, previous, new, commit))
        assert scene.raft.log.size == len(log) and scene.raft.commit_index == commit
        as_it_was(scene, disk)


def test_what_cannot_be_stored_does_not_leave(disk: Disk) -> None:
    scene = follower(disk)
    disk.fails("no")
    with pytest.raises(Ended):
        scene.says("n2", ask(1))
    assert not scene.world.inbox


def test_what_comes_before_init_is_stored_and_no_failure_is_seen_in_that(disk: Disk) -> None:
    world = World()
    world.add("n0", lambda node: Raft(node, storage=disk.storage()))
    msg_id = world.request("n0", write(1))
    assert not world.nodes["n0"].log_lines  # there is no file yet
    world.init()
    world.advance(2 * raft.TICK)
    assert world.answer(msg_id) == {"type": "write_ok"}


def test_what_leaves_is_committed_before(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = follower(disk)
    commits: list[int] = []
    monkeypatch.setattr(
        scene.node, "_write", lambda data: commits.append(disk.commits()) if data else None
    )
    before = disk.commits()
    scene.says("n2", ask(1))
    scene.says("n0", append(2, entries=[no_op(2)]))
    assert commits == [before + 1, before + 2]
    assert "PRAGMA synchronous = full" in disk.statements


def test_a_log_whose_first_entries_are_forgotten_can_still_be_cut(disk: Disk) -> None:
    scene = follower(disk)
    entries = [entry(1, number) for number in range(1, 13)]
    scene.says("n0", append(1, entries=entries, commit=10))
    scene.advance(3 * raft.TICK)  # a checkpoint, then the log is cut
    assert 0 < scene.raft.log.start < 10
    scene.says("n0", append(scene.raft.term + 1, (10, 1), [no_op(scene.raft.term + 1)]))
    assert scene.raft.log.size == 11
    as_it_was(scene, disk)


def test_what_comes_in_several_messages_of_one_turn_is_kept(disk: Disk) -> None:
    scene = follower(disk)
    first = append(1, entries=[entry(1, 1)])
    scene.says("n0", first, append(1, (1, 1), [entry(1, 2)], sent=0.1))
    assert scene.raft.log.size == 2
    as_it_was(scene, disk)


def test_another_entry_in_the_place_of_the_last_one_is_kept(disk: Disk) -> None:
    """The log is as long as before, and the term and the vote are on the disk already."""
    scene = follower(disk)
    scene.says("n0", append(1, entries=[entry(1, 1), entry(1, 2)]))
    scene.advance(1.0)  # no promise binds
    scene.says("n2", ask(2, (2, 1)))
    scene.says("n2", append(2, (1, 1), [entry(2, 3)]))
    assert scene.terms == [1, 2]
    as_it_was(scene, disk)


def leader(disk: Disk) -> Scene:
    """n0 leads term 1 of n0, n1 and n2; all have its first entry, on the disk, too."""
    scene = Scene("n0", storage=disk.storage())
    for peer in scene.peers:
        scene.says(peer, vote(1))
    assert scene.raft.role == "leader"
    scene.acks(*scene.peers)
    assert scene.raft.commit_index == 1
    return scene


def test_10_2_1_a_leaders_entries_leave_before_they_are_on_its_disk(disk: Disk) -> None:
    """And it does not count itself before: with one of two followers there is no majority."""
    scene = leader(disk)
    commits = disk.commits()
    request = scene.request(write(1))
    scene.acks("n1")  # so it was sent
    assert scene.raft.commit_index == 1 and scene.answer(request) is None
    scene.acks("n2")
    assert scene.raft.commit_index == 2 and disk.commits() == commits
    assert scene.answer(request) == {"type": "write_ok"}


def test_10_2_1_with_the_next_tick_they_are_and_then_it_counts_itself(disk: Disk) -> None:
    scene = leader(disk)
    request = scene.request(write(1))
    scene.acks("n1")
    scene.advance(raft.TICK)
    assert scene.answer(request) == {"type": "write_ok"}
    assert known(scene.raft, 2)["log"] == known(follower_of(disk), 2)["log"]


def follower_of(disk: Disk) -> Raft:
    """The node n0 as it comes back."""
    return Scene("n0", storage=disk.after_crash().storage()).raft


def test_10_2_1_who_cannot_do_without_its_own_disk_writes_at_once(disk: Disk) -> None:
    """The followers that are heard are no majority."""
    scene = leader(disk)
    scene.advance(scene.raft.times.timeout)
    scene.acks("n1")
    request = scene.request(write(1))
    scene.acks("n1")
    assert scene.answer(request) == {"type": "write_ok"}
    assert known(scene.raft, 2)["log"] == known(follower_of(disk), 2)["log"]


def test_10_2_1_a_leader_whose_disk_is_full_ends_with_the_next_tick(disk: Disk) -> None:
    """Entries that the others had on their disks before are committed all the same."""
    scene = leader(disk)
    disk.is_full()
    before = scene.request(write(1))
    scene.acks(*scene.peers)
    assert scene.answer(before) == {"type": "write_ok"}
    with pytest.raises(Ended):
        scene.advance(raft.TICK)


def test_10_2_1_a_leaders_term_and_vote_are_on_its_disk_before_anything_leaves(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene("n0", storage=disk.storage())
    kept: list[tuple[int, int]] = []

    def leaves(data: bytes) -> None:
        if b"append_entries" in data:
            found = follower_of(disk)
            kept.append((found.term, found.log.size))

    monkeypatch.setattr(scene.node, "_write", leaves)
    for peer in scene.peers:
        scene.says(peer, vote(1))
    assert kept == [(1, 1)]


def test_a_node_that_comes_back_votes_for_nobody_else_in_its_term(disk: Disk) -> None:
    scene = follower(disk)
    scene.says("n2", ask(5))
    assert scene.sent("request_vote_res", "n2")[-1]["granted"]
    other = follower(disk.after_crash())
    other.says("n0", ask(5))
    assert not other.sent("request_vote_res", "n0")[-1]["granted"]
    other.says("n2", ask(5))
    assert other.sent("request_vote_res", "n2")[-1]["granted"]


@pytest.mark.parametrize("timeouts", [[4.0], [4.0, 0.3], [0.3, 4.0]])
def test_a_node_that_comes_back_keeps_the_promise_that_a_lease_may_count_on(
    disk: Disk, timeouts: list[float]
) -> None:
    scene = follower(disk)
    appends = (append(1, timeout=timeout, sent=-timeout) for timeout in timeouts)
    scene.says("n0", *appends)  # in one turn
    scene = follower(disk.after_crash())
    scene.advance(3.99)
    scene.says("n2", ask(2))
    assert not scene.sent("request_vote_res", "n2")[-1]["granted"]
    scene.advance(10.0)
    scene.says("n2", ask(20))
    assert scene.sent("request_vote_res", "n2")[-1]["granted"]


def test_a_promise_of_long_ago_does_not_bind_for_ever(disk: Disk) -> None:
    scene = follower(disk)
    scene.says("n0", append(1, timeout=60.0))
    scene.advance(100.0)
    term = scene.raft.term + 1
    scene.says("n0", append(term, entries=[no_op(term)] * 10, commit=10))
    scene.advance(raft.TICK)
    assert scene.raft.storage and scene.raft.storage.index == 10
    scene = follower(disk.after_crash())
    scene.advance(1.0)
    scene.says("n2", ask(term + 1, (10, term)))
    assert scene.sent("request_vote_res", "n2")[-1]["granted"]


def test_a_promise_does_not_grow_with_each_new_start(disk: Disk) -> None:
    scene = follower(disk)
    for life in range(12):
        entries = [no_op(life + 1) for _ in range(12)]
        scene.says("n0", append(life + 1, (12 * life, life), entries, 12 * life + 12))
        scene.advance(raft.TICK)
        assert scene.raft.storage and scene.raft.storage.index == 12 * life + 12
        disk = disk.after_crash()
        scene = follower(disk)
        assert scene.raft.promise - scene.node.now() < 2.0


def test_a_lone_node_that_comes_back_serves(disk: Disk) -> None:
    written(disk, 13)
    scene = lone(disk.after_crash())
    assert scene.answer(scene.request({"type": "read", "key": "k0"})) == {
        "type": "read_ok", "value": 12,
    }  # fmt: skip
    assert scene.answer(scene.request(write(1, "new"))) == {"type": "write_ok"}


def test_a_checkpoint_writes_what_has_changed_since_the_last_one(disk: Disk) -> None:
    scene = written(disk, 39, keys=30)
    scene.advance(raft.TICK)
    assert scene.raft.storage and scene.raft.storage.index == 40
    disk.rows.clear()
    for value in range(5):
        scene.request(write(value, f"k{value % 2}"))
    scene.advance(raft.TICK)
    assert scene.raft.storage.index == 45
    assert disk.rows == {"entry": 5, "state": 6, "item": 2, "session": 1}


def test_a_checkpoint_cuts_the_log(disk: Disk) -> None:
    scene = written(disk, 60)
    scene.advance(1.0)  # the log is cut
    for value in range(6):
        scene.request(write(value))  # then comes a checkpoint
    scene = written(disk_after := disk.after_crash(), 5)
    log = scene.raft.log
    tables = sqlite3.connect(disk_after.after_crash().folder / "n0.db")
    assert log.start >= 50
    (entries,) = tables.execute("SELECT count(*) FROM entry").fetchone()
    assert entries <= 4 * KEPT
    tables.close()


def test_a_node_comes_back_whose_entries_had_operations_of_several_clients(disk: Disk) -> None:
    scene, entries = follower(disk), []
    for number in range(1, 9):
        writes = [[f"c{client}", number, write(number)] for client in range(3)]
        entries.append([1, "n0", number, writes])
    scene.says("n0", append(1, entries=entries, commit=8))
    scene.advance(raft.TICK)
    assert scene.raft.storage and scene.raft.storage.index == 8
    as_it_was(scene, disk)


def test_the_log_is_not_cut_before_there_is_a_checkpoint(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft, "CHECKPOINT_BYTES", 20 * ENTRY)
    scene = written(disk, 19)
    scene.advance(1.0)
    assert scene.raft.storage and scene.raft.storage.index == scene.raft.log.start == 0


@pytest.mark.parametrize("table", ["item", "session", "state"])
def test_a_checkpoint_that_ends_in_its_midst_leaves_the_one_before(disk: Disk, table: str) -> None:
    scene = written(disk, 10)  # the next one brings a checkpoint
    before = known(scene.raft)
    disk.fails("no", f"INSERT OR REPLACE INTO {table}")
    with pytest.raises(Ended):
        for value in range(6):
            scene.request(write(value, "late"))
            before = known(scene.raft)
    after = known(lone(disk.after_crash()).raft)
    assert after["map"] == before["map"] and after["sessions"] == before["sessions"]


def test_nothing_is_written_while_nothing_changes(disk: Disk) -> None:
    scene = follower(disk)
    scene.says("n0", append(1, entries=[no_op(1)], commit=1))
    commits, rows = disk.commits(), disk.rows.total()
    for _ in range(50):
        scene.advance(0.1)
        scene.says("n0", append(1, (1, 1), commit=1))
    assert (disk.commits(), disk.rows.total()) == (commits, rows)


def test_a_small_disk_holds_a_small_store_however_often_it_is_written(disk: Disk) -> None:
    """2 MB are enough: SQLite's own -wal file does not fill them, nor does the log."""
    scene = lone(disk)
    for value in range(3000):
        assert scene.answer(scene.request(write(value, value % 20))) == {"type": "write_ok"}
        if value % 50 == 0:
            scene.advance(raft.TICK)
    assert sum(path.stat().st_size for path in disk.folder.iterdir()) < 2_000_000


# Refused files


def refused(disk: Disk, node_id: str = "n0", nodes: int = 1) -> str:
    """Why a node does not start; it says so in one line, and no init_ok."""
    world = World()
    for number in range(nodes):
        world.add(f"n{number}", lambda node: Raft(node, storage=disk.storage()))
    body = {"type": "init", "node_id": node_id, "node_ids": list(world.nodes)}
    with pytest.raises(Ended) as ended:
        world.request(node_id, body)
    assert not world.inbox and not world.mail
    cause = ended.value.__cause__
    assert isinstance(cause, SystemExit) and isinstance(cause.code, str)
    assert "\n" not in cause.code and "cannot be used: " in cause.code
    assert cause.code.startswith(str(disk.folder))
    return cause.code


def sound(disk: Disk, **changes: Any) -> Path:
    """A node's file, closed in peace; with other values in its state, if any are given."""
    scene = written(disk, 40)
    database: Any = scene.raft.storage and scene.raft.storage._db
    if changes:
        storage: Any = scene.raft.storage
        storage._put("state", [(0, storage._saved | changes)])
    database.close()
    return disk.folder / "n0.db"


def test_a_file_of_another_node_is_refused(disk: Disk) -> None:
    sound(disk).rename(disk.folder / "n1.db")
    assert "its node_id is n0, and this is n1" in refused(disk, "n1", 2)


def test_a_file_of_another_cluster_is_refused(disk: Disk) -> None:
    sound(disk)
    assert "its node_ids is ['n0'], and this is ['n0', 'n1', 'n2']" in refused(disk, nodes=3)


@pytest.mark.parametrize("which", ["min", "max"])
@pytest.mark.parametrize("table", ["entry", "item", "session"])
def test_a_file_that_lacks_a_row_is_refused(disk: Disk, table: str, which: str) -> None:
    path = sound(disk)
    with sqlite3.connect(path) as database:
        database.execute(f"DELETE FROM {table} WHERE key = (SELECT {which}(key) FROM {table})")
    database.close()
    assert "it is damaged: something is missing" in refused(disk)


def test_a_file_of_a_newer_format_is_refused(disk: Disk) -> None:
    sound(disk, format=99)
    assert "its format is 99, and this is 6" in refused(disk)


@pytest.mark.parametrize("content", [b"", b"\0", b"not a database" * 1000])
def test_a_file_that_is_no_database_is_refused_and_stays(disk: Disk, content: bytes) -> None:
    disk.folder.mkdir()
    path = disk.folder / "n0.db"
    path.write_bytes(content)
    refused(disk)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_or_written_is_refused(disk: Disk, tmp_path: Path) -> None:
    disk.folder.write_text("a file")
    assert "exists" in refused(disk).lower()
    disk = Disk(tmp_path / "readonly")
    sound(disk)
    disk.fails("attempt to write a readonly database", "INSERT")
    assert "readonly" in refused(disk)


def test_a_link_to_a_file_that_is_away_is_no_new_node(disk: Disk, tmp_path: Path) -> None:
    path = sound(disk)
    path.rename(tmp_path / "n0.db")
    path.symlink_to(tmp_path / "n0.db")
    through_it = lone(disk)
    assert through_it.raft.storage
    through_it.raft.storage._db.close()
    (tmp_path / "n0.db").rename(tmp_path / "away")
    assert refused(disk)
    assert path.is_symlink()


@pytest.mark.parametrize("missing", ["", "a", "a/b", "a/b/c"])
def test_the_names_of_new_files_and_folders_are_on_the_disk_and_no_others_are_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    synced: list[int] = []
    system_fsync = os.fsync

    def note(handle: int) -> None:
        assert (tmp_path / missing / "n0.db").exists()  # else it is not its name that is kept
        synced.append(os.fstat(handle).st_ino)
        system_fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    lone(Disk(tmp_path / missing))
    folders = [Path(missing), *(Path(missing).parents if missing else [])]
    assert sorted(synced) == sorted((tmp_path / folder).stat().st_ino for folder in folders)


def test_a_second_node_on_the_same_file_is_refused_and_the_first_goes_on(disk: Disk) -> None:
    scene = written(disk, 8)
    assert "locked" in refused(Disk(disk.folder))
    assert scene.answer(scene.request(write(1))) == {"type": "write_ok"}


def test_an_older_copy_of_the_file_is_refused(disk: Disk) -> None:
    scene = written(disk, 8)
    older = disk.after_crash().folder
    scene.request(write(1))
    later = disk.after_crash()
    for path in older.glob("n0.db*"):
        shutil.copy(path, later.folder)
    assert "lacks" in refused(later)


def test_a_new_file_takes_nothing_from_what_is_left_of_one_that_was_moved_away(disk: Disk) -> None:
    scene = written(disk, 8)
    later = disk.after_crash()
    (later.folder / "n0.db").unlink()
    assert (later.folder / "n0.db-wal").stat().st_size > 0
    scene = lone(later)
    assert scene.raft.log.size == 1 and scene.value is None
    as_it_was(scene, later)


def outcome(path: Path, expected: dict[str, Any]) -> str:
    """The fate of a node on such a file; it either knows all or is refused."""
    storage = Disk(path.parent).storage()
    node: Raft = World().add("n0", lambda node: Raft(node, storage=storage))
    try:
        hard, node.log, snapshot = storage.open("n0", ["n0"], Random(1))
    except SystemExit as end:
        assert isinstance(end.code, str) and "\n" not in end.code, repr(end)
        return "refused"
    node.term, node.voted_for = hard.term, hard.voted_for
    node.install(snapshot)
    storage._db.close()
    assert known(node) == expected
    return "taken"


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a node that was killed: a database and a -wal file, both with a past."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raft, "CHECKPOINT_BYTES", 200 * ENTRY)
        patch.setattr(raft, "KEPT_BYTES", 20 * ENTRY)
        patch.setattr(raft, "KEPT_ENTRIES", 0)
        disk = Disk(tmp_path_factory.mktemp("big") / "data")
        scene = lone(disk)
        for value in range(2222):
            scene.request(write(value, f"k{value % 50}"))
            if value % 50 == 0:
                scene.advance(raft.TICK)
        sound = disk.after_crash()
        other = Scene("n0", 1, storage=sound.after_crash().storage())
        assert scene.raft.log.start > 0 and other.raft.last_applied == 2200
        return sound.folder, known(other.raft)


def damaged(sound: Path, name: str, change: Callable[[bytearray], object], to: Path) -> Path:
    """A copy of a node's folder with one of its files changed."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(sound, to)
    content = bytearray((to / name).read_bytes())
    change(content)
    (to / name).write_bytes(content)
    return to / "n0.db"


def flip(place: int, bits: int) -> Callable[[bytearray], object]:
    def change(content: bytearray) -> None:
        content[place] ^= bits

    return change


def cut(length: int) -> Callable[[bytearray], object]:
    return lambda content: content.__delitem__(slice(length, None))


@pytest.mark.parametrize("kind", ["closed", "database", "wal"])
def test_damage_is_noticed_or_does_no_harm(
    big: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, expected = big
    name = "n0.db-wal" if kind == "wal" else "n0.db"
    if kind == "closed":
        folder = shutil.copytree(folder, tmp_path / "closed")
        closing = sqlite3.connect(folder / name)
        closing.execute("SELECT * FROM state").fetchall()
        closing.close()
        assert not (folder / "n0.db-wal").exists()
    size = (folder / name).stat().st_size
    assert size > 8000
    rng = Random(f"damage {kind}")
    flips, cuts = (1000, 50) if kind == "closed" else (200, 20)
    places = [*range(100), *(rng.randrange(size) for _ in range(flips))]
    changes = [flip(place, rng.randrange(1, 256)) for place in places]
    changes += [cut(rng.randrange(size)) for _ in range(cuts)]
    outcomes = Counter(
        outcome(damaged(folder, name, change, tmp_path / "copy"), expected) for change in changes
    )
    assert outcomes["taken"] > 5
    assert kind == "database" or outcomes["refused"] > 5  # the -wal file has all that matters


def test_a_count_of_commits_that_was_lost_says_nothing(disk: Disk) -> None:
    """The count is not synced: after a loss of power a file system may have zeros in its place."""
    scene = written(disk, 3)
    other = disk.after_crash()
    (other.folder / "n0.commits").write_bytes(bytes(20))
    assert known(lone(other).raft)["map"] == known(scene.raft)["map"]


# A disk that is full


@pytest.mark.parametrize(
    "why", ["database or disk is full", "disk I/O error", "attempt to write a readonly database"]
)
@pytest.mark.parametrize("at", ["COMMIT", "BEGIN", "INSERT", "DELETE"])
def test_a_node_that_cannot_store_something_ends_and_nothing_of_that_turn_leaves(
    disk: Disk, why: str, at: str
) -> None:
    scene = written(disk, 3)
    disk.fails(why, at)
    acknowledged = 0
    with pytest.raises(Ended) as ended:
        for value in range(6):
            assert scene.answer(scene.request(write(value, "lost"))) == {"type": "write_ok"}
            acknowledged += 1
    assert acknowledged == (1 if at == "DELETE" else 0) and not scene.world.inbox
    (line,) = str(ended.value.__cause__).splitlines()
    assert line.startswith(f"{disk.folder}/n0.db cannot be written: {why}. ")
    assert "start the node again" in line
    as_it_was_stored(scene, disk)


def as_it_was_stored(scene: Scene, disk: Disk) -> None:
    """A node that starts anew has all that was acknowledged before the failure."""
    scene.raft.log.truncate(scene.raft.last_applied)
    as_it_was(scene, disk)


def test_a_failure_that_has_no_text_is_one_too(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = written(disk, 3)

    def fail(*saved: object) -> None:
        raise MemoryError

    monkeypatch.setattr(scene.raft.storage, "_save", fail)
    with pytest.raises(Ended, match="cannot be written: MemoryError"):
        scene.request(write(1))


def test_a_tick_that_cannot_store_something_ends_the_node_too(disk: Disk) -> None:
    """Other exceptions of timers are logged, and the node goes on."""
    scene = leader(disk)
    scene.request(write(1))
    disk.is_full()
    with pytest.raises(Ended, match="disk is full"):
        scene.advance(2 * TICK)


def test_a_state_that_has_come_and_cannot_be_stored_is_asked_for_again(disk: Disk) -> None:
    scene = follower(disk)
    disk.is_full()
    with pytest.raises(Ended):
        scene.says("n0", part([["x", 1]], index=1000, size=1))
    disk.works()
    scene = follower(disk.after_crash())
    assert scene.raft.commit_index == 0


def test_a_database_that_has_no_room_keeps_all_that_was_acknowledged(disk: Disk) -> None:
    scene = written(disk, 3)
    database: Any = scene.raft.storage and scene.raft.storage._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    acknowledged = []
    with pytest.raises(Ended):
        for number in range(20):
            if scene.answer(scene.request(write("x" * 1000, number))) == {"type": "write_ok"}:
                acknowledged.append(number)
    after = known(lone(disk.after_crash()).raft)
    assert {json.dumps([number, "x" * 1000]) for number in acknowledged} <= {*after["map"]}


# Processes


def start(folder: Path, node_id: str = "n0") -> subprocess.CompletedProcess[str]:
    """A process that gets an init, and then the end of its input."""
    body: Body = {"type": "init", "msg_id": 1, "node_id": node_id, "node_ids": ["n0"]}
    init = json.dumps({"src": "c1", "dest": node_id, "body": body})
    command = [sys.executable, str(ROOT / "raft.py"), "--data-dir", str(folder)]
    return subprocess.run(command, input=f"{init}\n", capture_output=True, text=True)


def test_a_process_ends_with_status_1_and_says_which_file_and_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert start(data).returncode == 0
    (data / "n0.db").write_bytes(b"")
    done = start(data)
    assert done.returncode == 1 and done.stdout == ""
    assert str(data / "n0.db") in done.stderr and "move it away" in done.stderr
    assert "Traceback" not in done.stderr
    assert (data / "n0.db").read_bytes() == b""


def test_an_empty_name_is_no_folder() -> None:
    command = [sys.executable, str(ROOT / "raft.py"), "--data-dir", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 2 and "--data-dir needs the name of a folder" in done.stderr


def test_a_process_that_shares_its_file_ends_with_status_1(disk: Disk) -> None:
    scene = written(disk, 1)
    done = start(disk.folder)
    assert done.returncode == 1 and done.stdout == "" and "locked" in done.stderr
    assert scene.answer(scene.request(write(2))) == {"type": "write_ok"}
