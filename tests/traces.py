"""Plays scenes of the Raft paper with raft.py's nodes, and writes their traces: `make traces`.

A scene is a function that directs the cluster: partitions, the order of timeouts, and the clients'
requests. The nodes themselves decide the rest. The trace is written to tests/traces/, and begins
with the scene's docstring. tests/test_traces.py plays each scene again, and compares the traces.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from story import Story

from node import Body, Message

FOLDER = Path(__file__).parent / "traces"
READ: Body = {"type": "read", "key": "x"}


def write(value: int) -> Body:
    return {"type": "write", "key": "x", "value": value}


def election() -> Story:
    """Section 5.2, leader election, after a pre-vote, marked (pre): thesis 9.6.

    n0 is the first node of a new cluster, so it campaigns at once. After n0 crashes, n1 hears
    nothing for an election timeout. n1 first asks whether it would be elected, and only then
    begins a term.
    Look at: n1's term. The pre-vote does not change it.
    """
    story = Story({"n0": "", "n1": "", "n2": ""}, first="n1")
    story.leads("n0")
    story.passes(0.2)
    story.crash("n0")
    story.leads("n1")
    story.passes(0.05)
    return story


def split_vote() -> Story:
    """Section 5.2, a split vote: no candidate wins, and randomized timeouts resolve it.

    n1 and n2 time out at the same time, and do not hear each other. Each gets two of four votes,
    which is not a majority. Both draw another timeout; n1's is shorter.
    Look at: n0 votes once in term 2, and again in term 3.
    """
    story = Story({"n0": "1", "n1": "1", "n2": "1", "n3": "1"}, term=1, first="n1 n2")
    unlucky = {("n1", "n3"), ("n2", "n0")}  # links from a candidate that lose vote requests

    def lost(message: Message) -> bool:
        link = (message["src"], message["dest"])
        if message["body"].get("pre"):
            return set(link) == {"n1", "n2"}
        return message["body"]["type"] == "request_vote" and link in unlucky

    story.lost = lost
    story.until(lambda: story.rafts["n2"].votes)
    story.first("n1")
    story.passes(0.05)
    unlucky.clear()
    story.leads("n1")
    story.passes(0.05)
    return story


def figure_7() -> Story:
    """Figure 7 and section 5.3, log repair: L, the leader for term 8, and the followers a to f.

    a and b lack entries. c and d have extra entries that were never committed. e and f have both
    faults.
    Look at: the votes (section 5.4.1: c and d refuse theirs), the entries that followers drop, and
    L's own log, which only grows. a, b and e lack the entry before entry 11. They accept nothing
    new, and L then sends all that they lack. f has a conflicting entry there. It refuses, and
    names the index before its entries of the conflicting term. So L skips that term in one step,
    as the end of section 5.3 suggests.
    """
    story = Story(
        {
            "L": "1 1 1 4 4 5 5 6 6 6",
            "a": "1 1 1 4 4 5 5 6 6",
            "b": "1 1 1 4",
            "c": "1 1 1 4 4 5 5 6 6 6 6",
            "d": "1 1 1 4 4 5 5 6 6 6 7 7",
            "e": "1 1 1 4 4 4 4",
            "f": "1 1 1 2 2 2 3 3 3 3 3",
        },
        term=7,
        first="L",
    )
    for node_id in "abcdef":
        story.has(node_id, "1 1 1 4 4 5 5 6 6 6 8")
    story.passes(0.2)
    story.show_logs()
    return story


def figure_8_to_c() -> Story:
    """Plays figure 8 up to (c): a majority has S1's entry 2 of term 2, but not its entry 3."""
    story = Story({"S1": "1 2", "S2": "1 2", "S3": "1", "S4": "1", "S5": "1"}, term=2, first="S5")
    story.chapter(
        "(b)  S1, which led term 2, crashes. S3 and S4 elect S5, whose own entry 2 is lost."
    )
    story.crash("S1")
    story.lose(term=3)
    story.leads("S5")
    story.crash("S5")
    story.first("S1")
    story.chapter("(c)  S1 restarts, S2 and S3 elect it, and its entry 2 reaches S3.")
    story.lose(term=4, to="S4")
    with patch("raft.CHUNK_BYTES", 1):  # sends its entries 2 and 3 in separate messages
        story.restart("S1")
        story.has("S3", "1 2")
        story.passes(0.05)
    story.show_logs()
    return story


def figure_8_d() -> Story:
    """Figure 8, (a) to (d), and section 5.4.2: no old entry is committed by counting.

    In (a), S1 has led term 2, and its entry 2 has reached S2. In (b), S5's entry 2 is the no-op of
    term 3. In (c), S1 leads term 4, and its entry 2 of term 2 reaches a majority: S1, S2 and S3.
    S1's own no-op of term 4, entry 3, reaches no other server. S4 does not hear S1.
    Look at: S1 commits nothing in (c). In (d), S2 and S3 drop entry 2. If S1 had committed it, a
    committed entry would be lost.
    """
    story = figure_8_to_c()
    story.chapter("(d)  S1 crashes; S5 restarts, and S2, S3 and S4 elect it.")
    story.lose()
    story.crash("S1")
    story.first("S5")
    story.restart("S5")
    for node_id in ("S2", "S3", "S4"):
        story.has(node_id, "1 3 5")
    story.passes(0.2)
    story.show_logs()
    return story


