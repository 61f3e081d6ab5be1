"""Draws the charts of a run on one time axis: faults, nodes' roles, latencies and so on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from bokeh.models import (
    ColumnDataSource,
    DataRange1d,
    FactorRange,
    FixedTicker,
    NumeralTickFormatter,
    Range1d,
)

from ..record import edn, life
from ..record.edn import Keyword
from ..record.history import OUTCOMES, Operation, shorten
from ..units import MILLISECOND, SECOND
from .diagram import diagram
from .drawing import by_number, describe, faults, markup, stops
from .plots import (
    GREY,
    TEXT,
    Chart,
    Fault,
    bars,
    colour_of,
    fault_legend,
    hover,
    legend,
    new_figure,
    places,
    plain,
    shade,
)
from .reading import Run, natural

MOST = 50_000  # operations drawn
MOST_FAULTS = 1_000
MOST_SPANS = 4_000  # spans of a node's state
MOST_NODES = 50  # nodes with a band
MOST_MOMENTS = 500  # events in the list "Go to"
MOST_STEPS = 1_000  # points of a leader's commit index
MOST_TERMS = 100  # terms in the chart of commit indexes
BAND, BAR = 0.72, 0.7  # height of a band or bar; a row has height 1
BINS = 120  # most bins of the chart of rates
FLOOR = 0.01  # ms; least latency drawn, since a logarithmic axis has no 0
# These colours, and the grey of the axes, stand out on white and on black.
COLOURS = {"ok": "#3B8FDB", "fail": "#D6569F", "info": "#E08A00"}
MARKERS = {"read": "circle", "write": "square", "cas": "triangle"}
MORE_MARKERS = ("diamond", "inverted_triangle", "hex", "star")
FAULTS = {  # a fault has the same colour in each run
    "partition": "#2E9E6B", "kill": "#8E6FD1", "pause": "#C9623F", "loss": "#7D8B2F",
    "duplicate": "#4F86A6", "clock": "#A65C7C",
}  # fmt: skip
LEADERS = ("#8E6FD1", "#2E9E6B", "#C9623F", "#7D8B2F", "#4F86A6", "#A65C7C")  # by place of node
# For each state of a node: colour, opacity, hatching, and the colour of text on the band.
STATES = {
    "follower": ("#A9BFD6", 1.0, " ", "#111111"),
    "candidate": ("#F0A92B", 1.0, " ", "#111111"),
    "leader": ("#1F5FA8", 1.0, " ", "#FFFFFF"),
    life.DOWN: ("#D0453E", 0.12, "/", GREY),
    life.PAUSED: (GREY, 0.2, "|", GREY),
    life.SILENT: (GREY, 0.0, " ", GREY),
}
LIFE = "Roles of the nodes"
TERM = re.compile(r'"term": (\d{1,15})\b')
COMMIT = re.compile(r'"leader_commit": (\d{1,15})\b')
OPERATION = (  # the tooltip of an operation
    "process @process @asked",
    "<b>@what</b>",
    "@outcome after @exact{0,0.000} ms",
    "at @left{0.000} s",
    "@error",
)


def charts(run: Run) -> list[Chart]:
    """Returns all charts of a run; none if its history has no times."""
    if not run.until:
        return []
    last = run.until / SECOND
    time = Range1d(
        start=-0.01 * last, end=1.01 * last, name="time", bounds=(-0.05 * last, 1.05 * last)
    )
    faults = _all_faults(run)
    drawn = [latency(run, time, faults), rate(run, time, faults)]
    if committed := commits(run, time, faults):
        drawn.insert(0, committed)
    if not run.no_life:
        drawn.insert(0, lives(run, time, faults))
    if faults:
        drawn.insert(0, lanes(time, faults))
    if run.messages:
        drawn.append(diagram(run.messages, run.nodes, _moments(run, faults), time, faults))
    if run.keys:
        drawn.append(processes(run, time, faults))
    return drawn


def _moments(run: Run, faults: Sequence[Fault]) -> list[tuple[float, str]]:
    """Lists, by time in s, each new candidate or leader, and the begin and end of each fault."""
    found = [(fault.start, f"{fault.kind} begins {fault.reach}") for fault in faults]
    found += [(fault.end, f"{fault.kind} ends") for fault in faults]
    for line in run.life:
        said = life.told(line)
        if said and said.role != "follower":
            found.append((line.time / SECOND, f"{line.node} {said.said}, term {said.term}"))
    return sorted(found)[:MOST_MOMENTS]


def _all_faults(run: Run) -> list[Fault]:
    nemesis = [op for op in run.events if op.process == "nemesis"]
    found: list[Fault] = []
    for events in islice(faults(nemesis), MOST_FAULTS):
        first, final = events[0], events[-1]
        kind = shorten(plain(first.f.removeprefix("start-")), 12)
        colour = FAULTS.get(kind) or colour_of(kind, LEADERS)
        end = final.time if stops(final) else run.until
        details = "; ".join(f"{op.f} {shorten(edn.dumps(op.value), TEXT)}" for op in events)
        reach = next(filter(None, (_reach(op.value, run.nodes) for op in events)), "")
        found.append(
            Fault(
                kind, first.time / SECOND, end / SECOND, shorten(plain(details), 400), colour,
                shorten(plain(reach), 400),
            )
        )  # fmt: skip
    return found


def _reach(value: Any, nodes: Sequence[str]) -> str:
    """Describes which nodes of a partition hear each other.

    The result is "n0 n1 | n2" if each node hears its own side, and "" if the value is not a
    partition. The nemesis records a partition as the nodes whose messages each node drops.
    """
    cut = value[1] if isinstance(value, list) and len(value) == 2 else None
    if not isinstance(cut, dict) or value[0] != Keyword("isolated"):
        return ""
    drops: dict[str, set[str]] = {}
    for node, others in cut.items():
        if not isinstance(node, str) or not isinstance(others, (frozenset, list)):
            return ""
        drops[node] = {str(other) for other in others}
    others = (other for those in drops.values() for other in those)
    names = sorted({*nodes, *drops, *others}, key=natural)
    if len(names) > MOST_NODES:
        return ""
    heard = {
        name: tuple(other for other in names if other == name or other not in drops.get(name, ()))
        for name in names
    }
    if all(heard[other] == those for those in heard.values() for other in those):
        return " | ".join(" ".join(side) for side in dict.fromkeys(heard.values()))
    return "; ".join(
        f"{name} hears {' '.join(other for other in those if other != name) or 'nobody'}"
        for name, those in heard.items()
    )


def lanes(time: Range1d, faults: Sequence[Fault]) -> Chart:
    """Draws a lane for each kind of fault. It explains the shaded bands in the other charts."""
    kinds = list(dict.fromkeys(fault.kind for fault in faults))
    y_range = FactorRange(factors=kinds[::-1])
    plot = new_figure(time, 70 + 24 * len(kinds), y_range=y_range)
    columns = ("kind", "details", "colour", "reach")
    data: dict[str, list[Any]]
    data = {name: [getattr(fault, name) for fault in faults] for name in columns}
    starts, ends = [fault.start for fault in faults], [fault.end for fault in faults]
    source = ColumnDataSource(data | places(data["kind"], starts, ends, BAR))
    drawn = bars(plot, "kind", BAR, source, fill_color="colour", fill_alpha=0.7)
    times = "@left{0.000} s to @right{0.000} s"
    hover(plot, [drawn], "<b>@kind</b>", "<b>@reach</b>", times, "@details")
    plot.ygrid.visible = False
    words = legend({fault.kind: fault.colour for fault in faults})
    note = '<p class="note">The other charts are shaded in these colours during a fault.</p>\n'
    return Chart("faults", "Faults", plot, words + note)


def lives(run: Run, time: Range1d, faults: Sequence[Fault]) -> Chart:
    """Draws a band for each node: the roles that it stated, and when it was down or paused."""
    nodes = sorted({*run.nodes, *(line.node for line in run.life)}, key=natural)
    names = {node: shorten(plain(node), 20) for node in nodes[:MOST_NODES]}
    spans = life.spans(run.life, run.events, names, run.until)
    shown = sorted(spans, key=lambda span: span.start - span.end)[:MOST_SPANS]
    # Short states are drawn last, above the others: an election takes a few pixels.
    shown.sort(key=lambda span: (list(STATES).index(span.state), span.start))
    factors = list(dict.fromkeys(names.values()))[::-1]
    y_range = FactorRange(factors=factors)
    plot = new_figure(time, 70 + 34 * len(factors), y_range=y_range)
    shade(plot, faults)
    source = ColumnDataSource(
        {
            "node": [names[span.node] for span in shown],
            "colour": [STATES[span.state][0] for span in shown],
            "alpha": [STATES[span.state][1] for span in shown],
            "hatch": [STATES[span.state][2] for span in shown],
            "what": [_what(span) for span in shown],
            "said": [shorten(plain(_said(span)), TEXT) for span in shown],
        }
        | places(
            [names[span.node] for span in shown],
            [span.start / SECOND for span in shown],
            [span.end / SECOND for span in shown],
            BAND,
        )
    )
    drawn = bars(
        plot, "node", BAND, source, fill_color="colour", fill_alpha="alpha",
        hatch_pattern="hatch", hatch_color="colour", hatch_alpha=0.7, hatch_scale=8,
        hatch_weight=1,
    )  # fmt: skip
    hover(
        plot, [drawn], "<b>@node: @what</b>", "@said", "since @left{0.000} s, until @right{0.000} s"
    )
    terms = ColumnDataSource(_terms(shown, names), name="terms")
    plot.segment(
        "left", "bottom", "left", "top", source=terms, line_color="colour", line_alpha=0.6
    )
    plot.text(
        "x", "node", text="text", source=terms,
        text_align="center", text_baseline="middle", text_font_size="11px", text_color="colour",
    )  # fmt: skip
    plot.ygrid.visible = False
    note = ""
    if len(nodes) > len(names):
        note += f"{len(nodes) - len(names):,} of {len(nodes):,} nodes are not drawn. "
    if len(spans) > len(shown):
        note += f"The {len(spans) - len(shown):,} shortest parts of bands are not drawn. "
    states = [state for state in STATES if state in life.ROLES or state in source.data["what"]]
    swatches = "".join(f'<span class="state">{_swatch(state)}{state}</span>' for state in states)
    silent = " A node is silent before it states its role, and after the last line kept."
    if life.SILENT not in states:
        silent = ""
    words = (
        f'<p class="states">{swatches}</p>\n{fault_legend(faults)}'
        f'<p class="note">{note}Roles are those that nodes '
        "state on stderr, from the time at which the bench read the line. Hover over a band to "
        f"read the line.{silent}</p>\n"
    )
    return Chart("life", LIFE, plot, words)


def commits(run: Run, time: Range1d, faults: Sequence[Fault]) -> Chart | None:
    """Draws the commit index that leaders sent to followers; None if no message has one."""
    told: dict[tuple[str, str], dict[int, int]] = {}  # by term and leader: index to time
    for message in run.messages:
        if message.type == "append_entries" and (index := COMMIT.search(message.body)):
            found = TERM.search(message.body)
            key = (found[1] if found else "?", message.src)
            told.setdefault(key, {}).setdefault(int(index[1]), message.sent)
    if not told:
        return None
    plot = new_figure(time, 200, y_range=DataRange1d(start=0))
    shade(plot, faults)
    colours: dict[str, str] = {}
    renderers = []
    for (term, leader), had in islice(told.items(), MOST_TERMS):
        points = list(had.items())
        points = points[:: math.ceil(len(points) / MOST_STEPS)]
        source = ColumnDataSource(
            {
                "time": [sent / SECOND for _, sent in points],
                "index": [index for index, _ in points],
                "leader": [f"{shorten(plain(leader), 20)} in term {term}"] * len(points),
            }
        )
        place = run.nodes.index(leader) if leader in run.nodes else len(run.nodes)
        colour = colours[shorten(plain(leader), 20)] = LEADERS[place % len(LEADERS)]
        plot.step("time", "index", source=source, mode="after", color=colour, line_width=2)
        renderers.append(plot.scatter("time", "index", source=source, color=colour, size=4))
    hover(plot, renderers, "<b>@leader</b> has committed up to @index", "at @time{0.000} s")
    words = (
        f"{legend(colours)}{fault_legend(faults)}"
        '<p class="note">Each leader\'s commit index, from its append_entries messages.</p>\n'
    )
    return Chart("commits", "Commit index", plot, words)


def _what(span: life.Span) -> str:
    if span.state in life.ROLES:
        return f"{span.state} in term {span.term}"
    return span.state


def _said(span: life.Span) -> str:
    """Returns the node's last line; marked "before" if the node is not in that role now."""
    if span.state in life.ROLES:
        return span.said
    if not span.said:
        return ""
    return f"before: {span.said} (term {span.term}, at {span.since / SECOND:.3f} s)"


