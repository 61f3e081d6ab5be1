"""The rooms of raft.py keep apart: a room changes its own fields only, and does not know Raft."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import raft

TREE = ast.parse(Path(raft.__file__).read_text())
ROOMS = (
    "Log", "Follower", "Clients", "Sessions", "Members", "Times", "Snapshot", "Memory", "Storage",
)  # fmt: skip
# Leading, Following and Batch are plain records, which Raft fills. It calls them by these names.
RECORDS = {"self.leading", "leading", "self.following", "following", "batch"}
# PersistentMap.set makes a version, and fills it.
OWN_KIND = {("PersistentMap", "newest")}
ALLOWED = set[str]()
CHANGES = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
    "popleft", "remove", "setdefault", "sort", "update",
}  # fmt: skip


def changed(node: ast.AST) -> ast.Attribute | None:
    """Returns the field that a node of the tree assigns or deletes, or changes by a call."""
    place: ast.AST = node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        place = node.func.value if node.func.attr in CHANGES else node
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Load):
        return None
    while isinstance(place, ast.Subscript):
        place = place.value
    return place if isinstance(place, ast.Attribute) else None


def foreign_changes(tree: ast.Module) -> Iterator[str]:
    """Yields each change of another object's field, as "class: field".

    The check reads the text alone. It misses a change through a local name of a field's value.
    """
    for room in tree.body:
        name = room.name if isinstance(room, ast.ClassDef) else ""
        for node in ast.walk(room):
            if field := changed(node):
                owner = ast.unparse(field.value)
                if owner not in {"self", *RECORDS} and (name, owner) not in OWN_KIND:
                    yield f"{name}: {ast.unparse(field)}"


def mentions(room: ast.ClassDef) -> set[str]:
    """Returns the names and fields by which a class mentions Raft or the node."""
    names = {node.id for node in ast.walk(room) if isinstance(node, ast.Name)}
    fields = {node.attr for node in ast.walk(room) if isinstance(node, ast.Attribute)}
    return (names | fields) & {"Raft", "Server", "Node", "node", "raft"}


def test_a_field_is_changed_by_its_own_class_alone() -> None:
    assert {*foreign_changes(TREE)} == ALLOWED


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_mentions_neither_raft_nor_the_node(name: str) -> None:
    (room,) = [one for one in TREE.body if isinstance(one, ast.ClassDef) and one.name == name]
    assert not mentions(room)


@pytest.mark.parametrize(
    "statement",
    [
        "self.clients.seq = 1", "self.clients.seq += 1", "follower.base, x = 1, 2",
        "del self.log._entries[3]", "self.members.known['n1'] = 2", "one.snapshot.index: int = 3",
        "self.times._samples.append(0.1)", "batch.x.y = 1", "self.leading.followers['n1'].base = 1",
    ],
)  # fmt: skip
def test_a_change_from_outside_is_found(statement: str) -> None:
    assert [*foreign_changes(ast.parse(f"class Raft:\n    def f(self): {statement}"))]


@pytest.mark.parametrize("use", ["self.node.now()", "Raft.send(1)", "x: Node = None"])
def test_a_mention_is_found(use: str) -> None:
    (room,) = ast.parse(f"class Room:\n    def f(self): {use}").body
    assert isinstance(room, ast.ClassDef) and mentions(room)
