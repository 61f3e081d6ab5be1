"""Draws linear.svg: why a key's history is not linearizable, in Jepsen's style.

Time goes to the right, and each process has a track. Each line is an order that the checker tried.
It ends, in red, at the impossible operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from textwrap import wrap

from ..checkers.linearizable import Analysis, Step
from ..record.history import Operation, shorten
from .drawing import COLOURS, by_number, describe, details, markup

MARGIN = 20
LABEL = 110  # space left of the tracks, in pixels like all lengths
TOP = 120  # space above the tracks
TRACK = 54
BOX = 34
LINE = 19  # height of a line of text
GAP = 20  # between two events
OPEN = 60  # width over which an operation without an end fades out
STRIDE = 14  # between two steps at the same time
CHARACTER = 7.5  # width of a character
WIDE_CHARACTER = 8.6  # largest width of a bold character
WHY = 110  # characters of a line of text above or below the tracks
WINDOW = 1240  # width that a label beside a step should not exceed, unless the tracks are wider
UNKNOWN_SHOWN = 5
MEANINGS = {
    "ok": "ok",
    "info": "unknown: may take effect at any later time, or never",
    "fail": "failed, which tells something about the value",
}
PATHS = ("#444444", "#7B3294", "#1B7837", "#8C510A", "#01665E")
RED = "#CC0000"
# Texts have an outline in the background's colour, which keeps them readable across lines.
STYLE = f"""
svg {{ background: white; }}
text {{ font: 13px system-ui, sans-serif; fill: #222; stroke: white; stroke-width: 4px;
       stroke-linejoin: round; paint-order: stroke; pointer-events: none; }}
