"""Creates a run from its options, in real time or simulated."""

from __future__ import annotations

import gc
from pathlib import Path

from ..console.console import Console
from ..simulation.loop import RealLoop, VirtualLoop
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
        invariants = Invariants(virtual, opts.seed, lambda text: runner.problem(text))
        cluster = SimulatedCluster(
            virtual,
            opts.bin,
            args,
            logs,
            opts.seed,
            invariants,
            opts.constants,
            lambda text: runner.note(text),
        )
        runner = Runner(opts, virtual, cluster, console)
        return runner
    real = RealLoop()
    return Runner(opts, real, Processes(real, [str(opts.bin), *args], logs), console)