def _terms(spans: Sequence[life.Span], names: dict[str, str]) -> dict[str, list[Any]]:
    """Returns the labels of terms on the bands, one for each span of a term and role.

    The page's script shows a label where there is room. If the term changes but the role does not,
    the colour stays, so a line from `bottom` to `top` separates the terms. Elsewhere that line has
    length 0.
    """
    rows: list[life.Span] = []
    lines: list[float] = []
    roles = (span for span in spans if span.state in life.ROLES)
    for span in sorted(roles, key=lambda span: (span.node, span.start)):
        last = rows[-1] if rows else span
        same = (last.node, last.state, last.end) == (span.node, span.state, span.start)
        if same and last.term == span.term:
            rows[-1] = replace(last, end=span.end)
        else:
            rows.append(span)
            lines.append(BAND / 2 if same else 0)
    return {
        "node": [names[span.node] for span in rows],
        "bottom": [(names[span.node], -half) for span, half in zip(rows, lines, strict=True)],
        "top": [(names[span.node], half) for span, half in zip(rows, lines, strict=True)],
        "left": [span.start / SECOND for span in rows],
        "right": [span.end / SECOND for span in rows],
        "x": [(span.start + span.end) / 2 / SECOND for span in rows],
        "text": [""] * len(rows),
        "long": [f"term {span.term}" for span in rows],
        "short": [str(span.term) for span in rows],
        "colour": [STATES[span.state][3] for span in rows],
    }


