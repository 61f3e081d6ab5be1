"""The workloads, one file each: the clients' operations, and the check of the nodes' answers.

A workload's docstring shows its requests and answers. Its class follows the protocol `Workload`:
`next` generates operations, `converse` carries them out by requests, and `check` judges the
history. A workload with one request for each operation extends `Plain`: `request` turns an
operation into a request, and `complete` turns an answer into a completion. `Usual` has the usual
rest. To add a workload, write such a file and register its class here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from ..checkers.verdict import Verdict
from ..reasons import of_part
from ..record.history import Op, clients, operations
from ..verdicts import UNKNOWN, VALID
from .broadcast import Broadcast
from .echo import Echo
from .g_counter import GCounter
from .g_set import GSet
from .kafka import Kafka
from .lin_kv import LinKv
from .pn_counter import PnCounter
from .txn_list_append import TxnListAppend
from .txn_rw_register import TxnRwRegister
from .unique_ids import UniqueIds
from .workload import Settings, Workload

# By the argument of -w. A workload is made from a random generator and its settings.
WORKLOADS: Mapping[str, Callable[[random.Random, Settings], Workload]] = {
    "lin-kv": LinKv,
    "echo": Echo,
    "unique-ids": UniqueIds,
    "broadcast": Broadcast,
    "g-set": GSet,
    "g-counter": GCounter,
    "pn-counter": PnCounter,
    "txn-list-append": TxnListAppend,
    "txn-rw-register": TxnRwRegister,
    "kafka": Kafka,
}


def judge(name: str, ops: Sequence[Op], settings: Settings | None = None) -> Verdict:
    """Checks a history of this workload. Raises HistoryError if it is none."""
    operations(clients(ops))  # each completion has its invocation
    workload = WORKLOADS[name](random.Random(), settings or Settings())
    results = workload.check(ops)
    valid = None if results[VALID] == UNKNOWN else results[VALID]
    why = [] if valid is True else of_part("workload", results)
    return Verdict(valid, results, why, workload.warnings)