def figure_8_e() -> Story:
    """Figure 8, (a) to (c) and (e), and section 5.4.2: a commit includes all earlier entries.

    The scene equals figure_8_d up to (c). Then S1's no-op of term 4 reaches S2 and S3.
    Look at: S1 commits entries 1 to 3 at once. S5 can no longer win an election: a majority has
    entry 3 of term 4, and S5's last entry is of term 3.
    """
    story = figure_8_to_c()
    story.chapter("(e)  S1 stays up, and its entry 3 reaches S2 and S3. Then S1 crashes.")
    story.lose(to="S4")
    story.until(lambda: story.rafts["S1"].commit_index)
    story.crash("S1")
    story.first("S5")
    story.restart("S5")
    story.lose()
    story.passes(1.8)
    story.show_logs()
    return story


def partitioned_leader() -> Story:
    """Sections 5.1, 5.3 and 5.4: a leader is cut off with a minority, and returns.

    n0 appends entry 3 of term 1, and cannot commit it. The other side elects n2, whose entry 3 is
    of term 2.
    Look at: n0 hears of n2's term and becomes a follower. It forwards its client's write, which n3
    relays to n2, and drops its own entry 3. So the write takes effect after all, once.
    """
    story = Story({"n0": "", "n1": "", "n2": "", "n3": "", "n4": ""}, first="n2")
    story.leads("n0")
    story.passes(0.05)
    story.request("n0", write(1))
    story.passes(0.1)
    story.cut_off("n0", "n1")
    story.request("n0", write(2))
    story.leads("n2")
    story.request("n2", write(3), "c2")
    story.passes(0.03)
    story.heal()
    story.has("n0", "1 1 2 2 2")
    story.passes(0.05)
    return story


def lease() -> Story:
    """Section 8 and thesis 6.4.1, reads: a lease expires.

    With its answer to the leader, a follower promises to elect no other node for an election
    timeout. The leader's lease lasts 0.9 of that time, counted from the sending of the answered
    message. During the lease the leader answers reads from its own map, without messages.
    Look at: n0 is cut off. While it has its lease, it answers a read at once. Later it gives no
    answer, because 1 is stale: n1's client has written 2. n0 asks the others and hears nothing.
    When it hears that n1 leads, it forwards the read, and its client gets 2.
    """
    story = Story({"n0": "", "n1": "", "n2": ""}, first="n1")
    story.leads("n0")
    story.passes(0.05)
    story.request("n0", write(1))
    story.passes(0.1)
    story.request("n0", READ)
    story.cut_off("n0")
    story.passes(0.15)
    story.request("n0", READ)
    story.leads("n1")
    story.request("n1", write(2), "c2")
    story.passes(0.05)
    story.request("n0", READ)
    story.passes(0.05)
    story.heal()
    story.passes(0.3)
    return story


def broken_link() -> Story:
    """Thesis 9.6 and 6.4.1: one follower does not hear the leader, and the others do.

    Look at: n1 refuses n2's pre-vote, because it has promised n0 to elect no other node. So the
    term stays, and n0 remains leader. n1 tells n2 that n0 leads, and n2 forwards its client's
    write through n1. n0 answers the client. n1 learns of the commit with the next heartbeat.
    """
    story = Story({"n0": "", "n1": "", "n2": ""}, first="n2")
    story.leads("n0")
    story.passes(0.1)
    story.tell("n0 and n2 do not hear each other")
    story.lost = lambda message: {message["src"], message["dest"]} == {"n0", "n2"}
    story.passes(0.4)
    story.request("n2", write(1))
    story.passes(0.2)
    story.heal()
    story.passes(0.2)
    return story


SCENES: list[Callable[[], Story]] = [
    election, split_vote, figure_7, figure_8_d, figure_8_e, partitioned_leader, lease, broken_link,
]  # fmt: skip


def text(scene: Callable[[], Story]) -> str:
    """Returns the text of a scene's file. Raises Stuck if the scene cannot go on."""
    return "\n".join([*header(scene), "", *scene().lines, ""])


def header(scene: Callable[[], Story]) -> list[str]:
    return [f"# {line}".rstrip() for line in inspect.cleandoc(scene.__doc__ or "").splitlines()]


def main() -> None:
    """Writes the trace of every scene, and deletes other files of the folder."""
    texts = {scene.__name__: text(scene) for scene in SCENES}
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    for name, told in texts.items():
        (FOLDER / f"{name}.txt").write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
