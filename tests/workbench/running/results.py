"""The results of a run, named as in Maelstrom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..network.network import Network, Traffic
from ..reasons import ABORTED
from ..record.edn import Keyword
from ..record.history import Op, clients
from ..verdicts import UNKNOWN, VALID, Results, merge
from ..workloads.workload import Workload
from .interrupt import Interrupted
from .options import Options
from .runner import Record


def results(record: Record, network: Network, workload: Workload, options: Options) -> Results:
    """Checks a run. The run is valid if all parts of the results are valid.

    A run is at best unknown if it was cut short, or if its analysis is interrupted.
    """
    events = clients(record.history)
    try:
        judged = workload.check(record.history)
    except Interrupted as interrupt:
        record.cut_short = f"cut short by {interrupt} during the analysis"
        judged = {VALID: UNKNOWN}
    parts: Results = {
        Keyword("timeline"): {VALID: True},
        Keyword("exceptions"): exceptions(record),
        Keyword("stats"): stats(events),
        Keyword("availability"): availability(events, options.availability),
        Keyword("net"): net(network, events),
        Keyword("workload"): judged,
    }
    if record.cut_short:  # enough operations might have been ok in a complete run
        for name in (Keyword("stats"), Keyword("availability")):
            if parts[name][VALID] is False:
                parts[name][VALID] = UNKNOWN
        parts[Keyword("cut-short")] = {VALID: UNKNOWN, Keyword("why"): record.cut_short}
    parts[VALID] = merge(part[VALID] for part in parts.values())
    return parts


def exceptions(record: Record) -> Results:
    """Returns the protocol rules that nodes broke, and the reason if the run was aborted."""
    found = [*record.problems, *([ABORTED + record.crash] if record.crash else [])]
    return {VALID: not found, **({Keyword("exceptions"): found} if found else {})}


def stats(events: Sequence[Op]) -> Results:
    """Counts operations, overall and by kind. One of each kind at least must be ok."""
    kinds = sorted({op.f for op in events})
    by_f = {Keyword(f): _counts([op for op in events if op.f == f]) for f in kinds}
    return {
        **_counts(events),
        VALID: merge(counts[VALID] for counts in by_f.values()),
        Keyword("by-f"): by_f,
    }


def _counts(events: Sequence[Op]) -> Results:
    count = {type: sum(op.type == type for op in events) for type in ("ok", "fail", "info")}
    return {
        VALID: count["ok"] > 0,
        Keyword("count"): sum(count.values()),
        Keyword("ok-count"): count["ok"],
        Keyword("fail-count"): count["fail"],
        Keyword("info-count"): count["info"],
    }


def availability(events: Sequence[Op], wanted: float | None) -> Results:
    """Returns the fraction of operations that were ok. A cas that did not match was not ok."""
    invoked = sum(op.type == "invoke" for op in events)
    fraction = sum(op.type == "ok" for op in events) / invoked if invoked else 1.0
    return {VALID: wanted is None or fraction >= wanted, Keyword("ok-fraction"): fraction}


def net(network: Network, events: Sequence[Op]) -> Results:
    """Counts messages between servers and with clients, in total and for each operation."""
    servers, clients = network.between_servers, network.with_clients
    both = Traffic(servers.sent + clients.sent, servers.received + clients.received)
    invoked = sum(op.type == "invoke" for op in events)

    def traffic(counts: Traffic, per_op: bool = True) -> dict[Keyword, Any]:
        found: dict[Keyword, Any] = {
            Keyword("send-count"): counts.sent,
            Keyword("recv-count"): counts.received,
            Keyword("msg-count"): counts.sent,
        }
        if per_op and invoked:
            found[Keyword("msgs-per-op")] = round(counts.sent / invoked, 4)
        return found

    return {
        Keyword("all"): traffic(both),
        Keyword("clients"): traffic(clients, per_op=False),
        Keyword("servers"): traffic(servers),
        VALID: True,
    }