def _swatch(state: str) -> str:
    """Returns a sample of a state's band, for the legend."""
    colour, alpha, hatch, _ = STATES[state]
    style = f"border:1px solid {colour}"
    if alpha == 1:
        style += f";background:{colour}"
    elif hatch != " ":
        angle = {"/": 135, "|": 90}[hatch]
        style += f";background:repeating-linear-gradient({angle}deg,{colour} 0 1px,#0000 1px 5px)"
    return f'<i style="{style}"></i>'


def latency(run: Run, time: Range1d, faults: Sequence[Fault]) -> Chart:
    """Draws a point for each operation, at its invocation; the height is its latency."""
    shown = _sample(run)
    sources: dict[tuple[str, str], list[Operation]] = {}
    for op in shown:
        sources.setdefault((op.f, op.type), []).append(op)
    took = [max(FLOOR, (run.end(op) - op.start) / MILLISECOND) for op in shown]
    least, most = min(took, default=1), max(took, default=1)
    bottom = min(least / 1.5, 10 ** math.floor(math.log10(least)))
    top = max(most * 1.5, 10 ** math.ceil(math.log10(most)))
    plot = new_figure(time, 420, y_axis_type="log", y_range=Range1d(start=bottom, end=top))
    plot.yaxis.ticker = FixedTicker(ticks=log_ticks(bottom, top), minor_ticks=[])
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    shade(plot, faults)
    kinds = sorted({op.f for op in shown})
    markers = dict(MARKERS)
    more = [kind for kind in kinds if kind not in markers]
    markers |= {kind: MORE_MARKERS[n % len(MORE_MARKERS)] for n, kind in enumerate(more)}
    types = [type for type in OUTCOMES if any(op.type == type for op in shown)]
    numbers = sorted({op.process for op in shown}, key=by_number)
    ranks = {process: rank for rank, process in enumerate(numbers)}
    renderers: list[Any] = []
    for kind in kinds:
        for type in types:
            # Empty series too, to make the legend a table: a row for each kind, a column a type.
            operations = sources.get((kind, type), [])
            source = ColumnDataSource(
                _columns(run, operations, ranks), name=f"operations {len(renderers)}"
            )
            renderers.append(
                plot.scatter(
                    "left", "took", source=source, marker=markers[kind], size=6,
                    color=COLOURS[type], fill_alpha=0.55, line_width=1,
                    legend_label=f"{shorten(plain(kind), 16)} {OUTCOMES[type]}",
                )
            )  # fmt: skip
    hover(plot, renderers, *OPERATION)
    if renderers:
        legend = plot.legend[0]
        plot.add_layout(legend, "above")
        legend.orientation = "horizontal"
        legend.ncols = len(types)
        legend.margin = 0
        legend.click_policy = "hide"
        legend.label_text_font_size = "12px"
        legend.spacing = 1
    cut = len(run.operations) - len(shown)
    note = (
        f"{cut:,} of {len(run.operations):,} operations, all of them ok, are not drawn. "
        if cut
        else ""
    )
    words = (
        f"{fault_legend(faults)}"
        f'<p class="note">{note}Time goes to the right, in seconds. Drag to zoom in; all charts '
        "zoom together. The URL records the zoom, so you can share it. Click on a legend entry to "
        "hide its operations.</p>\n"
    )
    return Chart("latency", "Latency of each operation, in ms", plot, words)


