"""Runs raft.py with a counter of its event loop's turns, and with keys in its map from the start.

    counted.py KEYS ARGS...

runs `raft.py ARGS...`. Its last line on stderr is `turns` and their number. Each node starts with
the same keys, 0 to KEYS - 1, because writing a million keys by clients would take a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import raft
from node import Node

TURNS = "turns "


def main() -> None:
    keys = int(sys.argv.pop(1))
    turns = 0
    turn = Node._turn

    def counted(self: Node, action: Callable[..., object], *args: Any) -> None:
        nonlocal turns
        turns += 1
        turn(self, action, *args)

    class Loaded(raft.Raft):
        def init(self) -> bool:
            # The map must be created after main's gc.freeze(), so that the garbage collector scans
            # it as in real runs.
            self.state_machine = raft.Map(dict.fromkeys(range(keys), 0))
            return super().init()

    Node._turn = counted  # type: ignore[method-assign]
    raft.Raft = Loaded  # type: ignore[misc]
    raft.main()
    print(f"{TURNS}{turns}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
