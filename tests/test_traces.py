"""The scenes of tests/traces.py are played as their files tell them."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import pytest
from story import Story, Stuck
from traces import FOLDER, SCENES, header, text


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.__name__))
def test_a_scene_is_played_as_it_is_told(scene: Callable[[], Story]) -> None:
    path = FOLDER / f"{scene.__name__}.txt"
    told = path.read_text(encoding="utf-8").splitlines()
    try:
        played = text(scene).splitlines()
    except Stuck as stuck:
        played = [*header(scene), "", *stuck.lines]
    if told != played:
        diff = difflib.unified_diff(told, played, path.name, "now", lineterm="")
        pytest.fail("\n".join([*diff, "", "If that is as wanted: make traces"]), pytrace=False)


def test_there_is_no_file_without_a_scene() -> None:
    names = {path.stem for path in FOLDER.iterdir()}
    assert names == {scene.__name__ for scene in SCENES}
