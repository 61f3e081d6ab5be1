"""Consistency models of transactions, and the anomalies that each of them forbids.

Names are those of Elle 0.2.2 (K. Kingsbury and P. Alvaro, Elle: Inferring isolation anomalies from
experimental observations, 2020). A model forbids the anomalies of its own row in `MODELS`, and all
anomalies of the weaker models in that row. An anomaly thus rules out each model that forbids it,
and each stronger model.

    >>> sorted(forbidden(["read-uncommitted"]))
    ['G0', 'PL-1-cycle-exists', 'cyclic-versions', 'duplicate-elements']
    >>> ruled_out({"lost-update"})[0]
    ['cursor-stability', 'update-atomic']
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from ..record.history import HistoryError

# Each row: model, directly weaker models, anomalies that the model forbids in addition to theirs.
_ROWS: Final = """
read-uncommitted | | G0 cyclic-versions duplicate-elements PL-1-cycle-exists
read-committed | read-uncommitted | G1a G1b G1c dirty-update future-read incompatible-order \
    PL-2-cycle-exists
monotonic-view | read-committed |
monotonic-snapshot-read | read-committed |
monotonic-atomic-view | read-committed |
read-atomic | monotonic-atomic-view | internal
causal-cerone | read-atomic |
prefix | causal-cerone |
update-atomic | read-atomic | lost-update
parallel-snapshot-isolation | causal-cerone update-atomic |
cursor-stability | read-committed | lost-update
consistent-view | cursor-stability monotonic-view | G-single-item
forward-consistent-view | consistent-view |
update-serializable | forward-consistent-view |
repeatable-read | cursor-stability monotonic-atomic-view | G-single-item G-nonadjacent-item \
    G2-item PL-2.99-cycle-exists
snapshot-isolation | forward-consistent-view monotonic-atomic-view monotonic-snapshot-read \
    parallel-snapshot-isolation prefix | G-single-item G-nonadjacent-item PL-SI-cycle-exists
view-serializable | |
serializable | repeatable-read update-serializable snapshot-isolation view-serializable | \
    PL-3-cycle-exists
strong-session-read-uncommitted | read-uncommitted | G0-process strong-session-PL-1-cycle-exists
strong-session-read-committed | read-committed strong-session-read-uncommitted | G1c-process \
    strong-session-PL-2-cycle-exists
strong-session-snapshot-isolation | snapshot-isolation strong-session-read-committed | \
    G-single-item-process G-nonadjacent-item-process \
    strong-session-snapshot-isolation-cycle-exists
strong-session-serializable | serializable strong-session-snapshot-isolation | G2-item-process \
    strong-session-serializable-cycle-exists
strong-read-uncommitted | strong-session-read-uncommitted | G0-realtime strong-PL-1-cycle-exists
strong-read-committed | strong-session-read-committed strong-read-uncommitted | G1c-realtime \
    strong-PL-2-cycle-exists
strong-snapshot-isolation | strong-session-snapshot-isolation strong-read-committed | \
    G-single-item-realtime G-nonadjacent-item-realtime strong-snapshot-isolation-cycle-exists
1SR | |
session-serializable | 1SR |
monotonic-reads | |
monotonic-writes | |
read-your-writes | |
writes-follow-reads | |
PRAM | monotonic-reads monotonic-writes read-your-writes |
causal | writes-follow-reads PRAM |
sequential | causal |
linearizable | sequential |
strong-serializable | strong-session-serializable strong-snapshot-isolation linearizable \
    session-serializable | G2-item-realtime PL-SS-cycle-exists
"""

MODELS: Final[dict[str, tuple[tuple[str, ...], frozenset[str]]]] = {
    name.strip(): (tuple(below.split()), frozenset(forbids.split()))
    for name, below, forbids in (row.split("|") for row in _ROWS.strip().split("\n"))
}
"""Each model with the directly weaker models, and with the anomalies that it adds to theirs."""

CANONICAL: Final = {
    "read-uncommitted": "PL-1",
    "read-committed": "PL-2",
    "monotonic-view": "PL-2L",
    "monotonic-snapshot-read": "PL-MSR",
    "cursor-stability": "PL-CS",
    "consistent-view": "PL-2+",
    "forward-consistent-view": "PL-FCV",
    "update-serializable": "PL-3U",
    "repeatable-read": "PL-2.99",
    "snapshot-isolation": "PL-SI",
    "serializable": "PL-3",
    "strong-session-read-uncommitted": "strong-session-PL-1",
    "strong-session-read-committed": "strong-session-PL-2",
    "strong-read-uncommitted": "strong-PL-1",
    "strong-read-committed": "strong-PL-2",
    "strong-serializable": "PL-SS",
}
"""Adya's names, where they differ from the names in `MODELS`. Both are accepted."""

ALIASES: Final = {
    "strict-serializable": "strong-serializable",
    "conflict-serializable": "serializable",
    "ROLA": "update-atomic",
    **{adya: name for name, adya in CANONICAL.items()},
}

UNKNOWN_TYPES: Final = frozenset({"empty-transaction-graph", "cycle-search-timeout"})
"""Findings that make a verdict unknown, not false."""

# Which anomalies make the search for another one unnecessary. Suffixes are handled apart.
_IMPLIES: Final = {
    "G0": ("G1c",),
    "G-single-item": ("G-nonadjacent-item",),
    "G-nonadjacent-item": ("G2-item",),
}


def model_name(name: str) -> str:
    """Returns the name in `MODELS` of a model with any name. Raises HistoryError for others."""
    found = ALIASES.get(name, name)
    if found not in MODELS:
        known = ", ".join(sorted({*MODELS, *ALIASES}))
        raise HistoryError(f"there is no consistency model {name[:80]}; there are: {known}")
    return found


@cache
def _forbidden(model: str) -> frozenset[str]:
    below, own = MODELS[model]
    return own.union(*map(_forbidden, below))


def forbidden(models: Iterable[str]) -> frozenset[str]:
    """Returns the anomalies that at least one of the models forbids."""
    return frozenset().union(*(_forbidden(model_name(model)) for model in models))


@cache
def weaker(model: str) -> frozenset[str]:
    """Returns all weaker models, direct or not."""
    direct = MODELS[model][0]
    return frozenset(direct).union(*map(weaker, direct))


def with_stronger(models: Iterable[str]) -> set[str]:
    """Returns the models and all that are stronger: if one does not hold, none of them does."""
    found = set(models)
    return found | {model for model in MODELS if found & weaker(model)}


def impossible(anomalies: Iterable[str]) -> set[str]:
    """Returns the models that forbid at least one of the anomalies."""
    found = set(anomalies)
    return {model for model in MODELS if found & _forbidden(model)}


def ruled_out(anomalies: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns Elle's `:not` and `:also-not`: the weakest models ruled out, and all others."""
    models = impossible(anomalies)
    weakest = {model for model in models if not models & weaker(model)}
    return sorted(weakest), sorted(models - weakest)


@cache
def implied(anomaly: str) -> frozenset[str]:
    """Returns the types of cycles that need no search once this type was found.

    A cycle without steps in time also is one with such steps that happens to need none.
    """
    suffixes = ("", "-process", "-realtime")  # each implies the later ones
    suffix = next((suffix for suffix in suffixes[1:] if anomaly.endswith(suffix)), "")
    base = anomaly.removesuffix(suffix)
    later = [base + other for other in suffixes[suffixes.index(suffix) + 1 :]]
    wider = [other + suffix for other in _IMPLIES.get(base, ())]
    return frozenset({anomaly}).union(*map(implied, later + wider))
