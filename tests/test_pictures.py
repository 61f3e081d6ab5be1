"""The pictures of a run: well-formed, legible, and true to the history."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from histories import simulated, spoilt
from workbench.checkers.linearizable import Analysis, check
from workbench.record.edn import Keyword
from workbench.record.history import Op, Operation, operations
from workbench.report import linear, timeline

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</title><script>alert('1')</script>&amp;\"]]>\x00\ud800" + "long" * 100
RED = linear.RED


class Box(NamedTuple):
    """Where an operation is drawn: its track or column, and its extent in time."""

    track: float
    start: float
    end: float


def event(process: int, type: str, f: str, value: object, time: int, error: object = None) -> Op:
    return Op(process, type, f, value, time * 1_000_000, time, error)


def anomaly(written: object = 2, read: object = 4) -> list[Op]:
    """The tutorial's: a write, and later a read of something else."""
    return [
        event(0, "invoke", "write", written, 0),
        event(0, "ok", "write", written, 1),
        event(3, "invoke", "read", None, 2),
        event(3, "ok", "read", read, 5),
    ]


def not_linearizable() -> Iterator[tuple[list[Operation], Analysis]]:
    """Histories with unknown and failed operations in which a read cannot be placed."""
    for seed in range(60):
        rng = random.Random(seed)
        events = spoilt(rng, simulated(rng, 60, processes=rng.randrange(2, 15), unknown=3), 0.4)
        analysis = check(events)
        if analysis.valid is False:
            yield operations(events), analysis


def draw(shown: Sequence[Operation], analysis: Analysis, title: str = "key 0") -> Element:
    """The picture as a file has it, read back."""
    return ElementTree.fromstring(linear.svg(shown, analysis, title).encode())


def svg_boxes(root: Element) -> dict[int, Box]:
    """The rectangles, by the index of their invocation."""
    boxes = {}
    for rect in root.iter(f"{SVG}rect"):
        if name := rect.get("id"):
            x, y, width = (float(rect.attrib[key]) for key in ("x", "y", "width"))
            boxes[int(name.removeprefix("operation-"))] = Box(y, x, x + width)
    return boxes


