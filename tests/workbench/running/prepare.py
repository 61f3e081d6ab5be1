"""Creates a run from its options, in real time or simulated."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..console.console import Console
from ..simulation.loop import Loop, RealLoop, VirtualLoop
from ..simulation.raft_invariants import Invariants
from ..simulation.simulated_cluster import SimulatedCluster
from ..units import SECOND
from .cluster import Processes
from .options import Options
from .runner import Runner

SIMULATED_PROGRESS = 10 * SECOND  # virtual time between two progress lines of a simulated run


def prepare(opts: Options, logs: Path, console: Console) -> Runner:
    """Returns the runner of a real or a simulated run. `logs` is a folder in the run's folder."""
    args = [word.replace("{run}", str(logs.parent)) for word in opts.args]
    if opts.simulate:
        console.progress_interval = SIMULATED_PROGRESS
        gc.set_threshold(50_000, 20, 100)  # a run creates no cycles, and keeps most of its objects
        virtual = VirtualLoop()
        console.clock = partial(virtual_clock, virtual)
        invariants = Invariants(virtual, opts.seed, lambda text: runner.problem(text))
        cluster = SimulatedCluster(
            virtual, opts.bin, args, logs, opts.seed, invariants, opts.constants
        )
        runner = Runner(opts, virtual, cluster, console, data_dir(args))
        return runner
    real = RealLoop()
    processes = Processes(real, [str(opts.bin), *args], logs)
    return Runner(opts, real, processes, console, data_dir(args))


def data_dir(args: Sequence[str]) -> Path | None:
    """Returns the folder that the binary's --data-dir names, if there is one."""
    words = [*args, ""]
    return Path(words[words.index("--data-dir") + 1]) if "--data-dir" in words else None


def virtual_clock(loop: Loop) -> str:
    """Returns the time of a simulated run, as in its history and its node-logs."""
    return "before 0 s" if loop.run_start is None else f"{loop.run_time() / SECOND:.6f} s"
