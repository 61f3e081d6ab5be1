"""World: nodes of one's own, tested without processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import in_process
import pytest
from in_process import World
from workbench.simulation.simulated_cluster import NotSimulable

from node import Message

ROOT = Path(__file__).resolve().parents[1]
NODES = ROOT / "tests" / "nodes"


def cluster(program: Path | str, *args: str, count: int = 2) -> World:
    world = World()
    for number in range(count):
        world.run(f"n{number}", NODES / program, *args)
    world.init()
    return world


def elements(world: World, node_id: str) -> object:
    return world.call(node_id, {"type": "read"})["value"]


def test_a_program_runs_unchanged_and_its_timers_follow_the_test() -> None:
    world = cluster("g_set.py")
    world.call("n0", {"type": "add", "element": 7})
    world.advance(0.4)
    assert (elements(world, "n0"), elements(world, "n1")) == ([7], [])
    world.advance(0.2)
    assert elements(world, "n1") == [7]


def test_the_store_runs_in_it_too() -> None:
    world = cluster(ROOT / "raft.py", count=3)
    asked = world.request("n0", {"type": "write", "key": 1, "value": 2})
    assert world.until(lambda: world.answer(asked)) == {"type": "write_ok"}
    asked = world.request("n1", {"type": "read", "key": 1})
    assert world.until(lambda: world.answer(asked)) == {"type": "read_ok", "value": 2}


def test_a_program_gets_its_arguments() -> None:
    world = cluster("g_set.py", "no-merge")
    world.call("n0", {"type": "add", "element": 7})
    world.advance(5)
    assert elements(world, "n1") == []


ECHO = """
from node import Node

class Echo(Node):
    def answer(self, msg):
        self.reply(msg, {"type": "echo_ok", "by": self.node_id})

