"""Checks that no two `generate` operations return the same id.

Only ok operations count. Ids are compared as in Clojure: 1, 1.0 and "1" are three ids, and two
nulls are one id twice. Jepsen's checker crashes on ids without an order, such as 1 and "a", because
it reports their range; here `:range` is then nil, and the ids are judged all the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cmp_to_key
from typing import Any

from ..record.history import Op
from .clojure import compare, identity, in_order, map_key
from .verdict import Verdict, at, limited, results, show

DUPLICATES_KEPT = 48


def check(ops: Sequence[Op]) -> Verdict:
    """Judges a history of unique-ids."""
    generated = [op for op in ops if op.f == "generate"]
    acknowledged = [op for op in generated if op.type == "ok"]
    owners: dict[Hashable, list[Op]] = {}  # completions that returned the id
    for op in acknowledged:
        owners.setdefault(identity(op.value), []).append(op)
    duplicated = [same for same in owners.values() if len(same) > 1]
    warnings = []
    try:
        span = _range([op.value for op in acknowledged])
    except TypeError as error:
        span = None
        warnings.append(f":range is nil: {error}. Jepsen's checker crashes on such ids.")
    most = sorted(duplicated, key=len, reverse=True)[:DUPLICATES_KEPT]
    most = in_order(most, key=lambda same: same[0].value)
    entries = {
        "attempted-count": sum(op.type == "invoke" for op in generated),
        "acknowledged-count": len(acknowledged),
        "duplicated-count": len(duplicated),
        "duplicated": {map_key(same[0].value): len(same) for same in most},
        "range": span,
    }
    valid = not duplicated
    return Verdict(valid, results(valid, entries), limited(list(map(_why, duplicated))), warnings)


def _range(ids: list[Any]) -> list[Any]:
    """Returns the least and the greatest id. Raises TypeError for ids without an order."""
    present = [value for value in ids if value is not None]
    key = cmp_to_key(compare)
    return [min(present, key=key), max(present, key=key)] if present else [None, None]


def _why(same: list[Op]) -> str:
    owners = " and ".join(f"process {op.process} {at(op)}" for op in same[:2])
    more = f", and {len(same) - 2} more" if len(same) > 2 else ""
    return f"The id {show(same[0].value)} is not unique: {owners}{more} received it."
