"""txn-list-append: transactions that append to lists, and read whole lists.

    {"type": "txn", "txn": [["r", 1, null], ["append", 1, 6], ["r", 2, null]]}
    {"type": "txn_ok", "txn": [["r", 1, [3, 5]], ["append", 1, 6], ["r", 2, null]]}

A transaction is a list of micro-operations. The reply has the same ones, and its reads have their
values: whole lists, or null for a key without a list. No element is appended twice to a key.
`--consistency-models` names the models that the replies must satisfy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checkers import list_append
from ..checkers.elle import Result
from ..record.history import Op
from .transactional import Transactional


class TxnListAppend(Transactional):
    """Sends transactions that append to lists, and read them."""

    name = "txn-list-append"
    write = "append"
    read = '["r", key, list]'

    def may_read(self, value: Any) -> bool:
        return value is None or isinstance(value, list)

    def judge(self, ops: Sequence[Op]) -> Result:
        return list_append.check(ops, self.settings.consistency_models)
