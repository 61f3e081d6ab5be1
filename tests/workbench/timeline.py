"""timeline.html: what each process did, with time going down, as Jepsen draws it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .history import Operation
from .loop import SECOND

MOST = 10_000  # operations; a browser has to draw them
ROW = 16  # pixels of an event
COLUMN = 130
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 13px system-ui, sans-serif; margin: 1em; }}
.scroll {{ overflow-x: auto; }}
.run {{ position: relative; height: {height}px; width: {width}px; }}
.op {{ position: absolute; width: {inner}px; box-sizing: border-box; padding: 0 6px; color: #111;
       overflow: hidden; white-space: nowrap; text-overflow: ellipsis; border-radius: 3px;
       line-height: {row}px; }}
.ok {{ background: #6DB6FE; }} .info {{ background: #FFAA26; }} .fail {{ background: #FEB5DA; }}
.head {{ position: absolute; top: 0; font-weight: 600; }}
</style></head><body>
<h1>{title}</h1>
<p>Time goes down, not to scale; each column is a process.
<span class="ok op" style="position:static">ok</span>
<span class="info op" style="position:static">unknown</span>
<span class="fail op" style="position:static">failed</span> Hover over an operation for more.
{note}</p>
<div class="scroll"><div class="run">
{boxes}
</div></div></body></html>
"""


def html(operations: Sequence[Operation], title: str) -> str:
    """A page with a box for each operation; it opens from disk and needs no script."""
    shown = operations[:MOST]
    indexes = [op.start_index for op in shown]
    indexes += [op.end_index for op in shown if op.end_index is not None]
    rows = {index: row for row, index in enumerate(sorted(indexes), 2)}
    columns = {
        process: COLUMN * number
        for number, process in enumerate(sorted({op.process for op in shown}, key=_number))
    }
    last = len(rows) + 3
    boxes = [
        f'<div class="head" style="left:{left}px">{escape(str(process))}</div>'
        for process, left in columns.items()
    ]
    for op in shown:
        top = rows[op.start_index]
        # An unknown operation may go on for ever; its process does nothing else.
        bottom = last if op.end_index is None else rows[op.end_index] + 1
        boxes.append(
            f'<div class="op {op.type}" title="{escape(_details(op))}" style="top:{top * ROW}px;'
            f'height:{(bottom - top) * ROW - 1}px;left:{columns[op.process]}px">'
            f"{escape(_shorten(str(op)))}</div>"
        )
    cut = len(operations) - len(shown)
    return PAGE.format(
        title=escape(title),
        height=last * ROW,
        width=COLUMN * max(1, len(columns)),
        inner=COLUMN - 6,
        row=ROW,
        note=f"The last {cut} operations are left out." if cut else "",
        boxes="\n".join(boxes),
    )


def _number(process: int | str) -> tuple[int, str]:
    return (process, "") if isinstance(process, int) else (-1, process)


def _details(op: Operation) -> str:
    start = op.start / SECOND
    lines = [f"process {op.process}: {op.type} {_shorten(str(op), 500)}", f"from {start:.6f} s"]
    if op.end is not None:
        lines.append(f"to {op.end / SECOND:.6f} s ({(op.end - op.start) / 1e6:.3f} ms)")
    if op.error is not None:
        lines.append(f"error: {_shorten(str(op.error), 500)}")
    return "\n".join([*lines, f"index {op.start_index}"])


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[:length] + "..."
