"""Writes report.html: a run's verdict, figures and charts on one page.

The page is self-contained and opens from disk. The charts use Bokeh, whose script is copied into
the page. So this module and its charts need the packages of tests/requirements.txt; the rest of the
workbench does not. `./maelstrom report` and the end of a run start a Python that has Bokeh:

    python -m workbench.report DIR...
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from ..console.quantiles import milliseconds, quantile
from ..record.history import OUTCOMES, Operation, shorten
from ..record.store import began
from ..units import SECOND
from ..verdicts import VERDICTS, get
from .charts import LIFE, charts
from .diagram import TITLE
from .drawing import markup
from .page import embed, page, section
from .plots import TEXT
from .reading import NO_LIFE, Run, read

WHY = 2_000  # characters shown of the reason for a verdict
PICTURE = 3_000_000  # largest drawing that is shown, in bytes
CYCLES = "elle/*/*.svg"  # drawings of cycles; Elle's own too
MOST_CYCLES = 20  # of them that are shown
HINT = '<p class="note sideways">A drawing that is wider than the window scrolls sideways.</p>'
PROCESS = re.compile(r"\bprocess (\d{1,9})\b")  # a process in the reason for a verdict
MOMENT = re.compile(r"\bat (\d{1,9}\.\d{1,9}) s\b")  # a time in it
STYLE = """\
.verdict { color: #fff; padding: 2px 10px; border-radius: 4px; }
.valid { background: var(--valid); } .invalid { background: var(--invalid); }
.unknown { background: var(--unknown); }
.why { white-space: pre-wrap; }
pre { background: var(--soft); padding: 8px 10px; border-radius: 4px; margin: 8px 0;
      white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
th:first-child, td:first-child { max-width: 30ch; overflow: hidden; text-overflow: ellipsis; }
select { font: inherit; max-width: 60vw; }
.states { font-size: 13px; }
.state { display: inline-block; margin-right: 14px; white-space: nowrap; }
.state i { display: inline-block; width: 22px; height: 11px; margin-right: 5px;
           outline: 1px solid var(--line); }
.picture { overflow-x: auto; }
.sideways { display: none; }
@media (max-width: 1300px) { .sideways { display: block; } }
.picture img { display: block; }
@media (max-width: 600px) { body { padding: 10px; }
  table { font-size: 13px; } th, td { padding: 3px 5px; } }
"""
SCRIPT = Path(__file__).with_name("report.js")


def write(folder: Path) -> Path:
    """Writes a run's page into its folder, and returns its path.

    Raises HistoryError if the folder is not that of a run, OSError if the page cannot be written.
    """
    path = folder / "report.html"
    path.write_text(html(read(folder)), encoding="utf-8", errors="replace")
    return path


def html(run: Run) -> str:
    """Returns the page. All data of the run is escaped, so that none of it can run as a script."""
    drawn = charts(run)
    sections, script = embed(drawn)
    names = [chart.name for chart in drawn]
    if drawn and not run.messages:
        place = names.index("rate") + 1
        sections.insert(place, _missing("messages", TITLE, run.no_messages))
    silent = run.no_life == NO_LIFE and run.messages  # a bench run of nodes without role lines
    if drawn and run.no_life and not silent:
        place = names.index("latency")
        sections.insert(place, _missing("life", LIFE, run.no_life))
    parts = [
        f"<header>\n{header(run)}\n</header>",
        section("figures", "Figures", figures(run)),
        *sections,
        pictures(run),
    ]
    scripts = [script, SCRIPT.read_text("utf-8")] if drawn else []
    title = f"{run.title}: {VERDICTS[run.verdict]}"
    return page(title, STYLE, "\n".join(parts), *scripts)


def _missing(name: str, title: str, why: str) -> str:
    """Returns a section that explains why a chart cannot be drawn."""
    return section(name, title, f'<p class="note">{_text(why, WHY)}</p>')


def header(run: Run) -> str:
    """Returns the head of the page: the verdict, its reasons, the command, and the run's time."""
    word = VERDICTS[run.verdict]
    parts = [
        f'<h1><span class="verdict {word}">{word}</span> {markup(shorten(run.title, 100))}</h1>'
    ]
    parts += [f'<p class="why">{_text(why, WHY)}{_more(run, why)}</p>' for why in run.whys[:20]]
    parts += [f"<p>Warning: {_text(warning, WHY)}</p>" for warning in run.warnings[:20]]
    sent = get(run.results, "net", "servers", "msg-count")
    if run.verdict is False and sent == 0 and len(run.nodes) > 1:
        parts.append('<p class="why">No node sent a message to another node.</p>')
    if len(run.whys) > 20:
        parts.append(f"<p>And {len(run.whys) - 20} more.</p>")
    if run.command:
        parts.append(f"<pre>{_text(run.command, WHY)}</pre>")
    facts = [
        f"nodes {_text(' '.join(run.nodes))}" if run.nodes else "",
        f"began {when}" if (when := began(run.folder.name)) != run.folder.name else "",
        f"{run.until / SECOND:,.1f} s long",
    ]
    parts.append(f"<p>{' · '.join(filter(None, facts))}</p>")
    files = ["timeline.html", "results.edn", "history.txt", "messages.jsonl", "jepsen.log"]
    names = [name for name in (*files, "node-logs") if (run.folder / name).exists()]
    links = [f'<a href="{name}">{name}</a>' for name in names]
    parts.append(f'<p class="note">{" · ".join(links)}</p>' if links else "")
    return "\n".join(filter(None, parts))


def _more(run: Run, why: str) -> str:
    """Completes the reason for a verdict: the nodes that its processes asked, and links."""
    asked = {name: run.asked(int(name)) for name in PROCESS.findall(why)}
    told = ", ".join(f"process {name} asked {node}" for name, node in asked.items() if node)
    links = []
    if times := [float(time) for time in MOMENT.findall(why)]:
        margin = max(0.05, (max(times) - min(times)) / 4)
        moment = f"#t={min(times) - margin:.3f},{max(times) + margin:.3f}"
        links.append(f'<a href="{moment}">Show this time in the charts</a>')
    if any(run.folder.glob("independent/*/linear.svg")):
        links.append('<a href="#pictures">See the drawing</a>')
    elif "T1 would come before itself" in why and any(run.folder.glob(CYCLES)):
        links.append('<a href="#cycles">See the drawing</a>')
    told = told[:1].upper() + told[1:]
    said = "".join(f" {part}." for part in (_text(told), *links) if part)
    return said if why.endswith(".") or not said else f".{said}"


def figures(run: Run) -> str:
    """Returns a table with a row for each kind of operation, and further figures below it."""
    kinds = sorted({op.f for op in run.operations})
    rows = [_row(run, kind, [op for op in run.operations if op.f == kind]) for kind in kinds]
    if len(kinds) > 1:
        rows.append(_row(run, "all", run.operations))
    ok = sum(op.type == "ok" for op in run.operations)
    lines = [f"{ok / len(run.operations):.1%} of the operations were ok" if run.operations else ""]
    messages = get(run.results, "net", "servers", "msgs-per-op")
    if isinstance(messages, (int, float)):
        lines.append(f"{messages:.2f} messages between servers per operation")
    heads = "".join(
        f"<th>{head}</th>"
        for head in ("", *OUTCOMES.values(), "p50", "p95", "p99", "max")
    )
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>\n<tbody>'
        + "\n".join(rows)
        + f"</tbody></table></div>\n<p>{' · '.join(filter(None, lines))}</p>\n"
        '<p class="note">Latencies are in ms, of ok operations only.</p>'
    )


def _row(run: Run, name: str, operations: Sequence[Operation]) -> str:
    took = sorted(run.end(op) - op.start for op in operations if op.type == "ok")
    cells = [f"{sum(op.type == type for op in operations):,}" for type in OUTCOMES]
    cells += [milliseconds(quantile(took, part)) if took else "" for part in (0.5, 0.95, 0.99, 1)]
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><td>{_text(name, 60)}</td>{row}</tr>"


def pictures(run: Run) -> str:
    """Returns the drawings of keys and those of cycles, each kind in a section."""
    keys = sorted(run.folder.glob("independent/*/linear.svg"))
    cycles = sorted(run.folder.glob(CYCLES))[:MOST_CYCLES]
    return "\n".join([
        _gallery("pictures", "Why the history is not linearizable", "key", keys),
        _gallery("cycles", "Why the transactions have no order", "a cycle of", cycles),
    ])  # fmt: skip


def _gallery(name: str, title: str, kind: str, paths: Sequence[Path]) -> str:
    """Returns a section of drawings, each named after its folder; "" without drawings."""
    if not paths:
        return ""
    parts = [_picture(path, f"{kind} {shorten(path.parent.name, 60)}") for path in paths]
    return section(name, title, "\n".join([HINT, *parts]))


def _picture(path: Path, name: str) -> str:
    """Returns a drawing as an image, because scripts in an image do not run."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"<p>{_text(str(path))} cannot be read: {error.strerror}</p>"
    if len(data) > PICTURE:
        return (
            f"<p>The drawing of {markup(name)} is larger than {PICTURE:,} bytes; "
            f"open {_text(str(path))}.</p>"
        )
    return (
        f'<div class="picture"><img alt="The drawing of {markup(name)}" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(data).decode()}"></div>'
    )


def _text(text: str, length: int = TEXT) -> str:
    return markup(shorten(text, length))
