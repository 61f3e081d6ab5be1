"""The mutants of raft.py: the rules to remove and the runs that show it (tests/mutants.py).

"The paper" is D. Ongaro and J. Ousterhout, In search of an understandable consensus algorithm;
"thesis" is D. Ongaro's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Patch = tuple[str, str]  # a text that is once in raft.py, and what takes its place


class Mutant(NamedTuple):
    """Removes one rule: its name and source, the check that fails without it, and the patches.

    It is caught by a run in a shape, within this number of seeds, or by a test (pytest -k).
    """

    name: str
    section: str
    breaks: str
    patches: Sequence[Patch]
    shape: str = "elections"
    seeds: int = 500
    test: str = ""


COMMON = "--time-limit 15 --rate 60"
SHAPES = {  # runs in which some kind of bug shows soon: the bench's options
    "elections": (
        f"{COMMON} --node-count 5 --concurrency 2n --latency 40 --latency-dist exponential "
        "--nemesis partition,loss,duplicate --nemesis-interval 0.7 --loss 0.2 --duplicate 0.1 "
        "--partition-kinds one,majority,majorities-ring,one-way,one-link --independent-delivery "
        "--constants CHUNK_BYTES=2000"
    ),
    "leases": (
        f"{COMMON} --node-count 3 --concurrency 4n --latency 1 --latency-dist exponential "
        "--nemesis partition,clock --nemesis-interval 0.6 --partition-kinds one,one-link,one-way"
    ),
    # A follower that hears no leader asks one that does; with few writes that leader hears late
    # of another one.
    "one link": (
        "--time-limit 30 --rate 25 --node-count 3 --concurrency 4n --latency 1 "
        "--latency-dist exponential --nemesis partition,clock --nemesis-interval 0.8 "
        "--partition-kinds one-link"
    ),
    "retries": (
        f"{COMMON} --node-count 3 --concurrency 4n --latency 10 --latency-dist exponential "
        "--nemesis partition,loss,duplicate --nemesis-interval 0.7 --loss 0.2 --duplicate 0.1 "
        "--partition-kinds one,majority,one-way,one-link"
    ),
    "crashes": (
        "--time-limit 10 --rate 100 --node-count 3 --concurrency 2n --latency 5 "
        "--latency-dist exponential --nemesis kill,partition,loss --nemesis-interval 0.5 "
        "--kill-targets one,majority,all --partition-kinds one,majority --loss 0.1 "
        "--constants CHECKPOINT_BYTES=20000,KEPT_BYTES=5000,KEPT_ENTRIES=0 "
        "-- --data-dir {run}/data"
    ),
    "wiped": (
        "--time-limit 10 --rate 100 --node-count 3 --concurrency 2n --latency 20 "
        "--latency-dist exponential --nemesis kill,partition,loss --nemesis-interval 0.7 "
        "--kill-targets one,majority --wipe 1 --partition-kinds one,majority --loss 0.1 "
        "--constants CHECKPOINT_BYTES=20000,KEPT_BYTES=5000,KEPT_ENTRIES=0 "
        "-- --data-dir {run}/data"
    ),
}

MUTANTS = [
    Mutant(
        "a majority is one short",
        "paper 5.2 and 5.3", "election safety",
        [("return count // 2 + 1", "return count // 2")],
    ),
    Mutant(
        "votes without the log check",
        "paper 5.4.1", "leader completeness",
        [("theirs = (last_log_term, last_log_index)", "theirs = (10**9, 0)")],
    ),
    Mutant(
        "two votes in a term",
        "paper 5.2", "one vote, election safety",
        [("if term != self.term or not (free or again):", "if term != self.term:")],
    ),
    Mutant(
        "reads without confirmation",
        "paper 8, thesis 6.4", "no stale read",
        [("if acked <= batch.stamp:", "if False:")],
        "leases",
    ),
    Mutant(
        "entries of earlier terms are committed by counting",
        "paper 5.4.2", "leader completeness",
        [("if index > self.commit_index and self.log[index].term == self.term:",
          "if index > self.commit_index:")],
        test="5_4_2_no_entry_of_an_earlier_term",
    ),
    Mutant(
        "the log check looks at the index only",
        "paper 5.4.1", "leader completeness",
        [("theirs = (last_log_term, last_log_index)",
          "theirs = (10**9 * (last_log_index >= self.log.size), 0)")],
        test="5_4_1_a_vote_goes_to_a_log",
    ),
    Mutant(
        "a vote is kept across terms",
        "paper 5.2", "nobody is elected: a server votes once in its life",
        [("        self.voted_for = self.voted_incarnation = None\n", "")],
        test="5_2_a_server_votes_again_in_a_later_term",
    ),
    Mutant(
        "votes of an earlier term count",
        "paper 5.2", "election safety",
        [("""\
            if (pre, term) in self.votes:
                self.votes[pre, term][src] = claim.get(src, 0)
                self.count_votes(pre, term)
