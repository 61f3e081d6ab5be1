"""Writes timeline.html: each process's operations, with time going down, as Jepsen draws them."""

from __future__ import annotations

from collections.abc import Sequence

from ..record import edn
from ..record.history import Op, Operation, shorten
from ..units import MILLISECOND
from .drawing import COLOURS, by_number, describe, details, faults, markup, stops

MOST = 10_000  # operations shown; browsers are slow with more
ROW = 16  # height of an event, in pixels
COLUMN = 130
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 13px/{row}px system-ui, sans-serif; margin: 0; height: 100vh; display: flex;
       flex-direction: column; background: Canvas; color: CanvasText; }}
header {{ padding: 12px 16px; }}
h1 {{ font-size: 17px; line-height: 1.2; margin: 0 0 8px; }}
p {{ margin: 0; }}
.sideways {{ display: none; }}
@media (max-width: {width}px) {{ .sideways {{ display: inline; }} }}
mark {{ padding: 1px 6px; border-radius: 3px; }}
/* The run scrolls within the page, so that the processes' names stay visible. */
main {{ flex: 1; min-height: 0; overflow: auto; padding: 0 16px; }}
.names, .run {{ position: relative; width: {width}px; }}
.names {{ position: sticky; top: 0; height: 26px; z-index: 1; font-weight: 600;
         background: Canvas; border-bottom: 1px solid GrayText; }}
.run {{ height: {height}px; }}
.names div, .run div {{ position: absolute; width: {inner}px; box-sizing: border-box;
                      padding: 0 6px; overflow: hidden; white-space: nowrap;
                      text-overflow: ellipsis; }}
.names div {{ line-height: 26px; }}
.run div {{ border-radius: 3px; }}
.run .band {{ left: 0; width: 100%; background: #8884; border-radius: 0; font-weight: 600; }}
.ok, .info, .fail {{ color: #111; }}
.ok {{ background: {ok}; }} .info {{ background: {info}; }} .fail {{ background: {fail}; }}
</style></head><body>
<header><h1>{title}</h1>
<p>Time goes down, not to scale; each column is a process. <mark class="ok">ok</mark>
<mark class="info">unknown</mark> <mark class="fail">failed</mark>
{faults}Hover over an operation for details. {note}
<span class="sideways">Scroll sideways to see all processes.</span></p></header>
<main tabindex="0">
<div class="names">
{names}
</div>
<div class="run">
{boxes}
</div>
</main></body></html>
"""


def html(operations: Sequence[Operation], title: str, nemesis: Sequence[Op] = ()) -> str:
    """Returns a page with a box for each operation, and a grey band for each fault.

    The page opens from disk and needs no script.
    """
    shown = operations[:MOST]
    indexes = [op.start_index for op in shown]
    indexes += [op.end_index for op in shown if op.end_index is not None]
    until = max(indexes, default=0)
    cut = len(operations) - len(shown)
    nemesis = [op for op in nemesis if not cut or op.index < until]
    indexes += [op.index for op in nemesis]
    rows = {index: row for row, index in enumerate(sorted(indexes))}
    processes = {op.process for op in shown} | {op.process for op in nemesis}
    names = sorted(processes, key=by_number)
    columns = {name: COLUMN * number for number, name in enumerate(names)}
    last = len(rows) + 2
    boxes = []
    for events in faults(nemesis):
        first, final = events[0], events[-1]
        top, bottom = rows[first.index], rows[final.index] + 1 if stops(final) else last
        words = "\n".join(
            f"{op.f} {shorten(edn.dumps(op.value), 500)} at {op.time / MILLISECOND:,.3f} ms"
            for op in events
        )
        boxes.append(
            f'<div class="band" title="{markup(words)}" '
            f'style="top:{top * ROW + 4}px;height:{(bottom - top) * ROW - 1}px">'
            f"{markup(shorten(first.f, 60))}</div>"
        )
    for op in shown:
        top = rows[op.start_index]
        # An unknown operation has no end, and its process runs no other.
        bottom = last if op.end_index is None else rows[op.end_index] + 1
        boxes.append(
            f'<div class="{op.type}" title="{markup(details(op))}" style="top:{top * ROW + 4}px;'
            f'height:{(bottom - top) * ROW - 1}px;left:{columns[op.process]}px">'
            f"{markup(shorten(describe(op), 60))}</div>"
        )
    return PAGE.format(
        **COLOURS,
        title=markup(title),
        height=last * ROW + 16,
        width=COLUMN * max(1, len(columns)),
        inner=COLUMN - 6,
        row=ROW,
        faults="Grey bands are faults of the nemesis. " if nemesis else "",
        note=f"Only the first {MOST:,} operations are shown; {cut:,} are omitted." if cut else "",
        names="\n".join(
            f'<div style="left:{left}px">{markup(_heading(name))}</div>'
            for name, left in columns.items()
        ),
        boxes="\n".join(boxes),
    )


def _heading(name: int | str) -> str:
    return f"process {name}" if isinstance(name, int) else name
