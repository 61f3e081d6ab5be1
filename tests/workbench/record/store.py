"""Where a run is kept: store/<workload>/<time>/, and store/latest, as Jepsen lays it out."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Container, Iterable, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

from ..report import linear, timeline
from ..verdicts import Results
from ..workloads.workload import Workload
from . import edn, journal, life
from .history import HistoryError, Op, by_key, clients, operations, to_edn, to_txt

ROOT = Path(__file__).resolve().parents[3]
REPORT = "MAELSTROM_REPORT"
COMMAND = "; command "  # in results.edn, and then its words as EDN
NAMED_TIME = re.compile(r"\d{8}T\d{6}(\.\d+)?(Z|[+-]\d{4})?")  # of a folder of Jepsen's


def make(workload: str) -> Path:
    """Makes the folder of a new run, in the working directory. OSError if it cannot be made."""
    runs = Path("store").absolute() / workload
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"no folder for the run can be made here ({error.strerror})"
        raise OSError(error.errno, why, error.filename) from error
    while True:
        folder = runs / (datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z")
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # a run that began in this very millisecond
        (folder / "node-logs").mkdir()
        return folder


def write(
    folder: Path,
    history: list[Op],
    results: Results,
    workload: Workload,
    command: Sequence[str] = (),
    lines: Sequence[life.Line] = (),
    messages: Iterable[str] = (),
) -> None:
    """Writes what a person or a tool wants to look at, and links the run as the latest one.

    A comment in results.edn has the words of the command that gave it. life.edn has the `lines` in
    which nodes said what they are, messages.jsonl those of the messages, if there are any. OSError,
    with the name of the file, for what cannot be written.
    """
    _save(folder / "history.edn", "".join(f"{to_edn(op)}\n" for op in history))
    _save(folder / "history.txt", "".join(f"{to_txt(op)}\n" for op in history))
    comment = f"{COMMAND}{edn.dumps(command)}\n" if command else ""
    _save(folder / "results.edn", comment + edn.pretty(results) + "\n")
    if lines:
        _save(folder / life.NAME, life.to_edn(lines, folder))
    if text := "".join(messages):
        _save(folder / journal.NAME, text)
    try:
        nemesis = [op for op in history if op.process == "nemesis"]
        title = f"{folder.parent.name} {folder.name}"
        _save(folder / "timeline.html", timeline.html(operations(clients(history)), title, nemesis))
    except HistoryError:  # of a run that was cut off: the history itself is there to be read
        pass
    invalid = {key: found for key, found in workload.analyses.items() if found.valid is False}
    keys = by_key(history) if invalid else {}
    for key, analysis in invalid.items():
        picture = folder / "independent" / str(key) / "linear.svg"
        picture.parent.mkdir(parents=True)
        _save(picture, linear.svg(operations(keys[key]), analysis, f"key {key}"))
    _link(folder.parent / "latest", folder)
    _link(folder.parent.parent / "latest", folder)


def command(folder: Path, names: Container[str] = ("results.edn", "jepsen.log")) -> str:
    """The command that ran it: ours is noted in results.edn, Jepsen's at the start of its log.

    Only files of these names are looked into.
    """
    first = _beginning(folder / "results.edn", 1) if "results.edn" in names else ""
    if first.startswith(COMMAND):
        try:
            words = edn.loads(first.removeprefix(COMMAND))
        except edn.EDNError:
            return ""
        return shlex.join(map(str, words)) if isinstance(words, list) else ""
    log = _beginning(folder / "jepsen.log", 50) if "jepsen.log" in names else ""
    found = re.search(r"Command line:\s*(\S.*)", log)
    return found[1] if found else ""


def began(name: str) -> str:
    """When a run of this name began, for people; another name as it is."""
    if not NAMED_TIME.fullmatch(name):
        return name
    try:
        time = datetime.strptime(name[:15], "%Y%m%dT%H%M%S")
    except ValueError:
        return name
    zone = re.sub(r"^[^Z+-]*", "", name[15:])
    return f"{time:%Y-%m-%d %H:%M:%S} {'UTC' if zone == 'Z' else zone}".rstrip()


def complaints(folder: Path) -> list[str]:
    """What to look at among the nodes' logs: those with a Python node's traceback."""
    found = []
    for log in sorted((folder / "node-logs").iterdir()):
        count, failed = 0, False
        with log.open("rb") as lines:  # which may be more than the memory holds
            for line in lines:
                count, failed = count + 1, failed or line.startswith(b"Traceback")
        if failed:
            found.append(f"{log.stem} wrote {count} lines to node-logs/{log.name}")
    return found


def wants_report() -> bool:
    """Is report.html to be written after a run? It is, unless $MAELSTROM_REPORT is no."""
    return os.environ.get(REPORT) != "no"


def reporter() -> Path | None:
    """A Python that has Bokeh, to write report.html with: this one, or that of .venv."""
    if importlib.util.find_spec("bokeh"):
        return Path(sys.executable)
    python = ROOT / ".venv" / "bin" / "python"
    found = any((ROOT / ".venv" / "lib").glob("python3*/site-packages/bokeh"))
    return python if found and python.exists() else None


def report(python: Path, folders: Sequence[Path]) -> int:
    """Has that Python write report.html of each run; its exit status. It says what is wrong.

    A child does it: what goes wrong there, whatever it is, leaves the run's verdict alone.
    """
    path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [python, "-m", "workbench.report", *map(str, folders)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ).returncode


def _beginning(path: Path, lines: int) -> str:
    """Its first lines; "" if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(islice(file, lines))
    except OSError:
        return ""


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:  # one of a full disk has no name
        raise OSError(error.errno, error.strerror, str(path)) from error


def _link(name: Path, folder: Path) -> None:
    """Makes `name` point to the folder, in one step: a run beside this one may do the same."""
    new = name.with_name(f".{folder.name}-{name.name}")
    try:
        new.symlink_to(folder.relative_to(name.parent))
        new.replace(name)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(name)) from error