.bad {{ fill: {RED}; font-weight: 600; }}
.step:hover {{ stroke-width: 5px; }}
.hint {{ display: none; font-size: 11px; }}
"""
DARK = {
    "white": "#121212", COLOURS["ok"]: "#1F5F9E", COLOURS["info"]: "#8A5200",
    COLOURS["fail"]: "#8E3A68", "#DDD": "#444", RED: "#FF7B72",
    **dict(zip(PATHS, ("#CCCCCC", "#D3A4EA", "#7FD694", "#E5B567", "#6FD6CC"), strict=True)),
}  # fmt: skip
"""Colours in dark mode, by the colour that each replaces."""
HINT = "The drawing is wider than the window: scroll to the right."

Span = tuple[float, float]  # from an operation's invocation to its completion, in pixels


def svg(operations: Sequence[Operation], analysis: Analysis, title: str) -> str:
    """Draws the operations of an invalid history that matter to its impossible operation."""
    failed, paths = analysis.failed, analysis.final_paths
    assert failed is not None, "only an invalid history has a picture"
    shown = _that_matter(operations, analysis, failed)
    spans, right = _spans(shown, failed)

    # Above the tracks: a row for each value that a path starts from.
    firsts = {value: TOP + LINE * row for row, value in enumerate(_firsts(paths))}
    tops: dict[int | str, int] = {}
    bottom = TOP + LINE * len(firsts) + 8
    for process in sorted({op.process for op in shown}, key=by_number):
        tops[process] = bottom
        bottom += TRACK + (LINE * len(paths) if process == failed.process else 0)

    heading = f"{shorten(title, 80)} is not linearizable"
    why = wrap(shorten(analysis.why, 300), WHY)
    legend, legend_right = _legend()
    moments = _moments(paths, spans)
    at = moments[0][-1] + 8
    reasons = [f"{row}. {shorten(path[-1].problem, 120)}" for row, path in enumerate(paths, 1)]
    labels = [_beside(reason, at, max(WINDOW, right)) for reason in reasons]
    orders = [
        (line, PATHS[(number - 1) % len(PATHS)])
        for number, path in enumerate(paths, 1)
        for line in wrap(f"{number}. {_in_words(path)}", WHY, subsequent_indent="\u2003")
    ]
    words = max(len(text) for text in (heading, *why, *(line for line, _ in orders)))
    reasons_right = max(x + (0 if end else WIDE_CHARACTER * len(text)) for text, x, end in labels)
    width = MARGIN + max(right, legend_right, reasons_right, MARGIN + CHARACTER * words)
    height = bottom + LINE * (len(orders) + 2)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}">',
        f"<style>{STYLE}{_dark()}@media (max-width: {int(width) - 1}px) "
        "{ .hint { display: inline; } }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<linearGradient id="open" gradientUnits="userSpaceOnUse" x1="{right - OPEN:.0f}" '
        f'x2="{right:.0f}"><stop stop-color="{COLOURS["info"]}"/>'
        f'<stop offset="1" stop-color="{COLOURS["info"]}" stop-opacity="0"/></linearGradient>',
        f'<text x="{MARGIN}" y="12" class="hint">{HINT}</text>',
        f'<text x="{MARGIN}" y="30" style="font-size:17px">{markup(heading)}</text>',
        *(
            f'<text x="{MARGIN}" y="{53 + LINE * row}" class="bad">{markup(line)}</text>'
            for row, line in enumerate(why)
        ),
        *legend,
    ]
    for process, top in tops.items():
        parts.append(
            f'<path d="M{LABEL} {top + BOX / 2}H{right:.0f}" stroke="#DDD"/>'
            f'<text x="{MARGIN}" y="{top + BOX / 2 + 4}">process {markup(str(process))}</text>'
        )
    parts += [
        f'<text x="{MARGIN}" y="{y}">first: {markup(shorten(value, 8))}</text>'
        for value, y in firsts.items()
    ]
    for op in shown:
        rows = len(paths) if op == failed else 0  # the impossible one has a row for each path
        parts.append(_box(op, spans[op.start_index], tops[op.process], rows))
    for number, (path, xs) in enumerate(zip(paths, moments, strict=True)):
        # Paths through the same operations are drawn side by side.
        down = BOX - 14 + 10 * number / max(1, len(paths) - 1)
        points = [
            (x, tops[step.operation.process] + down) for x, step in zip(xs, path, strict=True)
        ]
        points[-1] = xs[-1], tops[failed.process] + BOX + LINE * number + 6
        points.insert(0, (LABEL, firsts[path[0].before] - 4))
        parts += _path(path, points, PATHS[number % len(PATHS)])
    parts += [_text(op, spans[op.start_index], tops[op.process]) for op in shown]
    parts += [
        f'<text x="{x:.1f}" y="{tops[failed.process] + BOX + LINE * row + 10}" '
        f'class="bad" text-anchor="{"end" if end else "start"}">{markup(text)}</text>'
        for row, (text, x, end) in enumerate(labels)
    ]
    parts.append(
        f'<text x="{MARGIN}" y="{bottom + 8}">The longest orders that the checker found, without '
        "the impossible step:</text>"
    )
    parts += [
        f'<text x="{MARGIN}" y="{bottom + 8 + LINE * row}" '
        f'style="fill:{colour}">{markup(line)}</text>'
        for row, (line, colour) in enumerate(orders, 1)
    ]
    return "\n".join([*parts, "</svg>\n"])


def _beside(reason: str, at: float, limit: float) -> tuple[str, float, bool]:
    """Places a label beside the impossible step: to its right if it fits there, else to its left.

    Returns the text, its x, and whether x is its end. A label that fits nowhere is cut; the step's
    tooltip has all of it.
    """
    right = int((limit - at) / WIDE_CHARACTER)
    left = int((at - 24 - MARGIN) / WIDE_CHARACTER)
    if len(reason) <= right or right >= left:
        return shorten(reason, max(20, right)), at, False
    return shorten(reason, max(20, left)), at - 24, True


def _dark() -> str:
    """Returns the style of dark mode, which replaces each colour."""
    rules = [
        f"svg {{ background: {DARK['white']}; }}",
        f"text {{ fill: #DDD; stroke: {DARK['white']}; }}",
        f".bad {{ fill: {DARK[RED]}; }}",
    ]
    for light, dark in DARK.items():
        for name in ("fill", "stroke", "stop-color"):
            rules.append(f'[{name}="{light}"] {{ {name}: {dark}; }}')
            rules.append(f'[style="{name}:{light}"] {{ {name}: {dark} !important; }}')
    return "@media (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"


def _that_matter(
    operations: Sequence[Operation], analysis: Analysis, failed: Operation
) -> list[Operation]:
    """Selects the operations on the paths, and those concurrent with the impossible operation."""
    on_paths = {step.operation.start_index for path in analysis.final_paths for step in path}
    end = failed.start_index if failed.end_index is None else failed.end_index
    unknown = [
        op.start_index
        for op in operations
        if op.end_index is None and op.f != "read" and op.start_index < end
    ]
    wanted = {failed.start_index, *on_paths, *unknown[-UNKNOWN_SHOWN:]}
    wanted.update(
        op.start_index
        for op in operations
        if op.type == "ok"
        and op.end_index is not None
        and op.start_index < end
        and op.end_index > failed.start_index
    )
    return [op for op in operations if op.start_index in wanted]


def _spans(shown: Sequence[Operation], failed: Operation) -> tuple[dict[int, Span], float]:
    """Places each operation from left to right, with room for its text. Returns the right edge."""
    by_index = {op.start_index: op for op in shown}
    by_index |= {op.end_index: op for op in shown if op.end_index is not None}
    lefts: dict[int, float] = {}
    rights: dict[int, float] = {}
    x = edge = float(LABEL)
    for index, op in sorted(by_index.items()):
        # Extra room for the paths' last steps, which crowd before the failed operation's end.
        x += GAP + (3 * STRIDE if index == failed.end_index else 0)
        if index == op.start_index:
            lefts[index] = x
            edge = max(edge, x + _width(op))
        else:
            x = rights[op.start_index] = max(x, lefts[op.start_index] + _width(op))
    edge = max(edge, x) + OPEN
    return {start: (left, rights.get(start, edge)) for start, left in lefts.items()}, edge


def _firsts(paths: Sequence[Sequence[Step]]) -> list[str]:
    return list(dict.fromkeys(path[0].before for path in paths))


def _moments(paths: Sequence[Sequence[Step]], spans: dict[int, Span]) -> list[list[float]]:
    """Places each step within its operation, in the order of its path. The impossible steps are
    aligned below each other."""
    moments = [_of_one(path, spans) for path in paths]
    last = max(path[-1] for path in moments)
    return [[*path[:-1], last] for path in moments]


def _of_one(path: Sequence[Step], spans: dict[int, Span]) -> list[float]:
    # A step must not be later than the end of any step after it.
    ends = [spans[step.operation.start_index][1] - 6 for step in path]
    limits = list(accumulate(reversed(ends), min))[::-1]
    moments: list[float] = []
    x = 0.0
    for step, limit in zip(path, limits, strict=True):
        left, _ = spans[step.operation.start_index]
        x = max(left + 8, x + min(STRIDE, (limit - x) / 3))
        moments.append(x)
    return moments


def _width(op: Operation) -> float:
    return CHARACTER * len(_label(op)) + 16


def _label(op: Operation) -> str:
    if op.type == "fail":
        return "read: no value" if op.f == "read" else f"{shorten(describe(op), 24)} failed"
    return shorten(describe(op), 24)


def _legend() -> tuple[list[str], float]:
    parts, x = [], float(MARGIN)
    for type, meaning in MEANINGS.items():
        parts.append(
            f'<rect x="{x:.0f}" y="87" width="14" height="14" rx="3" fill="{COLOURS[type]}"/>'
            f'<text x="{x + 20:.0f}" y="99">{meaning}</text>'
        )
        x += 20 + CHARACTER * len(meaning) + 20
    return parts, x


def _box(op: Operation, span: Span, top: int, rows: int) -> str:
    """Draws an operation's rectangle. The impossible operation's has extra rows below its text."""
    left, right = span
    fill = COLOURS[op.type] if op.end_index is not None else "url(#open)"
    outline = f' stroke="{RED}" stroke-width="3"' if rows else ""
    return (
        f'<rect id="operation-{op.start_index}" class="{op.type}" x="{left:.1f}" y="{top}" '
        f'width="{right - left:.1f}" height="{BOX + LINE * rows}" rx="3" fill="{fill}"{outline}>'
        f"<title>{markup(details(op))}</title></rect>"
    )


def _text(op: Operation, span: Span, top: int) -> str:
    return (
        f'<text x="{span[0] + 8:.1f}" y="{top + 15}" style="stroke:{COLOURS[op.type]}">'
        f"{markup(_label(op))}</text>"
    )


def _path(path: Sequence[Step], points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    """Draws a path as a line to each step. A step's tooltip shows the register before and after."""
    parts = []
    for step, (before, (x, y)) in zip(path, pairwise(points), strict=True):
        stroke = RED if step.problem else colour
        parts.append(
            f'<g class="step" stroke="{stroke}" stroke-width="2">'
            f"<title>{markup(_after(step))}</title>"
            f'<path d="M{before[0]:.1f} {before[1]:.1f}L{x:.1f} {y:.1f}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{stroke}"/></g>'
        )
    return parts


def _after(step: Step) -> str:
    label = shorten(describe(step.operation), 60)
    return step.problem or f"{label}: before it {step.before}, after it {step.after}"


def _in_words(path: Sequence[Step]) -> str:
    """Describes a path: the value before its first step, and its steps."""
    steps = ", ".join(_label(step.operation) for step in path[:-1]) or "nothing"
    return f"first {shorten(path[0].before, 24)}, then {steps}"