def log_ticks(least: float, most: float) -> list[float]:
    """Returns the ticks of a logarithmic axis; for few powers of ten, also those of 2 and 5."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    steps = (1, 2, 5) if len(powers) < 5 else (1,)
    return [step * 10.0**power for power in powers for step in steps]


def _sample(run: Run) -> list[Operation]:
    """Selects up to MOST operations. It thins out only ok operations of valid keys."""
    if len(run.operations) <= MOST:
        return run.operations

    def matters(op: Operation) -> bool:
        key = run.key_of.get(op.start_index)
        return op.type != "ok" or (key is not None and run.keys[key][1] is not True)

    wanted = [op for op in run.operations if matters(op)][:MOST]
    others = [op for op in run.operations if not matters(op)]
    stride = math.ceil(len(others) / max(1, MOST - len(wanted)))
    return sorted(wanted + others[::stride], key=lambda op: op.start_index)


def _columns(
    run: Run, operations: Sequence[Operation], ranks: dict[int | str, int]
) -> dict[str, list[Any]]:
    """Returns the operations as columns, for drawing and for tooltips."""

    def column(of: Callable[[Operation], Any]) -> list[Any]:
        return list(map(of, operations))

    nodes = {op.process: run.asked(op.process) for op in operations}
    asked = {who: node and f"asked {shorten(plain(node), 20)}" for who, node in nodes.items()}
    return {
        "left": column(lambda op: round(op.start / SECOND, 6)),
        "right": column(lambda op: round(run.end(op) / SECOND, 6)),
        "took": column(lambda op: max(FLOOR, round((run.end(op) - op.start) / MILLISECOND, 3))),
        "exact": column(lambda op: round((run.end(op) - op.start) / MILLISECOND, 3)),
        "process": column(lambda op: shorten(plain(str(op.process)), 20)),
        "asked": column(lambda op: asked[op.process]),
        "rank": column(lambda op: ranks[op.process]),
        "key": column(lambda op: run.key_of.get(op.start_index, -1)),
        "what": column(lambda op: shorten(plain(describe(op)), TEXT)),
        "outcome": column(lambda op: OUTCOMES[op.type]),
        "colour": column(lambda op: COLOURS[op.type]),
        "error": column(
            lambda op: "" if op.error is None else shorten(plain(edn.dumps(op.error)), TEXT)
        ),
    }


def rate(run: Run, time: Range1d, faults: Sequence[Fault]) -> Chart:
    """Draws the operations that completed per second, with the outcomes stacked."""
    width = bin_width(run.until / SECOND, len(run.operations))
    bins = math.floor(run.until / SECOND / width) + 1
    counts = {type: [0] * bins for type in OUTCOMES}
    for op in run.operations:
        counts[op.type][math.floor(run.end(op) / SECOND / width)] += 1
    plot = new_figure(time, 240, y_range=DataRange1d(start=0))
    shade(plot, faults)
    lefts = [width * number for number in range(bins)]
    bottoms = [0.0] * bins
    data: dict[str, list[Any]] = {"left": lefts, "right": [left + width for left in lefts]}
    for type, numbers in counts.items():
        data[type] = [number / width for number in numbers]
        data[f"{type} bottom"] = bottoms
        data[f"{type} top"] = bottoms = [
            bottom + number for bottom, number in zip(bottoms, data[type], strict=True)
        ]
    source = ColumnDataSource(data)
    renderers = [
        plot.quad(
            left="left", right="right", bottom=f"{type} bottom", top=f"{type} top", source=source,
            fill_color=COLOURS[type], fill_alpha=0.8, line_color=None,
        )
        for type in OUTCOMES
    ]  # fmt: skip
    rates = [f"@{type}{{0,0.0}}/s {meaning}" for type, meaning in OUTCOMES.items()]
    hover(plot, renderers, "@left{0.000} s to @right{0.000} s", *rates)
    words = (
        f"{outcomes()}{fault_legend(faults)}"
        f'<p class="note">Completed operations, in bins of {width:g} s.</p>\n'
    )
    return Chart("rate", "Operations per second", plot, words)


def outcomes() -> str:
    """Returns the legend of the operations' outcomes."""
    return legend({meaning: COLOURS[type] for type, meaning in OUTCOMES.items()})


