"""The mutants fit today's raft.py, and the simulation catches them."""

from __future__ import annotations

import pytest
from mutants import hunt, patched
from mutants_table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_patch_fits_and_gives_a_program(mutant: Mutant) -> None:
    compile(patched(mutant.name, mutant.patches), mutant.name, "exec")


def test_a_patch_that_does_not_fit_says_which_and_what_was_not_found() -> None:
    with pytest.raises(LookupError, match=r"(?s)no luck.*not there"):
        patched("no luck", [("return count // 2 + 1", "return 1"), ("not there", "")])
    with pytest.raises(LookupError, match=r"has this [0-9]+ times"):
        patched("too vague", [("self", "it")])


@pytest.mark.parametrize(
    "name", ["a follower acknowledges its whole log", "reads without confirmation"]
)
def test_what_is_taken_out_is_noticed_and_nothing_else(name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    _, caught_by = hunt(mutant._replace(seeds=40))
    assert caught_by.startswith(tuple(mutant.breaks.split(", ")))
    assert hunt(Mutant("as it is", "", "nothing", [], mutant.shape, 1)) == (1, "")
