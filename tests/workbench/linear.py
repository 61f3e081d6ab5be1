"""linear.svg: why the history of a key is not linearizable, as Jepsen draws it.

Time goes to the right, and each process has a track. Lines lead through the orders that were
tried; each ends, in red, at the operation that is impossible then.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .checker import Analysis, Step
from .history import Operation

LABEL = 110  # pixels left of the tracks
TRACK = 56
BOX = 30
TOP = 96
GAP = 18  # between two events
CHARACTER = 7.3
SHOWN = 24  # characters of an operation
COLOURS = {"ok": "#6DB6FE", "info": "#FFAA26", "fail": "#FEB5DA"}
MEANINGS = {
    "ok": "ok",
    "info": "unknown: may happen at any later time",
    "fail": "failed, but saw the value",
}
PATHS = ("#444444", "#7B3294", "#1B7837", "#8C510A", "#01665E")
STYLE = "text{font:13px system-ui,sans-serif;fill:#222}.bad{fill:#C00;font-weight:600}"

Box = tuple[float, float, float]  # left, right, top


def svg(operations: Sequence[Operation], analysis: Analysis, title: str) -> str:
    """Draws the operations that matter to the one that cannot be placed."""
    shown = _that_matter(operations, analysis)
    tracks = {
        process: TOP + TRACK * row
        for row, process in enumerate(sorted({op.process for op in shown}, key=str))
    }
    if all(isinstance(process, int) for process in tracks):
        tracks = {p: TOP + TRACK * row for row, p in enumerate(sorted(tracks, key=lambda p: p))}
    moments, right = _moments(shown)
    boxes: dict[int, Box] = {}
    for op in shown:
        end = right if op.end_index is None else moments[op.end_index]
        boxes[op.start_index] = (moments[op.start_index], end, tracks[op.process])

    bottom = TOP + TRACK * len(tracks)
    in_words = [f"{n}. {_in_words(path)}" for n, path in enumerate(analysis.final_paths, 1)]
    words = [title, analysis.why, *in_words]
    width = max(right + 20, 60 + CHARACTER * max(map(len, words)), 760)
    height = bottom + 30 + 22 * len(in_words)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}"><style>{STYLE}</style>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="20" y="28" style="font-size:17px">{escape(title)} is not linearizable</text>',
        f'<text x="20" y="50" class="bad">{escape(analysis.why)}</text>',
        *_legend(),
    ]
    for process, top in tracks.items():
        parts.append(f'<text x="20" y="{top + 20}">process {process}</text>')
        parts.append(
            f'<line x1="{LABEL}" x2="{right:.0f}" y1="{top + BOX + 8}" y2="{top + BOX + 8}" '
            'stroke="#DDD"/>'
        )
    paths = [_path(path, n, boxes) for n, path in enumerate(analysis.final_paths)]
    parts += [_box(op, boxes[op.start_index], op == analysis.failed) for op in shown]
    parts += [line for lines, _ in paths for line in lines]
    parts += [_text(op, boxes[op.start_index]) for op in shown]
    parts += [point for _, points in paths for point in points]
    if analysis.final_paths and analysis.failed:
        _, end, above = boxes[analysis.failed.start_index]
        problem = escape(analysis.final_paths[0][-1].problem)
        parts.append(
            f'<text x="{end:.1f}" y="{above - 6}" text-anchor="end" class="bad">{problem}</text>'
        )
    parts.append(f'<text x="20" y="{bottom + 18}">The orders that came furthest:</text>')
    for row, line in enumerate(in_words, 1):
        colour = PATHS[(row - 1) % len(PATHS)]
        parts.append(
            f'<text x="20" y="{bottom + 18 + 22 * row}" style="fill:{colour}">{escape(line)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def _that_matter(operations: Sequence[Operation], analysis: Analysis) -> list[Operation]:
    """Those on the paths, and those at work at the time of the failed one."""
    failed = analysis.failed
    assert failed is not None and failed.end_index is not None
    wanted = {step.operation.start_index for path in analysis.final_paths for step in path}
    return [
        op
        for op in operations
        if op.start_index in wanted
        or (
            op.start_index < failed.end_index
            and op.end_index is not None
            and op.end_index > failed.start_index
        )
    ]


def _moments(shown: Sequence[Operation]) -> tuple[dict[int, float], float]:
    """Where each event stands, and the right edge: in order of time, with room for all texts."""
    starts = {op.start_index: op for op in shown}
    ends = {op.end_index: op for op in shown if op.end_index is not None}
    free: dict[int | str, float] = {}  # where each track is free again
    moments: dict[int, float] = {}
    x = float(LABEL)
    for index in sorted([*starts, *ends]):
        x += GAP
        if index in starts:
            x = max(x, free.get(starts[index].process, x))
        else:
            op = ends[index]
            x = max(x, moments[op.start_index] + _width(op))
            free[op.process] = x + GAP / 2
        moments[index] = x
    unknown = [moments[op.start_index] + _width(op) for op in shown if op.end_index is None]
    return moments, max([x + GAP, *unknown])


def _width(op: Operation) -> float:
    return CHARACTER * len(_label(op)) + 16


def _label(op: Operation) -> str:
    text = str(op)
    if op.type == "fail":
        text = f"{op} failed" if op.f == "cas" else "read: no value"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _legend() -> list[str]:
    parts, x = [], 20.0
    for type, meaning in MEANINGS.items():
        parts.append(f'<rect x="{x:.0f}" y="63" width="14" height="14" fill="{COLOURS[type]}"/>')
        parts.append(f'<text x="{x + 20:.0f}" y="75">{meaning}</text>')
        x += 20 + CHARACTER * len(meaning) + 24
    return parts


def _box(op: Operation, box: Box, failed: bool) -> str:
    left, right, top = box
    outline = "#C00" if failed else "#FFF" if op.end_index is not None else "#D98200"
    hover = f"process {op.process}: {op}, {op.type}, index {op.start_index} to {op.end_index}"
    return (
        f'<g class="operation {op.type}"><rect x="{left:.1f}" y="{top}" '
        f'width="{right - left:.1f}" height="{BOX}" rx="3" fill="{COLOURS[op.type]}" '
        f'stroke="{outline}" stroke-width="{3 if failed else 1}"/>'
        f"<title>{escape(hover)}</title></g>"
    )


def _text(op: Operation, box: Box) -> str:
    left, _, top = box
    return (
        f'<text x="{left + 7:.1f}" y="{top + 14}" style="pointer-events:none">'
        f"{escape(_label(op))}</text>"
    )


def _path(
    path: Sequence[Step], number: int, boxes: dict[int, Box]
) -> tuple[list[str], list[str]]:
    """Lines from operation to operation, and points that say what the register holds then."""
    colour = PATHS[number % len(PATHS)]
    lines: list[str] = []
    points: list[str] = []
    here: tuple[float, float] | None = None
    for step in path:
        left, right, top = boxes[step.operation.start_index]
        x = min(max(left + 8, here[0] + 8 if here else left + 8), right - 6)
        y = top + BOX - 8 + 3 * (number % 3)
        hover = step.problem or f"{step.operation}: the register holds {step.state}"
        if step.state is None and not step.problem:
            hover = f"{step.operation}: the register is absent"
        stroke = "#C00" if step.problem else colour
        title = f"<title>{escape(hover)}</title>"
        if here:
            lines.append(
                f'<line x1="{here[0]:.1f}" y1="{here[1]}" x2="{x:.1f}" y2="{y}" '
                f'stroke="{stroke}" stroke-width="2">{title}</line>'
            )
        points.append(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{stroke}">{title}</circle>')
        here = (x, y)
    return lines, points


def _in_words(path: Sequence[Step]) -> str:
    *steps, last = path
    return ", ".join([*(_label(step.operation) for step in steps), last.problem])
