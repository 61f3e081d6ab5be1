"""Writes elle/: each type of anomaly in words, and a drawing of each cycle of transactions.

    elle/G1c.txt      explanations of the anomalies of the type G1c, numbered from 0
    elle/G1c/0.svg    the cycle of explanation 0

The files have Elle's names. In a drawing, each transaction is a box, and an arrow leads to a
transaction that must come later. The last arrow, in red, leads back to the first transaction. That
is the contradiction.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from ..checkers.elle import Cycle, Result, Step
from ..checkers.transactions import Txn
from ..record import edn
from ..record.history import shorten
from .drawing import COLOURS, markup

MARGIN = 20
LEFT = 70  # space left of the boxes, for the last arrow; in pixels like all lengths
TOP = 62
LINE = 19  # height of a line of text
GAP = 26  # least height of an arrow
HEAD = 7  # length of an arrow's head
CHARACTER = 7.6  # width of a character
WORDS = 84  # characters of a line of text
FORM = 64  # characters shown of a micro-operation
MOST_TXNS = 12  # transactions drawn of a cycle; the middle of a longer one is left out
MOST_MOPS = 12  # micro-operations shown of a transaction, besides those of its arrows
MEANINGS = {
    "ww": "the next one overwrote this one's write, or appended after it",
    "wr": "the next one read this one's write",
    "rw": "this one did not see the next one's write",
    "process": "a process ran this one first",
    "realtime": "this one ended before the next one began",
}
LIGHT = {
    "ww": "#8C510A", "wr": "#1B7837", "rw": "#7B3294", "process": "#01665E", "realtime": "#444444",
    "last": "#CC0000",
}  # fmt: skip
DARK = {
    "ww": "#E5B567", "wr": "#7FD694", "rw": "#D3A4EA", "process": "#6FD6CC", "realtime": "#CCCCCC",
    "last": "#FF7B72",
}  # fmt: skip


def picture(type_: str, number: int) -> str:
    """Returns the path of a drawing in the folder of a run."""
    return f"elle/{type_}/{number}.svg"


def files(result: Result) -> dict[str, str]:
    """Returns the texts of all files, by their paths in the folder of a run."""
    texts = {
        f"elle/{type_}.txt": "\n\n\n".join(
            f"{type_} #{number}\n\n{words}" for number, words in enumerate(explanations)
        )
        + "\n"
        for type_, explanations in result.explanations.items()
    }
    drawings = {
        picture(type_, number): svg(type_, cycle)
        for type_, cycles in result.cycles.items()
        for number, cycle in enumerate(cycles)
    }
    return texts | drawings


def svg(type_: str, cycle: Cycle) -> str:
    """Draws the transactions of a cycle from top to bottom."""
    count = len(cycle.txns)
    who = f"these {count} transactions have" if count > 1 else "this transaction has"
    heading = f"{type_}: {who} no possible order"
    kinds = dict.fromkeys(step.kind for step in cycle.steps)
    legend = [f"{kind}: {MEANINGS[kind]}" for kind in kinds]
    boxes = _boxes(cycle)
    width = CHARACTER * max(len(line) for lines in boxes.values() for line, _ in lines) + 2 * MARGIN

    parts: list[str] = []
    y = float(TOP + LINE * len(legend))
    edges: list[float] = []  # top and bottom of each box
    for number, lines in boxes.items():
        height = LINE * len(lines) + 12
        parts.append(_box(cycle.txns[number], lines, y, width, height))
        edges += [y, y + height]
        y += height
        if number + 1 == count:
            break
        if number + 1 in boxes:
            step = cycle.steps[number]
            texts, kind = _lines(step, number, count), step.kind
        else:
            omitted = count - len(boxes)
            texts, kind = [f"… {omitted} more transaction{'s' * (omitted > 1)} …"], "omitted"
        down = GAP + LINE * (len(texts) - 1)
        parts.append(_arrow(kind, LEFT + MARGIN, y, y + down))
        parts.append(_text(texts, kind, LEFT + 2 * MARGIN, y + 17))
        y += down
    parts.append(_back(edges[0] + 16, edges[-1] - 16))
    last = _lines(cycle.steps[-1], count - 1, count)
    last.append("So T1 would come before itself, which is impossible.")
    parts.append(_text(last, "last", LEFT, y + 22))
    bottom = y + 22 + LINE * len(last)

    lengths = [len(heading) * 1.3, *(len(line) for line in legend), *(len(line) for line in last)]
    right = max(LEFT + width, LEFT + 2 * MARGIN + CHARACTER * WORDS, CHARACTER * max(lengths))
    right += MARGIN
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:.0f}" height="{bottom:.0f}" '
        f'viewBox="0 0 {right:.0f} {bottom:.0f}">',
        f"<style>{_style()}</style>",
        '<rect class="page" width="100%" height="100%"/>',
        f'<text x="{MARGIN}" y="30" style="font-size:17px">{markup(heading)}</text>',
        *(
            _text([line], kind, MARGIN, 55 + LINE * row)
            for row, (kind, line) in enumerate(zip(kinds, legend, strict=True))
        ),
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _style() -> str:
    """Returns the style of light mode, and that of dark mode."""
    light = [f".{name} {{ color: {colour}; }}" for name, colour in LIGHT.items()]
    dark = [f"  .{name} {{ color: {colour}; }}" for name, colour in DARK.items()]
    return "\n".join([
        "",
        "svg { background: white; }",
        ".page { fill: white; }",
        "text { font: 13px system-ui, sans-serif; fill: #222; }",
        "text.edge { fill: currentColor; }",
        "path { fill: none; stroke: currentColor; stroke-width: 2px; }",
        "path.head { fill: currentColor; }",
        "path.last { stroke-width: 3px; }",
        ".marked { font-weight: 600; }",
        ".omitted { color: #666; stroke-dasharray: 4 4; }",
        *(f"rect.{type_} {{ fill: {colour}; }}" for type_, colour in COLOURS.items()),
        *light,
        "@media (prefers-color-scheme: dark) {",
        "  svg { background: #121212; }",
        "  .page { fill: #121212; }",
        "  text { fill: #DDD; }",
        "  .omitted { color: #999; }",
        "  rect.ok { fill: #1F5F9E; } rect.info { fill: #8A5200; } rect.fail { fill: #8E3A68; }",
        *dark,
        "}",
        "",
    ])  # fmt: skip


def _boxes(cycle: Cycle) -> dict[int, list[tuple[str, bool]]]:
    """Returns the lines of each transaction that is drawn, and whether an arrow needs the line."""
    count = len(cycle.txns)
    marked: list[set[int | None]] = [set() for _ in range(count)]
    for number, step in enumerate(cycle.steps):
        marked[number].add(step.before)
        marked[(number + 1) % count].add(step.after)
    half = MOST_TXNS // 2
    drawn = range(count) if count <= MOST_TXNS else [*range(half), *range(count - half, count)]
    return {number: _content(number, cycle.txns[number], marked[number]) for number in drawn}


def _content(number: int, txn: Txn, marked: set[int | None]) -> list[tuple[str, bool]]:
    op = txn.op
    lines = [(f"T{number + 1}: process {op.process}, {op.type} at index {op.index}", False)]
    shown = [place for place in range(len(txn.mops)) if place < MOST_MOPS or place in marked]
    lines += [
        (shorten(edn.dumps(txn.mops[place].form), FORM), place in marked)
        for place in shown
    ]
    if more := len(txn.mops) - len(shown):
        lines.append((f"and {more:,} more", False))
    return lines


def _lines(step: Step, number: int, count: int) -> list[str]:
    """Returns the reason for the arrow from a transaction."""
    after = (number + 1) % count + 1
    words = f"{step.kind}: T{number + 1} comes before T{after}, since {step.words}"
    return wrap(words, WORDS)


def _box(
    txn: Txn, lines: Sequence[tuple[str, bool]], top: float, width: float, height: float
) -> str:
    texts = [
        f'<text class="{"marked" if marked else "plain"}" x="{LEFT + (26 if row else 10)}" '
        f'y="{top + LINE * row + 19:.0f}">{markup(line)}</text>'
        for row, (line, marked) in enumerate(lines)
    ]
    return "\n".join([
        f'<rect class="{txn.op.type}" x="{LEFT}" y="{top:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" rx="3"><title>{markup(str(txn))}</title></rect>',
        *texts,
    ])  # fmt: skip


def _text(lines: Sequence[str], kind: str, x: float, y: float) -> str:
    return "\n".join(
        f'<text class="edge {kind}" x="{x:.0f}" y="{y + LINE * row:.0f}">{markup(line)}</text>'
        for row, line in enumerate(lines)
    )


def _arrow(kind: str, x: float, top: float, bottom: float) -> str:
    """Draws an arrow from a box to the one below it."""
    return (
        f'<path class="{kind}" d="M{x:.0f} {top:.0f}V{bottom - HEAD:.0f}"/>'
        f'<path class="{kind} head" d="M{x:.0f} {bottom - 2:.0f}l-4 -{HEAD}h8z"/>'
    )


def _back(top: float, bottom: float) -> str:
    """Draws the arrow from the last box back to the first one, on their left."""
    x = MARGIN + 10
    return (
        f'<path class="last" d="M{LEFT} {bottom:.0f}C{x} {bottom:.0f} {x} {bottom:.0f} {x} '
        f"{max(top, bottom - 30):.0f}V{min(bottom, top + 30):.0f}"
        f'C{x} {top:.0f} {x} {top:.0f} {LEFT - HEAD} {top:.0f}"/>'
        f'<path class="last head" d="M{LEFT - 2} {top:.0f}l-{HEAD} -4v8z"/>'
    )
