"""Where a run is kept: store/<workload>/<time>/, and store/latest, as Jepsen lays it out."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from . import edn, linear, timeline
from .history import HistoryError, Op, by_key, clients, operations, to_edn, to_txt
from .workload import Results, Workload


def make(workload: str) -> Path:
    """Makes the folder of a new run, in the working directory."""
    while True:
        name = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        folder = Path("store").absolute() / workload / name
        try:
            (folder / "node-logs").mkdir(parents=True)
            return folder
        except FileExistsError:
            continue  # a run that began in this very millisecond


def write(folder: Path, history: list[Op], results: Results, workload: Workload) -> None:
    """Writes what a person or a tool wants to look at, and links the run as the latest one."""
    (folder / "history.edn").write_text("".join(f"{to_edn(op)}\n" for op in history))
    (folder / "history.txt").write_text("".join(f"{to_txt(op)}\n" for op in history))
    (folder / "results.edn").write_text(edn.pretty(results) + "\n")
    try:
        nemesis = [op for op in history if op.process == "nemesis"]
        title = f"{folder.parent.name} {folder.name}"
        page = timeline.html(operations(clients(history)), title, nemesis)
        (folder / "timeline.html").write_text(page)
    except HistoryError:  # of a run that was cut off: the history itself is there to be read
        pass
    keys = by_key(history) if workload.analyses else {}
    for key, analysis in workload.analyses.items():
        if analysis.valid is False:
            picture = folder / "independent" / str(key) / "linear.svg"
            picture.parent.mkdir(parents=True)
            picture.write_text(linear.svg(operations(keys[key]), analysis, f"key {key}"))
    link(folder.parent / "latest", folder)
    link(folder.parent.parent / "latest", folder)


def link(name: Path, folder: Path) -> None:
    """Makes `name` point to the folder, in one step: a run beside this one may do the same."""
    new = name.with_name(f".{folder.name}-{name.name}")
    new.symlink_to(folder.relative_to(name.parent))
    new.replace(name)
