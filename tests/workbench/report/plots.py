"""What the charts of a page have in common: their look, their time axis, their faults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure
from bokeh.themes import Theme

TEXT = 200  # characters of a value or an error that are shown
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
    """A chart, and the words above it (markup). The page's script knows the plot by the name."""

    name: str
    title: str
    plot: figure
    words: str = ""

    def __post_init__(self) -> None:
        self.plot.name = self.name


@dataclass
class Fault:
    """A fault's kind and extent, in s."""

    kind: str
    start: float
    end: float
    details: str
    colour: str
    reach: str = ""  # of a partition: who hears whom


def new_figure(time: Range1d, height: int, **options: Any) -> figure:
    """A chart on the time axis."""
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        x_range=time,
        tools="xbox_zoom,xpan,xwheel_zoom,reset",
        active_drag="xbox_zoom",
        active_scroll=None,  # the wheel scrolls the page, until somebody chooses otherwise
        toolbar_location="above",
        output_backend="webgl",
        min_border_left=64,  # so that the same moment is below itself
        min_border_right=12,
        **options,
    )
    plot.toolbar.logo = None
    plot.ygrid.grid_line_alpha = 0.2
    return plot


def bars(plot: figure, y: str, height: float, source: ColumnDataSource, **options: Any) -> Any:
    """Bars in rows, from `left` to `right` of the source, of which short ones are seen, too.

    Their other columns are those of `places`. (Bokeh's own horizontal bars are seen at the edge of
    the chart, too, if they are outside of it.)
    """
    drawn = plot.rect("middle", y, "width", height, source=source, line_color=None, **options)
    plot.segment("left", "low", "left", "high", source=source, line_color=options["fill_color"])
    return drawn


def places(
    rows: Sequence[str], left: Sequence[float], right: Sequence[float], height: float
) -> dict[str, list[Any]]:
    """Where bars are, as columns."""
    return {
        "left": list(left),
        "right": list(right),
        "middle": [(start + end) / 2 for start, end in zip(left, right, strict=True)],
        "width": [end - start for start, end in zip(left, right, strict=True)],
        "low": [(row, -height / 2) for row in rows],
        "high": [(row, height / 2) for row in rows],
    }


def hover(plot: figure, renderers: list[Any], *lines: str) -> None:
    """Shows these lines of markup; the values that Bokeh puts in for @names are text in it."""
    style = "max-width:240px; white-space:normal; overflow-wrap:anywhere; color:#222"
    tooltips = f'<div style="{style}">{"".join(f"<div>{line}</div>" for line in lines)}</div>'
    plot.add_tools(HoverTool(renderers=renderers, tooltips=tooltips))


def shade(plot: figure, faults: Sequence[Fault]) -> None:
    """Shades the time of each fault, behind all else."""
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
    """Text that every browser and script takes: without half characters."""
    return re.sub("[\x00-\x08\x0b-\x1f\ud800-\udfff]", "\ufffd", text)
