"""The page with all runs in store/, with a row for each run.

The page must load quickly, even with a thousand runs. So a run is read again only if one of its
files has changed. A history may have 100,000 lines, so it is not parsed as EDN: see `_scan`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

from ..reasons import reasons
from ..record import edn
from ..record.history import OUTCOMES, Op, shorten
from ..record.store import NAMED_TIME, began, command
from ..report.drawing import faults, markup, stops
from ..units import SECOND
from ..verdicts import VERDICTS, get

MOST = 1_000  # maximum runs to show of a workload; the listing of its folder has all runs
LARGEST = 64_000_000  # maximum bytes of a file to read; takes 1 s for a history, 10 s for results
TEXT = 500  # maximum characters of a command
WHY = 2_000  # maximum characters of the reason why a run is not valid
ORDER = (*(VERDICTS[valid] for valid in (False, None, True)), "incomplete", "measured")
# Files that a row is computed from. The row is recomputed only if one of them changes.
PARTS = (
    *("results.edn", "history.edn", "jepsen.log", "node-logs"),
    *("bench.json", "compare.json", "bench.html", "report.html", "timeline.html"),
)
WIDTH, HEIGHT, BIN = 120, 28, 3  # size of a chart and width of its bars, in pixels


@dataclass
class Scan:
    """The completions and faults that `_scan` finds in a history."""

    # Times of completions by type, in ns.
    times: dict[str, list[int]] = field(default_factory=lambda: {type: [] for type in OUTCOMES})
    nemesis: list[Op] = field(default_factory=list)
    until: int = 0  # time of the last event, in ns


@dataclass(frozen=True)
class Run:
    """The contents of a run's row."""

    folder: Path
    verdict: str
    why: str
    counts: dict[str, int]  # number of operations by type
    nodes: int
    faults: list[str]
    seconds: float
    command: str
    picture: str  # SVG
    page: str  # name of the run's HTML page, "" without one


class Runs:
    """The runs in a store. Several threads may call `page`."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._lock = Lock()  # a second request waits, instead of reading the same runs
        self._known: dict[Path, tuple[object, Run]] = {}

    def page(self) -> str:
        """Returns the page with all current runs."""
        with self._lock:
            known, sections = {}, []
            for workload in sorted(_folders(self.store)):
                folders = sorted(_folders(workload), key=_age, reverse=True)
                for folder in folders[:MOST]:
                    known[folder] = self._read(folder)
                runs = [known[folder][1] for folder in folders[:MOST]]
                if runs:
                    sections.append(_section(workload, runs, len(folders) - len(runs)))
            self._known = known  # drops deleted runs
        return PAGE.format(style=STYLE, sections="\n".join(sections) or NOTHING)

    def _read(self, folder: Path) -> tuple[object, Run]:
        parts = {name: state for name in PARTS if (state := _state(folder / name))}
        known = self._known.get(folder)
        return known if known and known[0] == parts else (parts, read(folder, parts))


def _folders(folder: Path) -> list[Path]:
    """Lists the folders in a folder, without links such as `latest`."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # the folder was deleted meanwhile, or cannot be read
        return []


def _age(folder: Path) -> tuple[bool, str]:
    """Returns a key that sorts runs by start time; folders with other names count as older."""
    return bool(NAMED_TIME.fullmatch(folder.name)), folder.name


def _state(path: Path) -> tuple[int, int] | None:
    """Returns a path's modification time and size; None unless it is a file or a folder."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_mtime_ns, found.st_size) if plain else None


# Reading


def read(folder: Path, parts: dict[str, tuple[int, int]]) -> Run:
    """Reads the row of a run with these parts; a damaged file only leaves details out."""
    results, why = None, ""
    verdict = "measured" if {"bench.json", "compare.json"} & parts.keys() else "incomplete"
    if "results.edn" in parts:
        try:
            results = _results(folder / "results.edn", parts["results.edn"][1])
            verdict, why = _verdict(results), _why(results)
        except edn.EDNError as error:
            if not error.cut_off:  # cut off: the run is still writing it
                verdict, why = "unknown", f"results.edn cannot be read: {error}"
        except (OSError, ValueError) as error:
            verdict, why = "unknown", f"results.edn cannot be read: {error}"
    length = parts.get("history.edn", (0, LARGEST + 1))[1]
    scan = _scan(folder / "history.edn") if length <= LARGEST else Scan()
    return Run(
        folder=folder,
        verdict=verdict,
        why=shorten(why, WHY),
        counts=_counts(results) or {type: len(times) for type, times in scan.times.items()},
        nodes=sum(1 for _ in (folder / "node-logs").glob("*.log")) if "node-logs" in parts else 0,
        faults=sorted({op.f.partition("-")[2] or op.f for op in scan.nemesis}),
        seconds=scan.until / SECOND,
        command=shorten(command(folder, parts), TEXT),
        picture=picture(scan),
        page=next((name for name in PARTS[-3:] if name in parts), ""),
    )


def _results(path: Path, length: int) -> dict[Any, Any]:
    if length > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    found = edn.loads(path.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it does not contain an EDN map")
    return found


def _verdict(results: dict[Any, Any]) -> str:
    valid = get(results, "valid?")
    return VERDICTS[valid if isinstance(valid, bool) else None]


def _why(results: dict[Any, Any]) -> str:
    """Returns the first reason why a run is not valid; a broken rule has several lines."""
    return next(iter(reasons(results)), "")


def _counts(results: dict[Any, Any] | None) -> dict[str, int]:
    """Returns the counts in Jepsen's statistics; none if they are missing."""
    counts = {type: get(results, "stats", f"{type}-count") for type in OUTCOMES}
    return {type: count for type, count in counts.items() if isinstance(count, int)}


