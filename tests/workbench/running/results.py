"""The results of a run, under the names that Maelstrom gives to their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..network.network import Network, Traffic
from ..record.edn import Keyword
from ..record.history import Op, clients
from ..verdicts import UNKNOWN, VALID, Results, merge
from ..workloads.workload import Workload
from .interrupt import Interrupted
from .options import Options
from .runner import Record


def results(record: Record, network: Network, workload: Workload, options: Options) -> Results:
    """Judges a run. The whole is valid if all of its parts are.

    A run that was cut short is at best unknown; so is one whose analysis is interrupted here.
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
    if record.cut_short:  # too few operations were ok: more of them might have been, later
        for name in (Keyword("stats"), Keyword("availability")):
            if parts[name][VALID] is False:
                parts[name][VALID] = UNKNOWN
        parts[Keyword("cut-short")] = {VALID: UNKNOWN, Keyword("why"): record.cut_short}
    parts[VALID] = merge(part[VALID] for part in parts.values())
    return parts


def exceptions(record: Record) -> Results:
    """Rules of the protocol that nodes broke, and why the run could not go on."""
    found = [*record.problems, *filter(None, [record.crash])]
    return {VALID: not found, **({Keyword("exceptions"): found} if found else {})}


def stats(events: Sequence[Op]) -> Results:
    """Counts, overall and by kind. At least one operation of each kind must have succeeded."""
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
    """The fraction of operations that were ok; a cas that did not match was not."""
    invoked = sum(op.type == "invoke" for op in events)
    fraction = sum(op.type == "ok" for op in events) / invoked if invoked else 1.0
    return {VALID: wanted is None or fraction >= wanted, Keyword("ok-fraction"): fraction}


def net(network: Network, events: Sequence[Op]) -> Results:
    """Messages, between servers and with clients, and how many there were for an operation."""
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
