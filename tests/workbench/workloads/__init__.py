"""What clients do, and what the nodes' answers mean: one file for each workload.

A workload's docstring shows requests and answers; its class is what `workload` says: `next`
generates operations, `request` and `complete` turn one into a request and its answer into a
completion, `check` judges them all. To add one, write that file and register it here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from .echo import Echo
from .lin_kv import LinKv
from .workload import Workload

# By the names of -w; made of the workload's own chance and the number of nodes.
WORKLOADS: Mapping[str, Callable[[random.Random, int], Workload]] = {
    "lin-kv": LinKv,
    "echo": Echo,
}
