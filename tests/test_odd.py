"""Nodes with one oddity each: the last lines of a run say what came, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_user import maelstrom

NODE = """\
#!{python}
import json, sys

def answer(line):
    message = json.loads(line)
    asked = message["body"]
    body = {{"type": asked["type"] + "_ok", "in_reply_to": asked["msg_id"]}}
    if asked["type"] == "echo":
        body["echo"] = asked["echo"]
    reply = {{"src": message["dest"], "dest": message["src"], "body": body}}
    return asked, body, reply

for line in sys.stdin:
    asked, body, reply = answer(line)
    text = json.dumps(reply)
    if asked["type"] == "echo":
        {oddity}
    print(text, flush=True)
"""
ECHOED = "but an echo must be the same as its request (wrong replies: "
ODD = {  # a line of the node: the exit status, and parts of the last lines
    "pass": (0, ["Everything looks good!"]),
    "body['echo'] = 7; text = json.dumps(reply)": (1, ["came back as 7, " + ECHOED]),
    "text = json.dumps(reply, indent=1)": (1, ["Broken rule", "\nprint one message a line"]),
    "text = ''": (1, ["Broken rule: n0 printed an empty line on stdout\nprint one message"]),
    "text = repr(reply)": (1, ["single quotes", "\nprint json.dumps(message)"]),
    "body.pop('echo'); body.update(type='error', code=11, text='busy'); text = json.dumps(reply)": (
        1, ['No echo operation was ok, so the test cannot be valid: ',
            ' got the error temporarily-unavailable, "busy".'],
    ),
    "body.pop('echo'); body.update(type='error', code=99, text='mine'); text = json.dumps(reply)": (
        1, [' got the error with a code that is unknown here, "mine".'],
    ),
    "body['echo'] = float('nan'); text = json.dumps(reply)": (
        1, ["(NaN is not a finite number): {", "\nJSON has no such number: print null or a str"],
    ),
    "continue": (
        1, ["cannot be valid: 1 got no reply within 5 s.\nLet each node reply to echo requests so"],
    ),
    "sys.exit()": (255, ["exit status 0 (but a node must run until it is killed; with node.py: "]),
}  # fmt: skip


@pytest.mark.parametrize("oddity", ODD)
def test_an_odd_node_ends_in_a_sentence(oddity: str, tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_text(NODE.format(python=sys.executable, oddity=oddity))
    node.chmod(0o755)
    words = ["test", "-w", "echo", "--bin", str(node), "--node-count", "1", "--rate", "20"]
    status, out, _ = maelstrom(tmp_path, *words, "--time-limit", "0.5", MAELSTROM_REPORT="no")
    wanted, parts = ODD[oddity]
    assert status == wanted, out
    for part in parts:
        assert part in out


SHARED = Path("/work/shared/inputs/odd_node.py")
SLOW = {
    "nonewline": "n0 printed 74 bytes on stdout without a newline at their end: {",
    "init_noreply": "it has no in_reply_to, which must be the integer 1",
    "noflush": "nothing came from its stdout; print each reply there",
}


@pytest.mark.skipif(not SHARED.exists(), reason="a shared file is not there")
@pytest.mark.parametrize("word", SLOW)
def test_a_node_without_an_answer_to_init(word: str, tmp_path: Path) -> None:
    words = ["test", "-w", "echo", "--bin", str(SHARED), "--node-count", "1", "--", word]
    status, out, _ = maelstrom(tmp_path, *words)
    assert status == 255
    assert "aborted: n0 did not answer init within 10 s: " in out and SLOW[word] in out
