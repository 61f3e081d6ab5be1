"""The Makefile's `run`: the first command that a new user types."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the project, by links, without a .venv and a store."""
    for name in ("Makefile", "maelstrom", "raft.py", "node.py", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def make(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: word for name, word in os.environ.items() if "MAKE" not in name}
    environment = {**inherited, "MAELSTROM": "workbench"}  # of a make that runs the tests
    return subprocess.run(
        ["make", *words], cwd=clone, env=environment, capture_output=True, text=True, timeout=600
    )


def test_a_run_goes_on_without_its_page(clone: Path) -> None:
    made = make(clone, "run", "PYTHON=false", "RUN=test --help")
    assert made.returncode == 0
    assert "make: this run will have no report.html; to write it later: make report" in made.stdout
    assert "false must be Python 3.10 or newer" in made.stderr
    assert "usage: maelstrom test" in made.stdout


def test_a_run_ends_with_the_address_of_its_page_and_the_status_of_the_test(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / "page").touch()
    page = clone / "store" / "latest" / "report.html"
    page.parent.mkdir(parents=True)
    page.touch()
    good = make(clone, "run", "RUN=test --help")
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, f"file://{page}")
    assert "./maelstrom test --help" in good.stdout, "what can be typed as well"
    bad = make(clone, "run", "RUN=test --no-such-option")
    assert bad.returncode != 0 and bad.stdout.splitlines()[-1] == f"file://{page}"
