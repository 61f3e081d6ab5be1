"""Removes one rule at a time from raft.py; each of these mutants must be caught: `make mutants`.

A mutant is a patch of raft.py. It runs in the simulation, one seed after the other, until an
invariant, a rule of the protocol or the checker of histories fails. The shape of its runs is one
in which its bug shows early. A mutant that random runs rarely catch names a test of the paper's
rules instead. The unchanged raft.py must pass the same runs and tests.

    make mutants                        # all of them
    make mutants ARGS="'two votes'"     # the mutants with these words in their name
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mutants_table import MUTANTS, SHAPES, Mutant, Patch  # noqa: E402
from workbench.running import options  # noqa: E402
from workbench.running.prepare import prepare  # noqa: E402
from workbench.soak.seeds import Quiet  # noqa: E402

FILES = (
    "raft", "snapshot", "storage", "return", "log", "follower", "clients", "sessions", "members",
    "times", "txn",
)  # fmt: skip
TESTS = tuple(f"tests/test_{name}.py" for name in FILES)
NEEDED = ("node.py", "pyproject.toml", "tests/in_process.py", "tests/remembered.py", *TESTS)


class Outcome(NamedTuple):
    """The result of running a mutant."""

    survived: int  # number of seeds that found nothing, before the seed that caught the mutant
    caught_by: str  # the failed check or test; "" if the mutant survived


def patched(name: str, patches: Sequence[Patch]) -> str:
    """Returns raft.py with these patches. LookupError if a patch does not match exactly once."""
    text = (ROOT / "raft.py").read_text()
    for old, new in patches:
        if (count := text.count(old)) != 1:
            raise LookupError(
                f"{name}: raft.py has this {count} times; the patch must match exactly once, so "
                f"update it in tests/mutants_table.py:\n{old}"
            )
        text = text.replace(old, new)
    return text


def fate(mutant: Mutant) -> tuple[Mutant, Outcome]:
    """Returns a mutant with its outcome, since the pool returns outcomes in any order."""
    return mutant, hunt(mutant)


def hunt(mutant: Mutant) -> Outcome:
    """Runs a mutant's test, or its seeds until one of them catches the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "raft.py"
        if mutant.test:
            binary.write_text(patched(mutant.name, mutant.patches))
            return Outcome(0, fails(mutant.test, Path(folder)))
        binary.write_text(patched(mutant.name, mutant.patches))
        binary.chmod(0o755)
        for seed in range(mutant.seeds):
            if noticed := simulate(binary, SHAPES[mutant.shape], seed):
                return Outcome(seed, noticed)
    return Outcome(mutant.seeds, "")


def simulate(binary: Path, words: str, seed: int) -> str:
    """Simulates one run; returns the first failure, or ""."""
    argv = ["--bin", str(binary), "--simulate", "--seed", str(seed), *words.split()]
    with tempfile.TemporaryDirectory() as run:  # separate stable storage for each run
        logs = Path(run) / "node-logs"
        logs.mkdir()
        runner = prepare(options.parse(argv), logs, Quiet())
        record = runner.run()
    if record.cut_short:
        raise SystemExit(130)
    if wrong := [*record.problems, *filter(None, [record.crash])]:
        return wrong[0]
    runner.workload.check(record.history)
    analyses = runner.workload.analyses.values()
    return next((f"checker: {one.contradiction}" for one in analyses if one.contradiction), "")


def fails(test: str, folder: Path) -> str:
    """Runs a test with the raft.py of a folder; returns the test's name if it fails, else ""."""
    shutil.copytree(ROOT / "tests" / "workbench", folder / "tests" / "workbench")
    for name in NEEDED:
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", test]
    done = subprocess.run([*command, *TESTS], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # pytest found no such test, or could not run it
        raise LookupError(f"pytest -k {test!r} ended with {done.returncode}:\n{done.stdout}")
    return test if done.returncode else ""


def healthy(mutants: Sequence[Mutant], seeds: int) -> Iterator[Mutant]:
    """Yields the unchanged raft.py, to run in the shapes and tests of these mutants."""
    for shape in dict.fromkeys(mutant.shape for mutant in mutants if not mutant.test):
        yield Mutant(f"unchanged raft.py: {shape}", "", "nothing", [], shape, seeds)
    if tests := [mutant.test for mutant in mutants if mutant.test]:
        yield Mutant("unchanged raft.py: the tests", "", "nothing", [], test=" or ".join(tests))


def shown(mutant: Mutant, outcome: Outcome) -> str:
    """Returns the mutant's result as a line of text, followed by the failure that caught it."""
    if mutant.test:
        how = "caught by its test" if outcome.caught_by else "passed its test"
    elif outcome.caught_by:
        how = f"caught by seed {outcome.survived}"
    else:
        how = f"passed {outcome.survived} seed{'s' * (outcome.survived != 1)}"
    lines = [f"{mutant.name} ({mutant.section}, {mutant.breaks}): {how}"]
    if not mutant.section:
        lines = [f"{mutant.name}: {how}"]
    if outcome.caught_by:
        lines.append(f"    {outcome.caught_by.splitlines()[0]}")
    return "\n".join(lines)


def main() -> int:
    """Returns the exit status: 0 if every mutant was caught and the unchanged raft.py was not."""
    parser = argparse.ArgumentParser(
        description="Removes one rule at a time from raft.py; each of these mutants must be caught."
    )
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name")
    parser.add_argument("--seeds", type=int, default=10**9, help="maximum seeds for each mutant")
    parser.add_argument(
        "--healthy", type=int, default=20,
        help="seeds for the unchanged raft.py (default: %(default)s)",
    )  # fmt: skip
    given = parser.parse_args()
    words = given.words or [""]
    chosen = [
        mutant._replace(seeds=min(mutant.seeds, given.seeds))
        for mutant in MUTANTS
        if any(word in mutant.name for word in words)
    ]
    for mutant in chosen:
        patched(mutant.name, mutant.patches)
    wrong = []
    hunted = [*healthy(chosen, given.healthy), *chosen]
    with multiprocessing.Pool() as pool:
        for mutant, outcome in pool.imap_unordered(fate, hunted):
            is_wrong = bool(outcome.caught_by) is not bool(mutant.patches)
            wrong += [mutant.name] * is_wrong
            print(f"{'UNEXPECTED: ' * is_wrong}{shown(mutant, outcome)}", flush=True)
    if not chosen:
        print(f"no mutant has {' or '.join(map(repr, words))} in its name")
    elif wrong:
        print(f"\n{len(chosen)} mutants, {len(wrong)} unexpected: {', '.join(wrong)}")
    else:
        print(f"\n{len(chosen)} mutant{'s' * (len(chosen) != 1)}, all caught")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except LookupError as error:  # a patch or a test's name does not fit the current raft.py
        sys.exit(f"mutants: {error}")
