"""The folder of a run, and what stands in its way."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workbench.record import store
from workbench.record.edn import Keyword
from workbench.record.history import Op
from workbench.workloads.echo import Echo
from workbench.workloads.workload import Settings

HISTORY = [
    Op(0, "invoke", "echo", "ヽ", 0, 0),
    Op(0, "ok", "echo", "\ud800", 1, 1),
]


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path) -> None:
    store.write(folder, HISTORY, {Keyword("valid?"): True}, Echo(random.Random(0), Settings(1)))


def test_a_run_has_its_files_and_is_the_latest() -> None:
    for _ in range(2):
        folder = store.make("echo")
        write(folder)
        for latest in (Path("store/latest"), Path("store/echo/latest")):
            assert latest.is_symlink() and latest.resolve() == folder
    names = {path.name for path in folder.iterdir()}
    assert names == {"history.edn", "history.txt", "node-logs", "results.edn", "timeline.html"}
    assert "ヽ" in (folder / "history.txt").read_text("utf-8")
    assert len(list(Path("store/echo").iterdir())) == 3  # two runs and a link; no rest of a link


def test_two_runs_of_one_millisecond_have_two_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    mkdir = Path.mkdir

    def late(path: Path, *args: Any, **options: Any) -> None:
        """Another run always makes the first folder that this one tries."""
        if path.parent.name == "echo" and not made:
            made.append(path)
            mkdir(path)
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", late)
    folder = store.make("echo")
    assert folder.is_dir() and [folder] != made


def in_the_way(kind: str) -> None:
    if kind == "file":
        Path("store").touch()
    elif kind == "dangling link":
        Path("store").symlink_to("nowhere")
    else:
        Path("store").mkdir()
        Path("store/echo").touch()


@pytest.mark.parametrize("kind", ["file", "dangling link", "file inside"])
def test_no_folder_can_be_made(kind: str) -> None:
    in_the_way(kind)
    with pytest.raises(OSError, match="cannot make the run's folder in the working dir"):
        store.make("echo")


def test_latest_is_a_folder(cwd: Path) -> None:
    """All the rest is written, the error names the folder, and no half-made link stays."""
    folder = store.make("echo")
    (cwd / "store" / "latest").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write(folder)
    assert caught.value.filename == str(cwd / "store" / "latest")
    assert (folder / "results.edn").exists()
    assert {path.name for path in Path("store").iterdir()} == {"echo", "latest"}


def test_a_full_disk_has_the_name_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.make("echo")

    def full(path: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError) as caught:
        write(folder)
    assert caught.value.filename == str(folder / "history.edn")


def test_files_are_utf_8_whatever_the_terminal_shows(cwd: Path) -> None:
    code = "from workbench.record import store; store._save(store.Path('x'), '\\u30fd\\ud800')"
    subprocess.run(
        [sys.executable, "-c", code],
        env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        | {"PYTHONPATH": str(Path(__file__).parent)},
        check=True,
    )
    assert (cwd / "x").read_text("utf-8") == "ヽ?"


def test_only_logs_with_tracebacks_are_pointed_out() -> None:
    logs = store.make("echo") / "node-logs"
    (logs / "n0.log").write_text("I am well\nno Traceback\n")
    (logs / "n1.log").write_bytes(b"\xff\nTraceback (most recent call last):\n  x\nKeyError: 1\n")
    assert store.complaints(logs.parent) == ["n1 wrote 4 lines to node-logs/n1.log"]
