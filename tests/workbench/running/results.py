"""The results of a run, named as in Maelstrom."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..network.network import Network, Traffic
from ..reasons import ABORTED, never_ok
from ..record import edn, life
from ..record.edn import Keyword
from ..record.history import Op, clients
from ..units import SECOND
from ..verdicts import UNKNOWN, VALID, Results, merge
from ..workloads.workload import INDETERMINATE, NET_TIMEOUT, Workload
from .interrupt import Interrupted
from .options import Options
from .runner import Record

MOST_ENDS = 3  # different errors in a sentence
LONG = 200  # characters of an error's text

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
    if options.strict:
        record.problems += workload.warnings
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
    """Counts operations, overall and by kind. One of each kind at least must be ok.

    Kinds that cannot be ok, such as kafka's crashes, do not make the stats invalid.
    """
    kinds = sorted({op.f for op in events})
    by_f = {Keyword(f): _counts([op for op in events if op.f == f]) for f in kinds}
    found = {**_counts(events), Keyword("by-f"): by_f}
    found[VALID] = not never_ok(found)
    return found


def _counts(events: Sequence[Op]) -> Results:
    count = {type: sum(op.type == type for op in events) for type in ("ok", "fail", "info")}
    return {
        VALID: count["ok"] > 0,
        Keyword("count"): sum(count.values()),
        Keyword("ok-count"): count["ok"],
        Keyword("fail-count"): count["fail"],
        Keyword("info-count"): count["info"],
    }


def failures(events: Sequence[Op], f: str, seconds: float, codes: Mapping[int, int]) -> str:
    """Says how the operations of a kind ended that were not ok: the most common ends first.

    After `seconds` an operation timed out. `codes` are the unknown error codes, by op index.
    """
    found: Counter[str] = Counter()
    for op in events:
        if op.f == f and op.type in ("fail", "info"):
            if op.error == NET_TIMEOUT:
                found[f"got no reply within {seconds:g} s"] += 1
            elif isinstance(op.error, list):
                name, text = op.error
                words = "no text" if text is None else f"the text {edn.dumps(text)[:LONG]}"
                which = f"the error {name.name}, with"
                if op.index in codes:
                    which = f"an error with the code {codes[op.index]}, which is unknown here, and"
                found[f"got {which} {words}"] += 1
            elif op.error == f"{INDETERMINATE}Client read timeout":
                found[f"got no reply within {seconds:g} s"] += 1
            elif isinstance(op.error, str):
                found[f"got an error: {_without_numbers(op.error)[:LONG]}"] += 1
            else:
                found["got a malformed reply"] += 1
    of_all = f" of {found.total()}" if len(found) == 1 else ""
    kinds = [f"{count}{of_all} {how}" for how, count in found.most_common(MOST_ENDS)]
    return ", ".join([*kinds, "..."] if len(found) > MOST_ENDS else kinds)


def _without_numbers(error: str) -> str:
    """Leaves out the numbers of messages, so that equal errors look equal."""
    return re.sub(r", :(in_reply_to|msg_id) \d+", "", error)


def lost_memory(history: Sequence[Op], options: Options) -> str:
    """Says that nodes which keep all in memory cannot pass, if half of them or more were killed.

    "" if fewer were killed, or if the arguments name a folder for the nodes' data.
    """
    if any("{run}" in word or word.startswith("--data-dir") for word in options.args):
        return ""
    kills = [(time, node) for time, node, change in life.changes(history) if change == "killed"]
    enough = (options.node_count + 1) // 2
    best: tuple[int, list[str]] | None = None  # shortest time with enough kills, and its nodes
    for index, (begin, _) in enumerate(kills):
        nodes: list[str] = []
        for time, node in kills[index:]:
            nodes += [node] if node not in nodes else []
            if len(nodes) >= enough and (best is None or time - begin <= best[0]):
                better = best is None or (begin - time, len(nodes)) > (-best[0], len(best[1]))
                best = (time - begin, [*nodes]) if better else best
    if best is None:
        return ""
    within, nodes = best
    when = "at once" if not within else f"within {within / SECOND:.1f} s"
    who = f"{', '.join(sorted(nodes))} ({len(nodes)} of {options.node_count})"
    were = "was" if len(nodes) == 1 else "were"
    keep = "raft.py keeps all in memory without --data-dir. Add: -- --data-dir {run}/data"
    if options.bin.name != "raft.py":
        keep = "If these nodes keep all in memory, let them write to a disk"
    even = ", so even a correct Raft is invalid" if options.workload == "lin-kv" else ""
    return (
        f"{who} {were} killed {when}. Nodes that keep all in memory lose acknowledged writes by "
        f"that{even}. {keep}"
    )


def availability(events: Sequence[Op], wanted: float | None) -> Results:
    """Returns the fraction of operations that were ok. A cas that did not match was not ok.

    Maelstrom computes it as a 32-bit float, so 9 of 10 are a little less than 0.9.
    """
    invoked = sum(op.type == "invoke" for op in events)
    fraction = sum(op.type == "ok" for op in events) / invoked if invoked else 1.0
    enough = wanted is None or _single(fraction) >= wanted
    return {VALID: enough, Keyword("ok-fraction"): _shortest(fraction)}


def _single(number: float) -> float:
    """Rounds a number to a 32-bit float."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def _shortest(number: float) -> float:
    """Returns the shortest decimal that means the same 32-bit float, as Java prints it."""
    single = _single(number)
    forms = (float(f"{single:.{digits}g}") for digits in range(1, 10))
    return next(form for form in forms if _single(form) == single)


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
            found[Keyword("msgs-per-op")] = _shortest(counts.sent / invoked)
        return found

    return {
        Keyword("all"): traffic(both),
        Keyword("clients"): traffic(clients, per_op=False),
        Keyword("servers"): traffic(servers),
        VALID: True,
    }
