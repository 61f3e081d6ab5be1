"""Shared by all charts of a page: theme, time axis, bars, tooltips and the shading of faults."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure
from bokeh.themes import Theme

from .drawing import markup

TEXT = 200  # characters shown of a value or an error
GREY = "#808080"
THEME = Theme(
    json={
        "attrs": {
            "Plot": {
                "background_fill_color": None,
                "border_fill_color": None,
                "outline_line_color": GREY,
                "outline_line_alpha": 0.4,
            },
            "Axis": {
                "axis_label_text_color": GREY,
                "axis_label_text_font_style": "normal",
                "axis_line_color": GREY,
                "major_label_text_color": GREY,
                "major_tick_line_color": GREY,
                "minor_tick_line_color": None,
            },
            "Grid": {"grid_line_color": GREY, "grid_line_alpha": 0.2},
            "Legend": {
                "background_fill_color": None,
                "border_line_color": None,
                "label_text_color": GREY,
                "inactive_fill_color": GREY,
                "inactive_fill_alpha": 0.4,
            },
        }
    }
)


@dataclass
class Chart:
    """A chart and its caption."""

    name: str  # by which report.js finds the plot
    title: str
    plot: figure
    words: str = ""  # the caption above it, as markup

    def __post_init__(self) -> None:
        self.plot.name = self.name


@dataclass
class Fault:
    """A fault, as the charts show it."""

    kind: str
    start: float  # s
    end: float  # s
    details: str
    colour: str
    reach: str = ""  # the groups of a partition; "" for other faults


def new_figure(time: Range1d, height: int, **options: Any) -> figure:
    """Makes an empty chart on the shared time axis."""
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        x_range=time,
        tools="xbox_zoom,xpan,xwheel_zoom,reset",
        active_drag="xbox_zoom",
        active_scroll=None,  # the wheel scrolls the page, unless the zoom tool is chosen
        toolbar_location="above",
        output_backend="webgl",
        min_border_left=64,  # aligns the time axes of all charts
        min_border_right=12,
        **options,
    )
    plot.toolbar.logo = None
    plot.ygrid.grid_line_alpha = 0.2
    return plot


def bars(plot: figure, y: str, height: float, source: ColumnDataSource, **options: Any) -> Any:
    """Draws bars in rows, from the source's column `left` to its column `right`.

    The source needs all columns of `places`. A line at its left end keeps a very short bar visible.
    (Bokeh's hbar is not used: it also draws bars that are outside the chart, at its edge.)
    """
    drawn = plot.rect("middle", y, "width", height, source=source, line_color=None, **options)
    plot.segment("left", "low", "left", "high", source=source, line_color=options["fill_color"])
    return drawn


def places(
    rows: Sequence[str], left: Sequence[float], right: Sequence[float], height: float
) -> dict[str, list[Any]]:
    """Returns the columns that place bars from `left` to `right` in `rows`."""
    return {
        "left": list(left),
        "right": list(right),
        "middle": [(start + end) / 2 for start, end in zip(left, right, strict=True)],
        "width": [end - start for start, end in zip(left, right, strict=True)],
        "low": [(row, -height / 2) for row in rows],
        "high": [(row, height / 2) for row in rows],
    }


def hover(plot: figure, renderers: list[Any], *lines: str) -> None:
    """Adds a tooltip with these lines of markup. Bokeh escapes the values of its @names."""
    style = "max-width:240px; white-space:normal; overflow-wrap:anywhere; color:#222"
    tooltips = f'<div style="{style}">{"".join(f"<div>{line}</div>" for line in lines)}</div>'
    plot.add_tools(HoverTool(renderers=renderers, tooltips=tooltips))


def colour_of(name: str, colours: Sequence[str]) -> str:
    """Returns one of the colours, the same for a name in each run."""
    return colours[zlib.crc32(name.encode()) % len(colours)]


def legend(colours: Mapping[str, str]) -> str:
    """Returns a legend: a swatch for each name."""
    swatches = "".join(
        f'<span class="state"><i style="background:{colour}"></i>{markup(name)}</span>'
        for name, colour in colours.items()
    )
    return f'<p class="states">{swatches}</p>\n' if swatches else ""


def fault_legend(faults: Sequence[Fault]) -> str:
    """Returns the legend of the shaded background: a pale swatch for each kind of fault."""
    return legend({f"during {fault.kind}": f"{fault.colour}38" for fault in faults})


def shade(plot: figure, faults: Sequence[Fault]) -> None:
    """Shades the duration of each fault in the background."""
    if faults:
        source = ColumnDataSource(
            {
                "x0": [fault.start for fault in faults],
                "x1": [fault.end for fault in faults],
                "colour": [fault.colour for fault in faults],
            }
        )
        plot.vstrip(
            "x0", "x1", source=source, fill_color="colour", fill_alpha=0.14, line_color=None,
            level="underlay",
        )  # fmt: skip


def plain(text: str) -> str:
    """Replaces control characters and lone surrogates, which browsers do not accept."""
    return re.sub("[\x00-\x08\x0b-\x1f\ud800-\udfff]", "\ufffd", text)