def visible(root: Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def assert_in_order(shown: Sequence[Operation], boxes: dict[int, Box]) -> None:
    """Events stand in the order of time, and what one process did does not overlap."""
    events = {op.start_index: boxes[op.start_index].start for op in shown}
    known = [op for op in shown if op.end_index is not None]
    events |= {op.end_index: boxes[op.start_index].end for op in known if op.end_index is not None}
    places = [place for _, place in sorted(events.items())]
    assert all(before < after for before, after in pairwise(places))
    for op in shown:
        if op.end_index is None:
            assert boxes[op.start_index].end > max(places), "an unknown operation has no end"
    for before, after in pairwise(sorted(boxes.values())):
        assert before.track != after.track or before.end < after.start
    assert len({box.track for box in boxes.values()}) == len({op.process for op in shown})


def test_the_impossible_step_is_shown_with_its_words() -> None:
    history = anomaly()
    root = draw(operations(history), check(history))
    assert {"width", "height", "viewBox"} <= root.attrib.keys()
    assert {"process 0", "process 3", "write 2", "read 4", "key 0 is not linearizable"} <= set(
        visible(root)
    )
    assert "1. read found 4, but the register held 2" in visible(root)
    assert "first: absent" in visible(root), "the value before the first step"
    assert check(history).why in " ".join(visible(root))
    reason = next(
        text for text in root.iter(f"{SVG}text") if (text.text or "").startswith("1. read")
    )
    end = list(root.iter(f"{SVG}circle"))[-1]
    beside = float(reason.attrib["x"]) - float(end.attrib["cx"])
    assert 0 < beside < 20 and abs(float(reason.attrib["y"]) - float(end.attrib["cy"])) < 8
    outlined = [rect.get("id") for rect in root.iter(f"{SVG}rect") if rect.get("stroke") == RED]
    assert outlined == ["operation-2"]
    steps = [
        (step.findtext(f"{SVG}title"), step.get("stroke") == RED)
        for step in root.iter(f"{SVG}g")
        if step.get("class") == "step"
    ]
    assert steps == [
        ("write 2: before it absent, after it 2", False),
        ("read found 4, but the register held 2", True),
    ]


def test_only_operations_that_matter_are_drawn() -> None:
    history = [
        event(1, "invoke", "cas", [7, 8], -4),
        event(1, "info", "cas", [7, 8], -3, "net-timeout"),
        *(event(7, type, "write", 9, -2 + n) for n, type in enumerate(["invoke", "ok"])),
        *anomaly(),
        *(event(8, type, "write", 9, 3 + n) for n, type in enumerate(["invoke", "fail"])),
        *(event(9, type, "write", 5, 6 + n) for n, type in enumerate(["invoke", "ok"])),
    ]
    history.sort(key=lambda op: op.time)
    root = draw(operations(history), check(history))
    assert svg_boxes(root).keys() == {-4, -2, 0, 2}
    assert "cas 7→8" in visible(root)


def test_linear_is_in_order_and_its_paths_lead_through_their_operations() -> None:
    seen = 0
    for shown, analysis in not_linearizable():
        root = draw(shown, analysis)
        boxes = svg_boxes(root)
        drawn = [op for op in shown if op.start_index in boxes]
        assert_in_order(drawn, boxes)
        assert max(box.end for box in boxes.values()) <= float(root.attrib["width"])
        assert all(
            box.end - box.start > 6.5 * len(str(op.value))
            for op in drawn
            if (box := boxes[op.start_index])
        )

        circles = iter([circle.attrib for circle in root.iter(f"{SVG}circle")])
        for path in analysis.final_paths:
            x = 0.0
            for step in path:
                circle, box = next(circles), boxes[step.operation.start_index]
                assert max(x, box.start) < float(circle["cx"]) < box.end
                rows = len(analysis.final_paths) if step.problem else 0
                height = linear.BOX + linear.LINE * rows
                assert box.track < float(circle["cy"]) < box.track + height
                x = float(circle["cx"])
            assert any(text.endswith(path[-1].problem) for text in visible(root))
        assert next(circles, None) is None
        ends = {step[-1].get("cx") for step in root.iter(f"{SVG}g") if step.get("stroke") == RED}
        assert len(ends) == 1, "the impossible steps stand below each other"
        seen += any(op.end_index is None for op in drawn) and len(analysis.final_paths) > 2
    assert seen >= 5


class Page(HTMLParser):
    """Reads a timeline back; every tag has to be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.boxes: list[tuple[Box, str]] = []  # with what hovering shows
        self.bands: list[tuple[Box, str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        found = dict(attrs)
        if found.get("class") in ("ok", "info", "fail", "band") and tag == "div":
            style = {"left": "0", **dict(re.findall(r"(\w+):(\d+)px", found["style"] or ""))}
            top, height, left = (float(style[key]) for key in ("top", "height", "left"))
            drawn = self.bands if found["class"] == "band" else self.boxes
            drawn.append((Box(left, top, top + height), found["title"] or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_timeline_is_in_order_and_tells_all() -> None:
    for shown, _ in not_linearizable():
        page = Page(timeline.html(shown, "a run"))
        boxes = [box for box, _ in page.boxes]
        assert_in_order(shown, {op.start_index: box for op, box in zip(shown, boxes, strict=True)})
    history = [*anomaly([0, 2], [0, 4]), event(7, "invoke", "cas", [0, [1, 2]], 6)]
    history.append(event(7, "fail", "cas", [0, [1, 2]], 8, [22, "expected 1"]))
    page = Page(timeline.html(operations(history), "a run"))
    for words in ("a run", "process 3", "write [0 2]", "read [0 4]", "cas [0 [1 2]]"):
        assert words in page.text
    hover = page.boxes[-1][1]
    for words in ("process 7", "fail", "6.000 ms", "8.000 ms", "took 2.000 ms", "index 6", "22"):
        assert words in hover


def test_timeline_shows_faults_from_their_start_to_their_end() -> None:
    history = anomaly()
    history.append(event(4, "invoke", "read", None, 8))
    faults = [
        replace(event(0, "info", f, value, time), process="nemesis")
        for f, value, time in [
            ("stop-partition", None, -2),
            ("start-partition", Keyword("one"), 3),
            ("start-partition", [Keyword("isolated"), {"n0": frozenset({"n1"})}], 4),
            ("stop-partition", None, 6),
            ("stop-partition", Keyword("network-healed"), 7),
            ("start-partition", Keyword("majority"), 9),
        ]
    ]
    page = Page(timeline.html(operations(history), "a run", faults))
    assert "nemesis" in page.text and "nemesis" not in timeline.html(operations(history), "a run")
    (first, hover), (second, _) = page.bands
    read, last = page.boxes[1][0], page.boxes[2][0]
    assert read.start < first.start < read.end < first.end < last.start < second.start
    assert second.end == last.end, "one that was not healed goes on"
    assert "start-partition [:isolated" in hover and "stop-partition :network-healed at 7" in hover


def test_errors_are_shown_as_edn() -> None:
    history = [event(0, "invoke", "read", None, 0)]
    history.append(event(0, "fail", "read", None, 1, [Keyword("key-does-not-exist"), "not found"]))
    ((_, hover),) = Page(timeline.html(operations(history), "a run")).boxes
    assert 'error: [:key-does-not-exist "not found"]' in hover


def test_timeline_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = operations(anomaly())
    assert "omitted" not in timeline.html(shown, "a run")
    monkeypatch.setattr(timeline, "MOST", 1)
    page = Page(timeline.html(shown, "a run"))
    assert len(page.boxes) == 1
    assert "Only the first 1 operations are shown; 1 are omitted." in page.text


def test_hostile_values_stay_text() -> None:
    history = anomaly(HOSTILE, {HOSTILE: [HOSTILE]})
    history.append(event(5, "invoke", "read", None, 6))
    history.append(event(5, "fail", "read", None, 7, HOSTILE))
    root = draw(operations(history), check(history), HOSTILE)
    assert {element.tag.removeprefix(SVG) for element in root.iter()}.isdisjoint({"script"})
    assert any("<script>" in text for text in visible(root))
    assert max(map(len, visible(root))) < 200
    assert float(root.attrib["width"]) < 2500

    document = timeline.html(operations(history), HOSTILE[:60])
    page = Page(document.encode().decode())
    assert "script" not in page.tags
    assert "<script>" in page.text
    assert "\x00" not in document
    assert all(len(hover) < 1500 for _, hover in page.boxes)


def test_a_long_reason_stays_in_the_window() -> None:
    history = [event(n % 2, type, "write", n, 2 * n + m) for n in range(16)
               for m, type in enumerate(["invoke", "ok"])]
    history += [event(3, "invoke", "read", None, 50), event(3, "ok", "read", 99, 51)]
    root = draw(operations(history), check(history))
    (label,) = (text for text in root.iter(f"{SVG}text") if (text.text or "").startswith("1. read"))
    assert label.attrib["text-anchor"] == "end"
    assert float(label.attrib["x"]) > linear.WIDE_CHARACTER * len(label.text or "")
    edge = max(box.end for box in svg_boxes(root).values())
    assert float(root.attrib["width"]) < max(edge, linear.WINDOW) + 100


def test_the_drawing_has_a_dark_mode_and_tells_that_it_scrolls() -> None:
    root = draw(operations(anomaly()), check(anomaly()))
    style = root.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
    for name in ("fill", "stroke", "stop-color"):
        for colour in {part.get(name) for part in root.iter()} - {None, "url(#open)"}:
            assert f'[{name}="{colour}"]' in style, "each colour has its dark one"
    assert linear.HINT in visible(root)
    assert re.search(r"max-width: (\d+)px", style)