""", """\
            for key in [key for key in self.votes if key[0] == pre]:
                self.votes[key][src] = 0
                self.count_votes(*key)
""")],
        test="5_2_votes_of_an_earlier_term_and_pre_votes",
    ),
    Mutant(
        "acknowledgements of an earlier term count",
        "paper 5.3", "commit",
        [('if self.role != "leader" or term != self.term:', 'if self.role != "leader":')],
        test="5_1_a_leader_ignores_answers_to_what_it_sent_in_an_earlier_term",
    ),
    Mutant(
        "a follower acknowledges its whole log",
        "paper 5.3", "commit",
        [("self.following.verified if refused is None else refused",
          "self.log.size if refused is None else refused")],
    ),
    Mutant(
        "a follower cuts its log where a message ends",
        "paper 5.3", "commit, leader completeness",
        [("if index > log.size or log[index].term != entry.term:", "if True:")],
        test="5_3_an_append_that_holds_less_than_the_log",
    ),
    Mutant(
        "a follower commits entries that may not be the leader's",
        "paper 5.3", "state machine safety",
        [("min(leader_commit, following.verified)", "min(leader_commit, self.log.size)")],
    ),
    Mutant(
        "a follower believes the commit index past a gap",
        "paper 5.3", "commit index",
        [("min(leader_commit, following.verified))",
          "min(leader_commit, prev_log_index + len(entries)))")],
    ),
    Mutant(
        "a leader ignores a later term in an answer",
        "paper 5.1", "a leader that cannot lead any more goes on",
        [("""\
        self.maybe_step_down(term, f"{src} is in a later term")
        if self.role""", """\
        if self.role""")],
        test="5_1_a_leader_whose_term_is_out_of_date",
    ),
    Mutant(
        "a candidate ignores a later term in an answer",
        "paper 5.1", "a candidate that cannot win asks on in vain",
        [("""\
        if leader is None:
            self.maybe_step_down(term, f"{src} is in a later term")
""", """\
        if leader is None:
            pass
""")],
        test="prevote_a_candidate_that_learns_of_a_later_term",
    ),
    Mutant(
        "a candidate ignores the leader of its term",
        "paper 5.2", "a candidate disturbs the leader",
        [('            self.have_leader("follower"', "            self.have_leader(self.role")],
        test="5_2_a_candidate_that_hears_a_leader_of_its_term",
    ),
    Mutant(
        "entries are applied before they are committed",
        "paper 5.3", "applied",
        [("from_index(self.last_applied + 1, self.commit_index + 1)",
          "from_index(self.last_applied + 1, self.log.size + 1)")],
    ),
    Mutant(
        "reads are served before the no-op is committed",
        "paper 8", "no stale read",
        [("if not leading.waiting_reads or self.commit_index < leading.term_start:",
          "if not leading.waiting_reads:")],
    ),
    Mutant(
        "a lease is longer than the promise",
        "thesis 6.4.1", "no stale read",
        [("LEASE = 0.9 ", "LEASE = 1.5 ")],
        "leases",
    ),
    Mutant(
        "a lease leaves nothing for clocks that drift",
        "thesis 6.4.1", "no stale read",
        [("LEASE = 0.9 ", "LEASE = 1.0 ")],
        test="6_4_1_a_lease_ends_earlier_than_the_promises",
    ),
    Mutant(
        "a lease counts from the answer",
        "thesis 6.4.1", "no stale read",
        [("promised=sent + timeout * LEASE)", "promised=now + timeout * LEASE)")],
        test="6_4_1_a_lease_counts_from_when_the_message_was_sent",
    ),
    Mutant(
        "votes are given while a lease may hold",
        "thesis 6.4.1", "no stale read",
        [("elif self.is_led():\n            granted", "elif False:\n            granted")],
        "one link",
    ),
    Mutant(
        "operations take effect again",
        "paper 8", "at most once",
        [("if msg_id > last or is_read:", "if True:")],
        "retries",
    ),
    Mutant(
        "an operation is done after a later one of its client",
        "paper 8", "at most once",
        [('if msg_id > last or', "if msg_id != last or")],
        "retries",
    ),
    Mutant(
        "reads by log have sessions",
        "paper 8", "a read that was overtaken is never answered",
        [("if msg_id > last or is_read:", "if msg_id > last:")],
        test="8_a_read_by_log_is_done_though",
    ),
    Mutant(
        "error 11 for a write that a leader may have",
        "Maelstrom's doc/protocol.md", "error 11 is definite",
        [("may_happen = batch.sent_at > -math.inf", "may_happen = False")],
        "retries",
    ),
    Mutant(
        "an answer for an entry that another leader replaced",
        "paper 5.3", "linearizability: an acknowledged write is lost",
        [("            self.log.append([Entry(self.term, *key, batch.writes)])\n", """\
            self.log.append([Entry(self.term, *key, batch.writes)])
            RULELESS[self, self.log.size] = batch.writes