_TYPE = re.compile(rb":type :(ok|fail|info)\b")
_TIME = re.compile(rb":time (\d{1,18})\b")
_F = re.compile(rb":f :([\w-]+)")


def _scan(path: Path) -> Scan:
    """Finds times and types with regular expressions.

    This takes 0.1 s for 100,000 lines; parsing them as EDN takes 2 s. The workbench and Jepsen
    write one map a line. A value that looks like a type or a time gives a wrong bar in the chart,
    but never a wrong verdict.
    """
    scan = Scan()
    try:
        with path.open("rb") as file:
            for line in file:
                if b":type :invoke" in line or not (time := _TIME.search(line)):
                    continue
                when = int(time[1])
                scan.until = max(scan.until, when)
                if b":process :nemesis" in line:
                    if f := _F.search(line):
                        index = len(scan.nemesis)
                        scan.nemesis.append(Op("nemesis", "info", f[1].decode(), None, when, index))
                elif type := _TYPE.search(line):
                    scan.times[type[1].decode()].append(when)
    except OSError:
        pass  # the file was deleted meanwhile, or cannot be read: draw the events found so far
    return scan


# The chart


def picture(scan: Scan) -> str:
    """Draws completions over time as stacked bars, and faults as grey areas behind them."""
    if not scan.until:  # nothing completed, or a history without times
        return ""
    bins = WIDTH // BIN
    heights = {
        type: Counter(time * bins // (scan.until + 1) for time in times)
        for type, times in scan.times.items()
    }
    highest = max((sum(heights.values(), Counter())).values(), default=1)
    drawn = [f'<path class="fault" d="{_shade(scan)}"/>'] if scan.nemesis else []
    tops: Counter[int] = Counter()  # operations drawn so far in each bin
    for type in OUTCOMES:
        path = []
        for place, count in sorted(heights[type].items()):
            below = HEIGHT - round(HEIGHT * tops[place] / highest)
            tops[place] += count
            above = HEIGHT - round(HEIGHT * tops[place] / highest)
            path.append(f"M{place * BIN} {below}V{above}h{BIN}V{below}z")
        if path:
            drawn.append(f'<path class="{type}" d="{"".join(path)}"/>')
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="operations over time">{"".join(drawn)}</svg>'
    )


