"""Takes one rule at a time out of raft.py, and expects to be noticed: `make mutants`.

A mutant is a patch of raft.py. It runs in the simulation, seed by seed, in a shape of run in which
it shows soon, until an invariant, a rule of the protocol or the checker of histories notices.
What random runs hardly ever see names a test of the paper's rules instead. raft.py as it is must
pass all of that.

    make mutants                        # all of them
    make mutants ARGS="'two votes'"     # those with these words in their name
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

TESTS = tuple(f"tests/test_{name}.py" for name in ("raft", "snapshot", "storage", "return"))
NEEDED = ("node.py", "pyproject.toml", "tests/in_process.py", *TESTS)


class Outcome(NamedTuple):
    """How a mutant fared: the seeds that it survived, and what caught it, if anything has."""

    survived: int
    caught_by: str


def patched(name: str, patches: Sequence[Patch]) -> str:
    """raft.py's text with these patches. LookupError if one of them does not fit it."""
    text = (ROOT / "raft.py").read_text()
    for old, new in patches:
        if (count := text.count(old)) != 1:
            raise LookupError(f"{name}: raft.py has this {count} times, and not once:\n{old}")
        text = text.replace(old, new)
    return text


def fate(mutant: Mutant) -> tuple[Mutant, Outcome]:
    """A mutant and how it fared: they end in any order."""
    return mutant, hunt(mutant)


def hunt(mutant: Mutant) -> Outcome:
    """Runs a mutant until it is caught, or has survived all its seeds and its test."""
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
    """What is wrong with one run; empty if nothing is."""
    argv = ["--bin", str(binary), "--simulate", "--seed", str(seed), *words.split()]
    with tempfile.TemporaryDirectory() as run:  # each has stable storage of its own
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
    return next((f"checker: {found.why}" for found in analyses if found.valid is False), "")


def fails(test: str, folder: Path) -> str:
    """The test's name if it fails with the raft.py of a folder, else nothing."""
    shutil.copytree(ROOT / "tests" / "workbench", folder / "tests" / "workbench")
    for name in NEEDED:
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", test]
    done = subprocess.run([*command, *TESTS], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # no such test, or none that could be run
        raise LookupError(f"pytest -k {test!r} ended with {done.returncode}:\n{done.stdout}")
    return test if done.returncode else ""


def healthy(mutants: Sequence[Mutant], seeds: int) -> Iterator[Mutant]:
    """raft.py as it is, where these mutants are looked for."""
    for shape in dict.fromkeys(mutant.shape for mutant in mutants if not mutant.test):
        yield Mutant(f"as it is: {shape}", "", "nothing", [], shape, seeds)
    if tests := [mutant.test for mutant in mutants if mutant.test]:
        yield Mutant("as it is: the tests", "", "nothing", [], test=" or ".join(tests))


def shown(mutant: Mutant, outcome: Outcome) -> str:
    """A line for people, and what was noticed below it."""
    if mutant.test:
        how = "its test failed" if outcome.caught_by else "its test passed"
    else:
        how = f"survived {outcome.survived} seed{'s' * (outcome.survived != 1)}"
    lines = [f"{mutant.name} ({mutant.section}, {mutant.breaks}): {how}"]
    if not mutant.section:
        lines = [f"{mutant.name}: {how}"]
    if outcome.caught_by:
        lines.append(f"    {outcome.caught_by.splitlines()[0]}")
    return "\n".join(lines)


def main() -> int:
    """The exit status: 0 if all mutants were caught, and raft.py as it is was not."""
    parser = argparse.ArgumentParser(description="Takes rules out of raft.py, one at a time.")
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name")
    parser.add_argument("--seeds", type=int, default=10**9, help="try no more than so many of each")
    parser.add_argument("--healthy", type=int, default=20, help="seeds of raft.py as it is")
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
            print(f"{'WRONG: ' * is_wrong}{shown(mutant, outcome)}", flush=True)
    print(f"\n{len(chosen)} mutants, {len(wrong)} wrong{': ' * bool(wrong)}{', '.join(wrong)}")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except LookupError as error:  # raft.py, or a test's name, has changed
        sys.exit(f"mutants: {error}")
