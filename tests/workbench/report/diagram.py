"""Draws the Lamport diagram of a run's messages: a line for each message, from lane to lane.

Each node has a lane, and each service that was called. All clients share one.

The page contains all messages, compressed. Its script, report.js, draws those of the visible time.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, FixedTicker, Range1d

from ..record.history import shorten
from ..record.journal import Sent
from .drawing import markup
from .plots import (
    GREY,
    TEXT,
    Chart,
    Fault,
    colour_of,
    fault_legend,
    hover,
    new_figure,
    plain,
    shade,
)

TITLE = "Messages"
CLIENTS = "clients"
MOST_NODES = 50  # nodes with a lane
MOST_LENGTH = 20_000_000  # characters of all bodies in the page
COLOURS = {  # a kind has the same colour in each run
    "append_entries": "#3B8FDB", "read": "#E08A00", "forward": "#8E6FD1", "cas": "#2E9E6B",
    "write": "#D6569F", "error": "#D0453E", "request_vote": "#7D8B2F", "echo": "#4F86A6",
}  # fmt: skip
MORE_COLOURS = ("#A65C7C", "#5B7FD1", "#9A7B2F", "#3C9A9A", "#C9623F", "#7A9A3C")
MOST_KINDS = 10
NOT_RECEIVED: Sequence[int | None] = (None,)
REPLIES = ("_res", "_ok")  # suffixes of the types of replies


def diagram(
    messages: Sequence[Sent],
    nodes: Sequence[str],
    moments: Sequence[tuple[float, str]],
    time: Range1d,
    faults: Sequence[Fault],
) -> Chart:
    """Returns the chart, still without messages. `moments` are (s, text) to choose from."""
    names = list(nodes[:MOST_NODES])
    lanes = [CLIENTS, *names, *services_of(messages, nodes)]
    plot = new_figure(
        time, 90 + 46 * len(lanes), y_range=Range1d(start=len(lanes) - 0.4, end=-0.6)
    )
    plot.yaxis.ticker = FixedTicker(ticks=list(range(len(lanes))), minor_ticks=[])
    plot.yaxis.major_label_overrides = {
        place: shorten(plain(name), 20) for place, name in enumerate(lanes)
    }
    shade(plot, faults)
    columns = ("x0", "y0", "x1", "y1", "x", "y", "colour", "dash", "marker", "label", "above")
    told = ("kind", "who", "sent", "received", "body")
    source = ColumnDataSource({name: [] for name in (*columns, *told)}, name="messages shown")
    lines = plot.segment(
        "x0", "y0", "x1", "y1", source=source, line_color="colour", line_dash="dash", line_width=1.5
    )
    plot.scatter("x1", "y1", source=source, marker="marker", color="colour", size=6)
    plot.text(
        "x", "y", text="label", source=source, text_color="colour", text_font_size="11px",
        text_align="center", text_baseline="middle", y_offset="above",
    )  # fmt: skip
    hover(
        plot, [lines], "<b>@kind</b> @who", "sent at @sent{0.000000} s", "@received", "@body"
    )
    kinds = kinds_of(messages)
    boxes = "".join(
        f'<label class="state"><input type="checkbox" class="kind" value="{place}" checked>'
        f'<b style="color:{colour}">{markup(plain(kind))}</b></label>'
        for place, (kind, colour) in enumerate(kinds.items())
    )
    options = "".join(
        f'<option value="{moment:.6f}">{moment:.3f} s: {markup(plain(shorten(what, 80)))}</option>'
        for moment, what in moments
    )
    choice = (
        '<p><label>Go to <select id="moment"><option value="">an event</option>'
        f"{options}</select></label></p>\n"
        if options
        else ""
    )
    words = (
        f'<p class="states">{boxes}</p>\n{fault_legend(faults)}{choice}'
        '<p class="note"><span id="drawn"></span> Each line is a message, from its sender to the '
        "dot at its receiver. Replies are dashed, lost messages end in a cross. Hover over a line "
        "to read the message.</p>\n"
        f'<script type="application/gzip" id="journal">{packed(messages, lanes, kinds)}</script>\n'
    )
    return Chart("messages", TITLE, plot, words)


def services_of(messages: Sequence[Sent], nodes: Sequence[str]) -> list[str]:
    """Returns the services that got messages. The name of a client begins with c."""
    called = {message.dest for message in messages} - {*nodes}
    return sorted(name for name in called if not name.startswith("c"))


def kinds_of(messages: Sequence[Sent]) -> dict[str, str]:
    """Returns the kinds of messages with their colours, the most frequent first.

    A reply has the kind of its request. The colour depends on the kind alone, so that runs can be
    compared.
    """
    counts = Counter(_kind(message.type) for message in messages)
    ordered = [kind for kind, _ in counts.most_common(MOST_KINDS)]
    colours = {kind: COLOURS.get(kind) or colour_of(kind, MORE_COLOURS) for kind in ordered}
    return colours | ({"others": GREY} if len(counts) > len(colours) else {})


def _kind(type: str) -> str:
    return next((type.removesuffix(end) for end in REPLIES if type.endswith(end)), type)


def packed(messages: Sequence[Sent], lanes: Sequence[str], kinds: dict[str, str]) -> str:
    """Packs the messages into columns of JSON, compressed, in base64.

    Each receipt has a row. `sent` and `took` are in us; `took` is null for a message that was not
    received. Bodies are cut so that they have some MOST_LENGTH characters together.
    """
    length = max(40, min(TEXT * 2, MOST_LENGTH // max(1, len(messages))))
    places = {name: place for place, name in enumerate(lanes)}
    types = list(dict.fromkeys(message.type for message in messages))
    type_of = {type: place for place, type in enumerate(types)}
    kind_of = {kind: place for place, kind in enumerate(kinds)}
    rows: list[tuple[Any, ...]] = []
    for message in messages:
        src, dest, sent = message.src, message.dest, message.sent // 1000
        who = f"{src} → {dest}"
        body = shorten(message.body, length)
        row = (places.get(src, 0), places.get(dest, 0), type_of[message.type], who, body)
        for received in message.received or NOT_RECEIVED:
            rows.append((sent, None if received is None else received // 1000 - sent, *row))
    names = ("sent", "took", "from", "to", "type", "who", "body")
    data: dict[str, Any] = {
        name: column for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    data["types"] = [plain(type) for type in types]
    data["replies"] = [type.endswith(REPLIES) or type == "error" for type in types]
    data["kinds"] = [kind_of.get(_kind(type), len(kinds) - 1) for type in types]
    data["colours"] = list(kinds.values())
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
