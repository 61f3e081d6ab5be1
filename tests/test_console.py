"""The console: on a terminal, in a file, and where stdout is closed."""

from __future__ import annotations

import io
import sys

import pytest
from workbench.console.console import GREEN, Console


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A file on a full disk."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        raise OSError(28, "No space left on device")


def screen(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Screen:
    """A terminal in stdout's place, for the rest of the test."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    return screen


def test_a_verdict_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch)
    Console().print("good", GREEN)
    assert out.getvalue() == f"{GREEN}good\x1b[0m\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_not_wanted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = screen(monkeypatch, **{name: value})
    Console().print("good", GREEN)
    assert out.getvalue() == "good\n"


def test_no_colour_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch)
    monkeypatch.setattr(out, "isatty", lambda: False)
    Console().print("good", GREEN)
    assert out.getvalue() == "good\n"


def test_progress_is_written_over_and_stays_below(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch)
    console = Console()
    console.progress("1 operation")
    console.print("a line")
    console.progress("")
    assert out.getvalue() == "\r\x1b[K1 operation\r\x1b[Ka line\n1 operation\r\x1b[K"


def test_a_dumb_terminal_gets_no_control_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    out = screen(monkeypatch, TERM="dumb")
    Console().progress("1 operation")
    assert "\x1b" not in out.getvalue() and "1 operation\n" in out.getvalue()


def test_after_a_failure_it_is_silent_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full()
    monkeypatch.setattr(sys, "stdout", full)
    console = Console()
    assert console.lost is None
    console.print("a line")
    console.print("another")
    console.flush()
    assert console.lost and console.lost.strerror == "No space left on device"
    assert full.writes == 1