node = Echo()
node.on("echo", node.answer)
"""


def test_a_program_can_have_a_subclass_of_node(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(f"{ECHO}node.main()")
    world = cluster(tmp_path / "echo.py")
    assert world.call("n1", {"type": "echo"}) == {"type": "echo_ok", "by": "n1"}


def test_a_program_that_is_no_node_is_refused(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    with pytest.raises(ValueError, match=r"echo\.py must make a Node of node\.py, and"):
        World().run("n0", tmp_path / "echo.py")
    (tmp_path / "echo.py").write_text("node = (")
    with pytest.raises(SyntaxError, match=r"echo\.py, line 1"):
        World().run("n0", tmp_path / "echo.py")


def test_a_call_without_an_answer_tells_how_to_ask() -> None:
    world = cluster("counter.py")
    with pytest.raises(AssertionError, match=r"at once; call world\.init\(\) first"):
        world.call("n0", {"type": "add", "delta": 3})


def test_a_handler_that_fails_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(f"{ECHO}node.on('fail', lambda msg: 1 / 0)\nnode.main()")
    world = cluster(tmp_path / "echo.py")
    assert world.call("n0", {"type": "fail"})["code"] == 13
    assert "ZeroDivisionError" in "".join(world.nodes["n0"].log_lines)


def test_a_node_that_refuses_its_init_shows_why(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(f"{ECHO}node.on_init(lambda: 1 / 0)\nnode.main()")
    with pytest.raises(AssertionError, match=r"(?s)n0 refused its init: .*on_init\(lambda: 1 / 0"):
        cluster(tmp_path / "echo.py")


FLOOD = "node.on('flood', lambda msg: node.broadcast({'type': 'flood'}))"


@pytest.mark.parametrize(
    ("bug", "turn"),
    [(FLOOD, r'Now n\d handles .*"type": ?"flood"'), ("node.every(0, list)", "its timers")],
)
def test_nodes_that_never_rest_do_not_hang_the_test(
    bug: str, turn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "MOST_TURNS", 1000)
    (tmp_path / "echo.py").write_text(f"{ECHO}{bug}\nnode.main()")
    world = cluster(tmp_path / "echo.py")
    world.request("n0", {"type": "flood"})
    with pytest.raises(AssertionError, match=f"1,000 turns while time stood still.*{turn}"):
        world.advance(1)


def test_nodes_may_take_many_turns_in_a_long_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "MOST_TURNS", 10)
    cluster("g_set.py").advance(60)


def test_a_blocking_handler_is_told_to_use_a_callback(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(f"{ECHO}node.on('wait', list, blocking=True)\nnode.main()")
    world = cluster(tmp_path / "echo.py")
    with pytest.raises(NotSimulable, match=r"use node\.rpc with a callback"):
        world.request("n0", {"type": "wait"})


def test_a_module_beside_the_program_is_not_shared_between_nodes(tmp_path: Path) -> None:
    (tmp_path / "echoing.py").write_text(ECHO)
    (tmp_path / "echo.py").write_text("from echoing import node\nnode.main()")
    world = cluster(tmp_path / "echo.py")
    for node_id in world.nodes:
        assert world.call(node_id, {"type": "echo"}) == {"type": "echo_ok", "by": node_id}


def test_a_restarted_program_has_forgotten_its_memory() -> None:
    world = cluster("g_set.py")
    world.call("n0", {"type": "add", "element": 7})
    world.run("n0", NODES / "g_set.py")
    world.init("n0")
    assert elements(world, "n0") == []
    assert list(world.nodes) == ["n0", "n1"]


def test_lost_messages_do_not_arrive() -> None:
    world = cluster("g_set.py")
    world.lost = lambda message: message["dest"] == "n1"
    world.call("n0", {"type": "add", "element": 7})
    world.call("n1", {"type": "add", "element": 8})
    world.advance(5)
    assert (elements(world, "n0"), elements(world, "n1")) == ([7, 8], [8])


def test_messages_can_be_delayed_and_change_their_order() -> None:
    world = World()
    heard: list[int] = []
    n0 = world.add("n0", lambda node: node)
    world.add("n1", lambda node: node.on("number", lambda msg: heard.append(msg["body"]["is"])))
    world.init()
    for number in (1, 2):
        n0.after(0, lambda number=number: n0.send("n1", {"type": "number", "is": number}))
    world.advance(5, delivering=False)
    assert (world.time, heard) == (5, [])
    world.mail.reverse()
    world.deliver()
    assert heard == [2, 1]


def test_time_advances_also_without_nodes() -> None:
    world = World()
    world.advance(3)
    assert world.time == 3


def test_until_goes_no_further_than_its_condition_needs() -> None:
    world = cluster("g_set.py")
    world.call("n0", {"type": "add", "element": 7})
    world.until(lambda: elements(world, "n1") == [7])
    assert world.time == 0.5
    with pytest.raises(AssertionError, match=r"did not hold within 3 s"):
        world.until(lambda: elements(world, "n1") == [8], seconds=3)


def test_the_services_answer() -> None:
    world = cluster("counter.py")
    for node_id, delta in (("n0", 3), ("n1", 4)):
        asked = world.request(node_id, {"type": "add", "delta": delta})
        assert world.answer(asked) is None
        world.deliver()
        assert world.answer(asked) == {"type": "add_ok"}
    asked = world.request("n0", {"type": "read"})
    world.deliver()
    assert world.answer(asked) == {"type": "read_ok", "value": 7}


def test_a_service_answers_as_on_the_network_of_the_bench() -> None:
    world = World()
    node = world.add("n0", lambda node: node)
    world.init()
    replies: list[Message] = []
    node.send("lin-kv", {"type": "write", "key": 1, "value": 2})  # no request: it has no msg_id
    node.rpc("lin-kv", {"type": "increment", "key": 1}, replies.append)
    node.rpc("lin-kv", {"type": "read", "key": 1}, replies.append)
    world.advance(1)
    assert [reply["body"].get("value") for reply in replies] == [2]


def test_a_service_can_be_out_of_reach() -> None:
    world = cluster("counter.py")
    world.lost = lambda message: message["dest"] == "seq-kv"
    asked = world.request("n0", {"type": "add", "delta": 3})
    world.advance(1)
    answer = world.answer(asked)
    assert answer and (answer["type"], answer["code"]) == ("error", 0)


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    codes = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (node,) = [code for code in codes if "primary = node.node_ids[0]" in code]
    (test,) = [code for code in codes if "import World" in code]
    (tmp_path / "primary.py").write_text(node)
    (tmp_path / "test_primary.py").write_text(test)
    settings = ("-c", ROOT / "pyproject.toml", "--rootdir", ROOT)
    command = (sys.executable, "-m", "pytest", *settings, "test_primary.py")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "100%" in done.stdout
