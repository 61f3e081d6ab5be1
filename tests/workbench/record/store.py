"""The folder of a run: store/<workload>/<time>/, and links such as store/latest, as in Jepsen."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Container, Iterable, Sequence
from datetime import datetime, timezone
from itertools import islice, pairwise
from pathlib import Path

from ..report import cycles, linear, timeline
from ..verdicts import Results
from ..workloads.workload import Workload
from . import edn, journal, life, node_log
from .history import HistoryError, Op, by_key, clients, operations, to_edn, to_txt

ROOT = Path(__file__).resolve().parents[3]
REPORT = "MAELSTROM_REPORT"
COMMAND = "; command "  # in results.edn, followed by the words of the command as EDN
NAMED_TIME = re.compile(r"\d{8}T\d{6}(\.\d+)?(Z|[+-]\d{4})?")  # name of a run's folder


def make(workload: str) -> Path:
    """Makes the folder of a new run, in the working directory. Raises OSError if that fails."""
    runs = Path("store").absolute() / workload
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"cannot make the run's folder in the working directory ({error.strerror})"
        raise OSError(error.errno, why, error.filename) from error
    while True:
        folder = runs / (datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z")
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another run began in the same millisecond
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
    """Writes a run's files, and links it as the latest run.

    The `command` becomes a comment in results.edn. The `lines` in which nodes state their roles
    become life.edn, and `messages` becomes messages.jsonl. Both files are omitted if empty. Raises
    OSError with the name of a file that cannot be written.
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
    except HistoryError:  # the run was cut off; its history is saved all the same
        pass
    invalid = {key: found for key, found in workload.analyses.items() if found.valid is False}
    keys = by_key(history) if invalid else {}
    for key, analysis in invalid.items():
        picture = folder / "independent" / str(key) / "linear.svg"
        picture.parent.mkdir(parents=True)
        _save(picture, linear.svg(operations(keys[key]), analysis, f"key {key}"))
    if workload.transactions:
        for name, text in cycles.files(workload.transactions).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _save(folder / name, text)
    _link(folder.parent / "latest", folder)
    _link(folder.parent.parent / "latest", folder)


def command(folder: Path, names: Container[str] = ("results.edn", "jepsen.log")) -> str:
    """Returns the command of a run: from our results.edn, or from the start of Jepsen's log.

    Only files in `names` are read. Returns "" if no command is found.
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


def workload(folder: Path, known: Container[str]) -> str:
    """Returns the workload of a run: from its command, or from the name of its parent folder.

    Returns "" if the command names no workload, and the parent's name is not a known one.
    """
    parent = folder.resolve().parent.name
    return option(folder, "--workload", "-w") or (parent if parent in known else "")


def option(folder: Path, *names: str) -> str:
    """Returns the value of an option in the command of a run; "" if the command lacks it."""
    try:
        words = shlex.split(command(folder))
    except ValueError:  # a quotation mark without its partner, in Jepsen's log
        words = []
    words = words[: words.index("--")] if "--" in words else words
    found = [value for word, value in pairwise(words) if word in names]
    found += [
        word.partition("=")[2] for word in words if word.startswith(tuple(f"{n}=" for n in names))
    ]
    return found[-1] if found else ""


def began(name: str) -> str:
    """Turns a run's name into its time for people. Returns any other name unchanged."""
    if not NAMED_TIME.fullmatch(name):
        return name
    try:
        time = datetime.strptime(name[:15], "%Y%m%dT%H%M%S")
    except ValueError:
        return name
    zone = re.sub(r"^[^Z+-]*", "", name[15:])
    return f"{time:%Y-%m-%d %H:%M:%S} {'UTC' if zone == 'Z' else zone}".rstrip()


def complaints(folder: Path) -> list[str]:
    """Lists the nodes' logs that contain a Python traceback."""
    found = []
    for log in sorted((folder / "node-logs").iterdir()):
        count, failed = 0, False
        with log.open("rb") as lines:  # read line by line: a log may exceed the memory
            for line in node_log.said(lines):
                count, failed = count + 1, failed or line.startswith(b"Traceback")
        if failed:
            found.append(f"{log.stem} wrote {count} lines to node-logs/{log.name}")
    return found


def wants_report() -> bool:
    """Tells whether to write report.html after a run: yes, unless $MAELSTROM_REPORT is "no"."""
    return os.environ.get(REPORT) != "no"


def reporter() -> Path | None:
    """Finds a Python with Bokeh, to write report.html: this one, or that of .venv."""
    if importlib.util.find_spec("bokeh"):
        return Path(sys.executable)
    python = ROOT / ".venv" / "bin" / "python"
    found = any((ROOT / ".venv" / "lib").glob("python3*/site-packages/bokeh"))
    return python if found and python.exists() else None


def report(python: Path, folders: Sequence[Path]) -> int:
    """Runs `python` to write report.html of each run, and returns its exit status.

    It runs as a child process, so that no failure of it changes the run's verdict. It prints its
    own errors.
    """
    path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [python, "-m", "workbench.report", *map(str, folders)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches only this process, which then kills the child
    ).returncode


def _beginning(path: Path, lines: int) -> str:
    """Returns a file's first lines; "" if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(islice(file, lines))
    except OSError:
        return ""


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:  # the error of a full disk lacks the file's name
        raise OSError(error.errno, error.strerror, str(path)) from error


def _link(name: Path, folder: Path) -> None:
    """Links `name` to the folder, atomically: another run may do the same at the same time."""
    new = name.with_name(f".{folder.name}-{name.name}")
    try:
        new.symlink_to(folder.relative_to(name.parent))
        new.replace(name)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(name)) from error