def bin_width(seconds: float, operations: int) -> float:
    """Returns a round number of seconds, large enough that a bin has some 8 operations."""
    least = seconds / max(10, min(BINS, operations / 8))
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= least)


def processes(run: Run, time: Range1d, faults: Sequence[Fault]) -> Chart:
    """Makes the chart of each process's operations on a key.

    The page's script fills it with the data of the latency chart.
    """
    names = ("process", "asked", "what", "outcome", "exact", "colour", "error")
    columns = places([], [], [], BAR)
    source = ColumnDataSource({name: [] for name in (*names, *columns)}, name="shown")
    plot = new_figure(time, 300, y_range=FactorRange(factors=[]))
    shade(plot, faults)
    drawn = bars(plot, "process", BAR, source, fill_color="colour", fill_alpha=0.6)
    hover(plot, [drawn], *OPERATION)
    plot.ygrid.visible = False
    keyless = run.keyless
    label = (lambda name, verdict: "all operations") if keyless else _label
    options = "".join(
        f'<option value="{place}">{markup(shorten(label(name, verdict), 80))}</option>'
        for place, (name, verdict) in enumerate(run.keys)
    )
    words = (
        f"{outcomes()}{fault_legend(faults)}"
        f'<p><label>{"Show" if keyless else "Key"} '
        f'<select id="key">{options}</select></label></p>\n'
        '<p class="note">Each row is a process. A bar lasts from a request to its reply.</p>\n'
    )
    title = "Operations of each process" + ("" if keyless else " on a key")
    return Chart("processes", title, plot, words)


def _label(name: str, verdict: bool | None) -> str:
    return shorten(name, 60) + {True: "", False: ": not linearizable", None: ": unknown"}[verdict]
