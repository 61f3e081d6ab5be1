"""Members: the incarnations that vote and count. A wiped node is another incarnation."""

from __future__ import annotations

from itertools import combinations

import pytest

from raft import Members

NODES = ["n0", "n1", "n2"]
KNOWN = {"n0": 10, "n1": 11, "n2": 12}
AGAIN = 99  # incarnation of a node that has come back without memory


def member(node_id: str = "n1", incarnation: int = 11) -> Members:
    """A node of a founded cluster."""
    return Members(node_id, NODES, incarnation, KNOWN)


def stranger(node_id: str = "n1") -> Members:
    """A node that knows of no member yet."""
    return Members(node_id, NODES, AGAIN)


def test_only_the_first_node_founds() -> None:
    assert [Members(node_id, NODES).is_first for node_id in NODES] == [True, False, False]
    assert not Members().is_first


def test_a_node_is_a_member_in_its_known_incarnation_alone() -> None:
    assert member().is_member
    assert not member(incarnation=AGAIN).is_member
    assert not stranger().is_member


@pytest.mark.parametrize(("nodes", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_founding_takes_all_votes_and_later_elections_a_majority(nodes: int, majority: int) -> None:
    ids = [f"n{i}" for i in range(nodes)]
    one = Members("n0", ids, 10)
    assert (one.votes_needed, one.majority) == (nodes, majority)
    one.admit({"n0": 10})
    assert one.votes_needed == majority


def test_admit_adds_members_and_replaces_incarnations() -> None:
    one = stranger()
    one.admit({"n0": 10, "n1": AGAIN})
    assert one.known == {"n0": 10, "n1": AGAIN} and one.is_member
    one.admit({"n0": 20})
    assert one.known == {"n0": 20, "n1": AGAIN}


def test_admit_changes_no_mapping_that_others_have() -> None:
    """The storage compares the saved members with today's, and a message may hold a claim."""
    one = member()
    before, claim = one.known, one.claim()
    one.admit({"n1": AGAIN})
    assert before == claim == KNOWN == member().known


def test_a_claim_names_the_members_or_else_the_node_alone() -> None:
    assert member().claim() == KNOWN
    assert stranger().claim() == {"n1": AGAIN}


def test_a_new_node_votes_for_a_founder_and_for_no_one_else() -> None:
    assert stranger().may_vote({"n0": 10})
    assert not stranger().may_vote(KNOWN)


def test_a_member_votes_for_candidates_of_its_cluster_and_for_no_founder() -> None:
    assert member().may_vote(KNOWN)
    assert not member().may_vote({"n0": 10})


def test_a_node_without_memory_votes_for_nobody_once_it_knows_of_members() -> None:
    wiped = member(incarnation=AGAIN)
    assert not wiped.may_vote(KNOWN) and not wiped.may_vote({"n0": 10})
    wiped.admit({"n1": AGAIN})
    assert wiped.may_vote(KNOWN)


def test_another_incarnation_than_the_known_one_does_not_count() -> None:
    one = member()
    assert one.counts("n2", 12)
    assert not one.counts("n2", AGAIN)
    assert not one.counts("n2", None)


def test_a_node_not_heard_of_does_not_count() -> None:
    assert not stranger().counts("n2", None)
    assert not stranger().counts("n2", 12)


def test_the_status_tells_members_from_nodes_without_memory_and_from_new_ones() -> None:
    assert member().status.startswith("a member")
    assert member(incarnation=AGAIN).status.startswith("without memory")
    assert stranger().status == ""


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_a_quorum_meets_every_later_majority_without_the_nodes_that_returned(nodes: int) -> None:
    """Tries all cases of the arithmetic in the docstring of Members."""
    ids = [f"n{i}" for i in range(nodes)]
    majority = Members("n0", ids).majority
    for gone in range(1, nodes - majority + 1):
        returned = {*ids[:gone]}
        rest = [node_id for node_id in ids if node_id not in returned]
        for quorum in combinations(rest, majority - gone):  # members that have not forgotten
            for electors in combinations(rest, majority):
                assert {*quorum} & {*electors}