def _shade(scan: Scan) -> str:
    """Draws the pixel columns during faults; adjacent columns become one rectangle."""
    under: set[int] = set()
    for events in faults(scan.nemesis):
        end = events[-1].time if stops(events[-1]) else scan.until
        first, last = (time * WIDTH // (scan.until + 1) for time in (events[0].time, end))
        under.update(range(first, last + 1))
    begins = sorted(x for x in under if x - 1 not in under)
    ends = sorted(x + 1 for x in under if x + 1 not in under)
    return "".join(
        f"M{begin} 0H{end}V{HEIGHT}H{begin}z" for begin, end in zip(begins, ends, strict=True)
    )


# The page

STYLE = """
:root { color-scheme: light dark; --line: #8886;
        --valid: #2E8B57; --invalid: #C8322B; --unknown: #B36B00; --incomplete: #707070; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1200px;
       padding: 16px; background: Canvas; color: CanvasText; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 28px 0 6px; overflow-wrap: anywhere; }
h2 small { font-weight: normal; opacity: .75; font-size: 13px; margin-left: 8px; }
p { margin: 6px 0; }
ol { list-style: none; margin: 0; padding: 0; }
/* Fixed column widths, so that the columns of all rows are aligned. */
li { display: grid; grid-template-columns: 90px 200px 120px minmax(0, 1fr) auto; gap: 0 14px;
     align-items: center; padding: 7px 4px 7px 10px; border-bottom: 1px solid var(--line);
     border-left: 5px solid; font-variant-numeric: tabular-nums; }
li.valid { border-left-color: var(--valid); } li.invalid { border-left-color: var(--invalid); }
li.unknown { border-left-color: var(--unknown); }
li.incomplete, li.measured { border-left-color: var(--incomplete); }
b { color: #fff; padding: 1px 8px; border-radius: 4px; font-size: 13px; justify-self: start; }
.valid b { background: var(--valid); } .invalid b { background: var(--invalid); }
.unknown b { background: var(--unknown); } .incomplete b,
.measured b { background: var(--incomplete); }
.began, .facts { overflow-wrap: anywhere; }
svg, .none { display: block; width: 120px; height: 28px; border-bottom: 1px solid var(--line); }
.none { border: 0; }
path.ok, i.ok { fill: #3B8FDB; background: #3B8FDB; }
path.fail, i.fail { fill: #D6569F; background: #D6569F; }
path.info, i.info { fill: #E08A00; background: #E08A00; }
path.fault, i.fault { fill: #8885; background: #8885; }
i { display: inline-block; width: 11px; height: 11px; margin: 0 4px 0 10px; }
.links a { margin-left: 12px; }
.why, code { grid-column: 2 / -1; font-size: 13px; }
.why { overflow-wrap: anywhere; white-space: pre-wrap;
       color: light-dark(#A8241E, #FF8A80); }
.unknown .why { color: inherit; }
code { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; opacity: .75; }
code:hover, code:focus { white-space: normal; overflow-wrap: anywhere; }
.note { opacity: .75; font-size: 13px; }
@media (max-width: 760px) {
  body { padding: 10px; }
  li { grid-template-columns: 90px minmax(0, 1fr); gap: 3px 10px; }
  svg { grid-column: 1 / -1; } .none { display: none; }
  .facts, .links, .why, code { grid-column: 1 / -1; }
  .links a { margin: 0 16px 0 0; padding: 4px 0; display: inline-block; }
}
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Runs</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>{style}</style></head><body>
<header><h1>Runs</h1>
<p class="note">Each chart shows a run's operations over time:<i class="ok"></i>ok
<i class="fail"></i>failed <i class="info"></i>unknown <i class="fault"></i>during a fault</p>
</header>
{sections}
</body></html>
"""
NOTHING = "<p>There are no runs yet. To make one: ./maelstrom test --help</p>"
# The browser runs no script, even if escaping fails, and loads nothing from elsewhere.
POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'"
)


def _section(workload: Path, runs: list[Run], left_out: int) -> str:
    count = Counter(run.verdict for run in runs)
    told = ", ".join(f"{count[verdict]} {verdict}" for verdict in ORDER if count[verdict])
    link = f'<a href="{_href(workload.name)}/">'
    more = f"<p>{link}{left_out:,} older runs</a> are not shown.</p>" if left_out else ""
    rows = "\n".join(map(_row, runs))
    return (
        f"<section><h2>{link}{markup(workload.name)}</a><small>{told}</small></h2>\n"
        f"<ol>\n{rows}\n</ol>{more}</section>"
    )


def _row(run: Run) -> str:
    files = _href(run.folder.parent.name, run.folder.name)
    main = f"{files}/{run.page}"  # without a page, the folder
    links = [f'<a href="{main}">{run.page.split(".")[0]}</a>'] if run.page else []
    links.append(f'<a href="{files}/">files</a>')
    code = f'<code tabindex="0">{markup(run.command)}</code>' if run.command else ""
    return "\n".join(
        filter(
            None,
            [
                f'<li class="{run.verdict}"><b>{run.verdict}</b>',
                f'<a class="began" href="{main}">{markup(began(run.folder.name))}</a>',
                run.picture or '<span class="none"></span>',
                f'<span class="facts">{_facts(run)}</span>',
                f'<span class="links">{"".join(links)}</span>',
                f'<span class="why">{markup(run.why)}</span>' if run.why else "",
                f"{code}</li>",
            ],
        )
    )


def _facts(run: Run) -> str:
    total = sum(run.counts.values())
    parts = [f"{run.counts.get(type, 0):,} {OUTCOMES[type]}" for type in OUTCOMES]
    facts = [
        f"{total:,} operations ({', '.join(parts)})" if total else "",
        f"{run.nodes} node{'s' * (run.nodes != 1)}" if run.nodes else "",
        f"faults: {shorten(', '.join(run.faults), 200)}" if run.faults else "",
        f"{run.seconds:,.1f} s" if run.seconds else "",
    ]
    return markup(" · ".join(filter(None, facts)))


def _href(*names: str) -> str:
    """Returns the URL of a file in the store, quoted as in the standard library's listing."""
    return "".join(f"/{quote(name, errors='surrogatepass')}" for name in names)