"""),
         ("            key = (entry.owner, entry.seq)  # a r", """\
            owed = RULELESS.pop((self, self.last_applied), [])
            for client, msg_id, body in owed:
                self.answer(client, msg_id, self.state_machine.apply(body)[1])
            key = (entry.owner, entry.seq)  # a r"""),
         ("FIELDS: Final", "RULELESS = {}\nFIELDS: Final"),
         ("                    self.answer(*answer)\n", "                    pass\n")],
    ),
    Mutant(
        "a node that does not lead any more appends",
        "paper 5.3", "log matching",
        [("""\
        if self.role == "leader":
            self.accept_batch(batch)
        elif leader and""", """\
        if self.log.size:
            self.accept_batch(batch)
        elif leader and"""),
         ("        if batch.reads or batch.writes:\n            return\n",
          "        if batch.reads or batch.writes or not self.leading.followers:\n"
          "            return\n")],
    ),
    Mutant(
        "a batch is relayed for ever",
        "README, owners and relays", "messages without end between two followers",
        [("elif leader and leader != src == owner:", "elif leader and leader != src:")],
        test="forward_is_relayed_once",
    ),
    Mutant(
        "a retry goes to the leader alone",
        "README, owners and relays", "an owner whose link to the leader is cut is not served",
        [("        if batch.asked:\n", "        if False:\n")],
        test="owner_a_retry_goes_to_another_node",
    ),
    Mutant(
        "a follower does not look at the term of the entry before",
        "paper 5.3", "log matching",
        [("if previous > following.verified and log[previous].term != previous_term:",
          "if False:")],
    ),
    Mutant(
        "what agreed with one leader's log is taken for the next one's",
        "paper 5.3", "log matching, commit",
        [("Following(leader, verified=self.commit_index)",
          "Following(leader, verified=self.following.verified)"),
         (" = None\n        self.following = Following(verified=self.commit_index)",
          " = None\n        self.following = Following(verified=self.following.verified)")],
    ),
    Mutant(
        "what came early from one leader is taken for the next one's",
        "paper 5.3", "log matching",
        [("Following(leader, verified=self.commit_index)",
          "Following(leader, None, self.commit_index, self.following.early)"),
         (" = None\n        self.following = Following(verified=self.commit_index)",
          " = None\n        self.following = Following(None, None, self.commit_index,"
          " self.following.early)")],
    ),
    Mutant(
        "the sessions are not in the snapshot",
        "paper 7 and 8", "at most once",
        [("self.sessions = Sessions(snapshot.sessions)", "self.sessions = Sessions()")],
        test="7_the_sessions_are_in_it",
    ),
    Mutant(
        "a snapshot takes a node backwards",
        "paper 7", "commit index, committed entries stay",
        [("if last_index <= self.commit_index:", "if False:")],
        test="7_a_node_never_goes_back",
    ),
    Mutant(
        "a snapshot mixes two versions of the map",
        "paper 7", "at most once",
        [("items = self.map.items(", "items = self.now().map.items("),
         ("        return Snapshot(index, self.log", """\
        Snapshot.now = lambda me: self.state_machine
        return Snapshot(index, self.log""")],
        test="7_meanwhile_the_leader_serves",
    ),
    Mutant(
        "the log is cut where it is not applied yet",
        "paper 7", "applied",
        [("needed = self.log, [self.last_applied,", "needed = self.log, [self.log.size,")],
        test="7_what_is_not_applied_stays",
    ),
    Mutant(
        "what depends on the disk leaves before it is there",
        "figure 2: updated on stable storage before responding", "stable storage",
        [("            self.save(later=self.may_save_later())\n",
          "            self.log.mark_stable()\n"),
         ("            if self.founding:\n", """\
            self.node._write("".join(self.node._outbox).encode())
            self.node._outbox.clear()
            self.save(later=self.may_save_later())
            if self.founding:
""")],
        test="what_leaves_is_committed_before",
    ),
    Mutant(
        "a leader counts itself before its disk has the entry",
        "thesis 10.2.1", "commit, committed entries stay",
        [("of_majority(self.log.stable,", "of_majority(self.log.size,")],
        "crashes",
    ),
    Mutant(
        "a leader's first entry leaves before its disk knows that it leads",
        "thesis 10.2.1", "one vote, election safety",
        [(" and self.log.stable >= self.leading.term_start", "")],
        test="term_and_vote_are_on_its_disk",
    ),
    Mutant(
        "the vote is not stored",
        "figure 2", "one vote, election safety, stable storage",
        [('hard._asdict() | {"last"', 'hard._asdict() | {"voted_for": None, "last"')],
        "crashes",
    ),
    Mutant(
        "the term is not stored",
        "figure 2", "stable storage, election safety, terms only grow",
        [('hard._asdict() | {"last"', 'hard._asdict() | {"term": 0, "last"')],
        "crashes",
    ),
    Mutant(
        "the stored log is cut beyond the checkpoint",
        "paper 7", "a node that does not start again",
        [('entry WHERE key <= ?", (log.start,)', 'entry WHERE key <= ?", (log.size,)')],
        "crashes",
    ),
    Mutant(
        "the sessions are not in the checkpoint",
        "paper 7 and 8", "at most once, a node that does not start again",
        [("[*sessions.values()], self._map)", "[], self._map)"),
         ("(log.size, snapshot.size) !=", "(log.size, snapshot.size + len(sessions)) !=")],
        "crashes",
    ),
    Mutant(
        "a checkpoint and its index are two transactions",
        "paper 7", "at most once",
        [("            self._checkpoint(state)\n", """\
            self._checkpoint(state)
            db.execute("COMMIT")
            db.execute("BEGIN IMMEDIATE")
""")],
        "crashes",
    ),
    Mutant(
        "a promise does not outlive the node",
        "thesis 6.4.1", "no stale read",
        [("self.promise = now + hard.promised if", "self.promise = -math.inf if")],
        test="keeps_the_promise",
    ),
    Mutant(
        "a node that comes back without memory votes at once",
        "paper 5.2 and figure 2", "one vote",
        [("return not self.known if len(claim) == 1 else self.is_member",
          "return not self.known if len(claim) == 1 else True")],
        test="a_node_that_comes_back_does_not_vote",
    ),
    Mutant(
        "a node that comes back without memory counts at once",
        "paper 5.3 and figure 2", "leader completeness",
        [("return incarnation == self.known.get(node_id, ABSENT)", "return True")],
        test="what_it_says_does_not_count_before",
    ),
    Mutant(
        "a founder keeps its votes when it learns of members",
        "paper 5.2 and figure 2", "a wiped first node founds again, with a majority",
        [("            self.votes.clear()  # that this", "            pass  # that this")],
        test="a_founder_that_learns_of_a_cluster_from_a_candidate",
    ),
    Mutant(
        "a node is readmitted with an empty log",
        "paper 5.2", "election safety: it votes twice in a term",
        [("lacked = max(self.commit_index, self.leading.term_start)",
          "lacked = self.commit_index")],
        test="without_an_entry_of_the_leaders_term_is_not_readmitted",
    ),
    Mutant(
        "all incarnations of a node with a file are one",
        "paper 5.2 and figure 2", "a wiped node counts with entries that it has not got",
        [("HardState(incarnation=random.getrandbits(48)))\n", "HardState(incarnation=7))\n")],
        shape="wiped",
    ),
    Mutant(
        "members are not stored",
        "figure 2", "a first node that was wiped founds a second time",
        [('hard._asdict() | {"last"', 'hard._asdict() | {"members": {}, "last"')],
        test="who_are_members_is_known_after_a_restart",
    ),
    Mutant(
        "a vote is for a name and not for an incarnation",
        "paper 5.2", "one vote: a candidate that was wiped gets the votes that it has forgotten",
        [("(self.voted_for, self.voted_incarnation) == (src, incarnation)",
          "self.voted_for == src")],
        test="a_node_votes_once_in_a_term_even_for",
    ),
    Mutant(
        "a majority is enough to found",
        "paper 5.2 and figure 2", "leader completeness",
        [("return self.majority if self.known else self._count", "return self.majority")],
        test="to_found_takes_the_votes_of_all",
    ),
    Mutant(
        "half of a transaction is applied if it fails",
        "Elle: G1a", "a read shows what an aborted transaction wrote",
        [("            return self, error.to_json()\n        map = self.map",
          "            for key, value in written.values():\n"
          "                self = Store(self.map.set(key, value))\n"
          "            return self, error.to_json()\n        map = self.map")],
        test="a_transaction_that_cannot_be_done_changes_nothing",
    ),
    Mutant(
        "a transaction that only reads is served without confirmation",
        "thesis 6.4", "no stale read",
        [("if acked <= batch.stamp:",
          'if acked <= batch.stamp and not any("txn" in op[2] for op in batch.reads):')],
        test="a_leader_that_is_cut_off_answers_no_transaction",
    ),
    Mutant(
        "an append changes the list of an older version",
        "section 7", "a snapshot that is being sent changes",
        [("[*(had or ()), value])", "(had.append(value) or had) if had else [value])")],
        test="an_older_store_keeps_its_lists",
    ),
]  # fmt: skip
