#!/usr/bin/env python3
"""Writes bench.html, a page with the results of make bench and make bench-compare.

    bench_page.py DIR...

The page of each folder is written from its bench.json, its compare.json or both. This program needs
Bokeh. The page contains Bokeh's script, so it opens from disk; it allows no other script.
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
HERE = str(Path(__file__).resolve().parent)  # off the path: bench.py would hide `bench`
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(path for path in sys.path if path != HERE)]

from bench import compare  # noqa: E402  (needs the path above)
from bench.bench import COLUMNS, Row, cell, shown_columns  # noqa: E402
from workbench.report.drawing import markup  # noqa: E402
from workbench.report.page import embed, page  # noqa: E402
from workbench.report.plots import GREY, Chart, hover, plain  # noqa: E402

# Colours that are visible on white and on black, as is the grey of the axes.
COLOURS = (GREY, "#3B8FDB", "#E08A00", "#2E9E6B", "#D6569F")
SERIES = {0: "bare loop", 1: "1 node"}  # other numbers are shown as `3 nodes`
GROWTHS = {  # charts by table: column and label of the x axis, and whether it is logarithmic
    "keys": ("keys", "keys", True),
    "values": ("value_bytes", "bytes of a value", True),
    "log": ("earlier", "earlier operations", False),
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
    "Clients and nodes run on one machine. Each client has one request in flight (a closed loop). "
    "CPU us is the CPU time of all nodes for an operation. x bare is its ratio to a bare loop, "
    "which only reads and answers lines of JSON, with as many clients and in the same minute. "
    "Turns, messages and bytes between servers, and commits to disk are for an operation, too. "
    "MB is the peak memory of the largest node. nodes % and driver % are the CPU use of all nodes "
    "together and of the driver, in percent of one core."
)


def main(argv: Sequence[str]) -> int:
    """Writes the page of each folder; returns 1 if a page could not be written."""
    status = 0
    for name in argv:
        try:
            print(write(Path(name)))
        except (OSError, ValueError, LookupError, TypeError) as error:
            print(f"cannot write bench.html in {name}: {error!r}", file=sys.stderr)
            status = 1
    return status


def write(folder: Path) -> Path:
    """Writes a folder's page; returns its path. FileNotFoundError if the folder has no results."""
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
    """Returns the page. All contents of the files are escaped."""
    sections, script = embed(charts(bench.get("tables", {})))
    name = bench.get("revision") or f"{compared['this']} and {compared['that']}"
    parts = [
        header(bench, name),
        f'<div class="charts">\n{"".join(sections)}</div>',
        *comparison(compared),
        *tables(bench),
    ]
    scripts = [script] if script else []
    return page(plain(f"Benchmark of {name}"), STYLE, "\n".join(parts), *scripts)


def _text(value: object) -> str:
    return markup(plain(str(value)))


def header(bench: Row, name: str) -> str:
    """Returns the heading, and the circumstances of the measurement."""
    parts = [f"<h1>Benchmark of {_text(name)}</h1>"]
    if bench:
        before, after = bench["load"]
        facts = (
            f"{bench['began']} · Python {bench['python']} · {bench['cores']} cores, load "
            f"{before:.1f} before and {after:.1f} after · took {bench['seconds']:.0f} s · "
            f"driver busy for {bench['driver_percent']:.0f} %"
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
    """Returns the tables that make bench prints."""
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
    """Returns the table of make bench-compare, or nothing without results."""
    if not compared:
        return []
    title = (
        f"This ({compared['this']}) compared with that ({compared['that']}): "
        f"{compared['rounds']} rounds, ended {compared['ended']}"
    )
    rows = [compare.cells(row) for row in compared["rows"]]
    return [_table("compare", title, compare.HEADS, rows)]


# Charts


def charts(tables: Mapping[str, Any]) -> list[Chart]:
    """Returns the charts of the measured tables."""
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
            Chart("ratio", "CPU time of an operation, as a ratio to a bare loop",
                  lines("clients", by_size("cpu_ratio"), "clients", {"cpu_ratio": "solid"})),
            Chart("throughput", "Operations per second",
                  lines("clients", by_size("per_second"), "clients", {"per_second": "solid"})),
            Chart("latency", "Latency in ms: p50 solid, p99 dashed",
                  lines("clients", by_size("p50_ms"), "clients",
                        {"p50_ms": "solid", "p99_ms": "dashed"})),
        ]  # fmt: skip
    if rows := _rows(tables, "durable"):
        kinds = {"in memory": [row for row in rows if row.get("commits") is None]}
        kinds["durable"] = [row for row in rows if row.get("commits") is not None]
        plot = lines("clients", kinds, "clients", {"per_second": "solid"})
        found.append(Chart("durable", "Operations per second, in memory or durable, 3 nodes", plot))
    for name, (x, label, times) in GROWTHS.items():
        if rows := _rows(tables, name):
            title = tables[name]["title"].partition(": ")[2]
            found.append(Chart(name, f"Growth: {title}", growths(x, rows, label, times)))
    return found


def _rows(tables: Mapping[str, Any], name: str) -> list[Row]:
    return tables[name]["rows"] if name in tables else []


def new_figure(label: str, times: bool) -> figure:
    """Returns an empty chart. The y axis is logarithmic; the x axis is if `times` is true."""
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
    """Draws a line for each column of each series against column x.

    `columns` maps each column to its line dash.
    """
    plot = new_figure(label, times=True)
    for (name, rows), colour in zip(series.items(), COLOURS, strict=False):
        for column, dash in columns.items():
            _line(plot, name, x, column, rows, colour, dash)
    _legend(plot)
    return plot


def growths(x: str, rows: Sequence[Row], label: str, times: bool) -> figure:
    """Draws throughput and CPU as ratios to the first row."""
    plot = new_figure(label, times)
    ratios = [row[column] for row in rows for column in ("cpu_growth", "per_second_growth")]
    # Show 0.5 to 2 at least: else noise would fill the chart.
    plot.y_range = Range1d(min(0.5, *ratios) / 1.1, max(2.0, *ratios) * 1.1)
    _line(plot, "CPU of an operation, x first", x, "cpu_growth", rows, COLOURS[2], "solid")
    _line(plot, "operations/s, x first", x, "per_second_growth", rows, COLOURS[1], "solid")
    _legend(plot)
    return plot


def _line(
    plot: figure, name: str, x: str, y: str, rows: Sequence[Row], colour: str, dash: str
) -> None:
    # A logarithmic axis can only show numbers above 0.
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
