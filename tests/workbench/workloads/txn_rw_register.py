"""txn-rw-register: transactions that write registers, and read them.

    {"type": "txn", "txn": [["r", 1, null], ["w", 1, 6], ["r", 2, null]]}
    {"type": "txn_ok", "txn": [["r", 1, 3], ["w", 1, 6], ["r", 2, null]]}

A transaction is a list of micro-operations. The reply has the same ones, and its reads have their
values, or null for a key without one. No value is written twice to a key. `--consistency-models`
names the models that the replies must satisfy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checkers import rw_register
from ..checkers.elle import Result
from ..record.history import Op
from ..verdicts import Results
from .transactional import Transactional


class TxnRwRegister(Transactional):
    """Sends transactions that write registers, and read them."""

    name = "txn-rw-register"
    write = "w"
    read = '["r", key, value]'

    def may_read(self, value: Any) -> bool:
        return True

    def judge(self, ops: Sequence[Op]) -> Result:
        return rw_register.check(ops, self.settings.consistency_models)

    def results(self, result: Result) -> Results:
        return rw_register.results(result)
