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
    if '"echo_ok"' in line:  # its own reply has come back
        print('{{"src": "n0", "dest": "n0", "body": {{"type": "hello"}}}}', flush=True)
    if '"echo_ok"' in line or '"hello"' in line:
        continue
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
    "text = ''": (1, ["Broken rule: n0 printed an empty line on stdout\nremove the bare print()"]),
    "text = repr(reply)": (1, ["single quotes", "\nprint json.dumps(message)"]),
    "body.pop('echo'); body.update(type='error', code=11, text='busy'); text = json.dumps(reply)": (
        1, ['No echo operation was ok, so the test cannot be valid: ',
            ' got the error temporarily-unavailable, with the text "busy".\nThe reply that was w'],
    ),
    "body.pop('echo'); body.update(type='error', code=99, text='mine'); text = json.dumps(reply)": (
        1, [' got an error with the code 99, which is unknown here, and the text "mine".\n',
            'The reply that was wanted: {"type": "echo_ok", "echo": "Please echo '],
    ),
    "body['echo'] = float('nan'); text = json.dumps(reply)": (
        1, ["(NaN is not a finite number): {", "\nJSON has no NaN; where the workload asks"],
    ),
    "continue": (
        1, ["cannot be valid: 1 of 1 got no reply within 5 s.\nn0 printed nothing after the ",
            'running: it has no code for the type "echo", takes longer than 5 s, or did not flush',
            "because 1 request timed out: a client waits 5 s for a reply."],
    ),
    "reply['body']['in_reply_to'] = str(asked['msg_id']); text = json.dumps(reply)": (
        1, ["\n\nn0 replied, but the reply cannot be matched to its request: in_reply_to"],
    ),
    "reply['dest'] = reply['src']; text = json.dumps(reply)": (
        1, ['\n\nn0 replied, but to itself: dest is "n0", and must be "c',
            '", the src of the request: {"type": "echo_ok", "in_reply_to": 1, "echo": "'],
    ),
    "print('no such type', file=sys.stderr, flush=True); continue": (
        1, ["or did not flush its reply", "\nIts last line on stderr: no such type\nThe re"],
    ),
    "text += '\\n' + text": (
        0, [" that no client was waiting for, the fi", ': {"type": "echo_ok", "in_reply_to": '],
    ),
    "reply['dest'] = 'c1'; text = json.dumps(reply)": (
        1, ['n0 sent 1 message that no client was waiting for, to c1: {"type": "echo_ok", '],
    ),
    "reply['dest'] = 'c0'; text = json.dumps(reply)": (
        1, ["\na reply goes to the src of its request; c0 sent only the init\n"],
    ),
    "if asked['msg_id'] == 3: reply['body'].update(type='error', code=11)\n"
    "    text = json.dumps(reply)": (
        1, [" echo operations were not ok, but all must be: 1 got an error.\n"],
    ),
    "body['server'] = 1; text = json.dumps(reply)": (1, ['remove the field "server" from the bo']),
    "reply['ts'] = 1; text = json.dumps(reply)": (1, ['remove the field "ts" from the message']),
    "sys.exit()": (
        255, ['\nn0 had this request when it ended: {"echo": "Please',
              "exit status 0 (but a node must run until it is killed; with node.py: "],
    ),
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


SHARED = Path(__file__).resolve().parents[2] / "shared" / "inputs" / "odd_node.py"
SLOW = {
    "nonewline": "within 10 s: n0 printed 74 bytes on stdout without a newline at their end: {",
    "init_noreply": "n0 replied, but the reply cannot be matched to its request: it has no",
    "noflush": "within 10 s: n0 printed nothing: it has no code for the type init, printed no newl",
}


@pytest.mark.skipif(not SHARED.exists(), reason="a shared file is not there")
@pytest.mark.parametrize("word", SLOW)
def test_a_node_without_an_answer_to_init(word: str, tmp_path: Path) -> None:
    words = ["test", "-w", "echo", "--bin", str(SHARED), "--node-count", "1", "--", word]
    status, out, _ = maelstrom(tmp_path, *words)
    assert status == 255
    assert SLOW[word] in out and "in a browser" not in out
    assert '\nThe reply that is wanted: {"type": "init_ok", "in_reply_to": 1}\n' in out
