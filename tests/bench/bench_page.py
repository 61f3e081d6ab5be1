#!/usr/bin/env python3
"""bench.html: what make bench and make bench-compare have found, on a page for a browser.

    bench_page.py DIR...

writes the page of each folder from its bench.json, its compare.json or both. It needs Bokeh, whose
script goes into the page; so it opens from disk, and nothing else can run in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bokeh.models import ColumnDataSource, NumeralTickFormatter, Range1d
from bokeh.plotting import figure

ROOT = Path(__file__).resolve().parents[2]
HERE = str(Path(__file__).resolve().parent)  # not on the path: `bench` is a folder, and a file here
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(path for path in sys.path if path != HERE)]

from bench import compare  # noqa: E402  (needs the path above)
from bench.bench import COLUMNS, Row, cell, shown_columns  # noqa: E402
from workbench.report.drawing import markup  # noqa: E402
from workbench.report.page import embed, page  # noqa: E402
from workbench.report.plots import GREY, Chart, hover, plain  # noqa: E402

# These, and the grey of the axes, stand out on white and on black.
COLOURS = (GREY, "#3B8FDB", "#E08A00", "#2E9E6B", "#D6569F")
SERIES = {0: "bare loop", 1: "1 node"}  # and `3 nodes`
GROWTHS = {  # of a table: what is to the right, and whether from one to the next it is times
    "keys": ("keys", "keys", True),
    "values": ("value_bytes", "bytes of a value", True),
    "log": ("earlier", "operations before", False),
    "nodes": ("nodes", "nodes", True),
}
STYLE = """\
.charts { display: grid; gap: 0 24px;
          grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.charts section { min-width: 0; }
table { font-size: 13px; }
th, td { padding: 2px 9px; }
"""
NOTE = (
    "A closed loop of clients on one machine: each has one request under way. CPU is that of all "
    "nodes together, for an operation, in us; x bare is its ratio to that of a bare loop, which "
    "reads lines of JSON and answers, with as many clients and in the same minute. Turns, "
    "messages and bytes between servers and commits to disk are for an operation, too; MB is the "
    "most that a node has had; nodes % and driver % are how much of the time the nodes, together, "
    "and the driver were busy, in percent of one core."
)


def main(argv: Sequence[str]) -> int:
    """Writes the page of each folder; 1, with a line, if one cannot be written."""
    status = 0
    for name in argv:
        try:
            print(write(Path(name)))
        except (OSError, ValueError, LookupError, TypeError) as error:
            print(f"no bench.html in {name}: {error!r}", file=sys.stderr)
            status = 1
    return status


def write(folder: Path) -> Path:
    """Writes a folder's page; the page. FileNotFoundError if there is nothing to tell."""
    found: list[Row] = []
    for name in ("bench.json", "compare.json"):
        path = folder / name
        found.append(json.loads(path.read_text("utf-8")) if path.exists() else {})
    if not any(found):
        raise FileNotFoundError(f"{folder} has neither bench.json nor compare.json")
    path = folder / "bench.html"
    path.write_text(html(*found), encoding="utf-8")
    return path


def html(bench: Row, compared: Row) -> str:
    """The page. Whatever the files say is text in it."""
    sections, script = embed(charts(bench.get("tables", {})))
    name = bench.get("revision") or f"{compared['this']} and {compared['that']}"
    parts = [
        header(bench, name),
        f'<div class="charts">\n{"".join(sections)}</div>',
        *comparison(compared),
        *tables(bench),
    ]
    scripts = [script] if script else []
    return page(plain(f"What it costs: {name}"), STYLE, "\n".join(parts), *scripts)


def _text(value: object) -> str:
    return markup(plain(str(value)))


def header(bench: Row, name: str) -> str:
    """What was measured, when and where."""
    parts = [f"<h1>What it costs: {_text(name)}</h1>"]
    if bench:
        before, after = bench["load"]
        facts = (
            f"{bench['began']} · Python {bench['python']} · {bench['cores']} cores, load "
            f"{before:.1f} before and {after:.1f} after · {bench['seconds']:.0f} s, of which the "
            f"driver was busy for {bench['driver_percent']:.0f} %"
        )
        parts += [f"<p>{_text(facts)}</p>", f'<p class="note">{NOTE}</p>']
    parts += [f'<p class="why">{_text(why)}</p>' for why in bench.get("problems", ())]
    return "\n".join(parts)


def _table(name: str, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in heads)
    lines = ("".join(f"<td>{_text(text)}</td>" for text in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<section id="{_text(name)}"><h2>{_text(title)}</h2>\n<div class="wide"><table><thead>'
        f"<tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div></section>"
    )


def tables(bench: Row) -> list[str]:
    """The tables, as make bench prints them."""
    found = []
    for name, part in bench.get("tables", {}).items():
        columns = shown_columns(part["rows"])
        heads = ["", *(COLUMNS[column][0] for column in columns)]
        rows = [[row["label"], *(cell(row, column) for column in columns)] for row in part["rows"]]
        found.append(_table(f"table-{name}", part["title"], heads, rows))
    if bench.get("parts"):
        rows = [
            [row["title"], *(f"{row[column]:.2f}" for column in ("this", "that", "ratio"))]
            for row in bench["parts"]
        ]
        found.append(_table("parts", "Parts", ["this; that", "this", "that", "ratio"], rows))
    return found


def comparison(compared: Row) -> list[str]:
    """The table of make bench-compare, if there is one."""
    if not compared:
        return []
    title = (
        f"This, {compared['this']}, and that, {compared['that']}: {compared['rounds']} rounds, "
        f"ended {compared['ended']}"
    )
    rows = [compare.cells(row) for row in compared["rows"]]
    return [_table("compare", title, compare.HEADS, rows)]


# Charts


def charts(tables: Mapping[str, Any]) -> list[Chart]:
    """Those of the tables that there are."""
    found: list[Chart] = []
    if rows := _rows(tables, "grid"):
        sizes = sorted({row["nodes"] for row in rows})
        names = {size: SERIES.get(size, f"{size} nodes") for size in sizes}

        def by_size(column: str) -> dict[str, list[Row]]:
            return {
                names[size]: [
                    row for row in rows if row["nodes"] == size and row.get(column) is not None
                ]
                for size in sizes
            }

        found = [
            Chart("ratio", "CPU of an operation, as a ratio to a bare loop",
                  lines("clients", by_size("cpu_ratio"), "clients", {"cpu_ratio": "solid"})),
            Chart("throughput", "Operations per second",
                  lines("clients", by_size("per_second"), "clients", {"per_second": "solid"})),
            Chart("latency", "Latency in ms: p50, and p99 dashed",
                  lines("clients", by_size("p50_ms"), "clients",
                        {"p50_ms": "solid", "p99_ms": "dashed"})),
        ]  # fmt: skip
    if rows := _rows(tables, "durable"):
        kinds = {"in memory": [row for row in rows if row.get("commits") is None]}
        kinds["durable"] = [row for row in rows if row.get("commits") is not None]
        plot = lines("clients", kinds, "clients", {"per_second": "solid"})
        found.append(Chart("durable", "Operations per second in memory and durable, 3 nodes", plot))
    for name, (x, label, times) in GROWTHS.items():
        if rows := _rows(tables, name):
            title = tables[name]["title"].partition(": ")[2]
            found.append(Chart(name, f"Growth: {title}", growths(x, rows, label, times)))
    return found


def _rows(tables: Mapping[str, Any], name: str) -> list[Row]:
    return tables[name]["rows"] if name in tables else []


def new_figure(label: str, times: bool) -> figure:
    """Both axes logarithmic; the one to the right only if from value to value it is `times`."""
    plot = figure(
        height=340,
        sizing_mode="stretch_width",
        x_axis_type="log" if times else "linear",
        y_axis_type="log",
        x_axis_label=label,
        tools="box_zoom,pan,wheel_zoom,reset",
        active_drag=None,
        active_scroll=None,  # the wheel scrolls the page
        toolbar_location="above",
        min_border_left=56,
    )
    plot.toolbar.logo = None
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.formatter = NumeralTickFormatter(format="0,0.[000]")
    return plot


def lines(
    x: str, series: Mapping[str, Sequence[Row]], label: str, columns: Mapping[str, str]
) -> figure:
    """A line for each series and column of it, against the column x; columns have a dash."""
    plot = new_figure(label, times=True)
    for (name, rows), colour in zip(series.items(), COLOURS, strict=False):
        for column, dash in columns.items():
            _line(plot, name, x, column, rows, colour, dash)
    _legend(plot)
    return plot


def growths(x: str, rows: Sequence[Row], label: str, times: bool) -> figure:
    """Throughput and CPU as ratios to the first row's."""
    plot = new_figure(label, times)
    ratios = [row[column] for row in rows for column in ("cpu_growth", "per_second_growth")]
    # From half to twice at least: else noise would fill the chart.
    plot.y_range = Range1d(min(0.5, *ratios) / 1.1, max(2.0, *ratios) * 1.1)
    _line(plot, "CPU of an operation, x first", x, "cpu_growth", rows, COLOURS[2], "solid")
    _line(plot, "operations/s, x first", x, "per_second_growth", rows, COLOURS[1], "solid")
    _legend(plot)
    return plot


def _line(
    plot: figure, name: str, x: str, y: str, rows: Sequence[Row], colour: str, dash: str
) -> None:
    # A logarithmic axis has no place for what is not more than 0.
    points = [row for row in rows if row.get(y) and row[y] > 0]
    data = {"x": [row[x] for row in points], "y": [row[y] for row in points]}
    source = ColumnDataSource(data | {"label": [plain(row["label"]) for row in points]})
    plot.line(
        "x", "y", source=source, legend_label=name, line_color=colour, line_dash=dash, line_width=2
    )
    dots = plot.scatter("x", "y", source=source, legend_label=name, size=7, color=colour)
    hover(plot, [dots], f"<b>@label</b>, {COLUMNS[y][0]}", "@y{0,0.[000]}")


def _legend(plot: figure) -> None:
    legend = plot.legend[0]
    plot.add_layout(legend, "above")
    legend.orientation = "horizontal"
    legend.margin = 0
    legend.click_policy = "hide"
    legend.label_text_font_size = "12px"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
