"""The workbench's command line; `./maelstrom` comes here."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from . import edn, judge, options, serve, store
from .console import Console
from .edn import Keyword
from .options import Options
from .results import results
from .runner import Runner

LAST_LINES = {
    True: (0, "Everything looks good! ヽ(‘ー`)ノ"),  # noqa: RUF001 (Maelstrom's own)
    False: (1, "Analysis invalid! (ﾉಥ益ಥ）ﾉ ┻━┻"),  # noqa: RUF001
    Keyword("unknown"): (2, "Errors occurred during analysis, but no anomalies found. ಠ~ಠ"),
}


def test(opts: Options) -> int:
    """Runs one test and prints its results; the exit status."""
    console = Console()
    folder = store.make(opts.workload)
    console.info("workbench", f"{opts.bin} with {opts.node_count} nodes, --seed {opts.seed}")
    runner = Runner(opts, random.Random(opts.seed), folder / "node-logs", console)
    record = runner.run()
    console.info("workbench", "analyzing the history...")
    found = results(record, runner.network, runner.workload, opts)
    store.write(folder, record.history, found, runner.workload)

    shown = Path(folder).relative_to(Path.cwd())
    console.print(edn.pretty(found))
    console.print()
    for problem in record.problems[:10]:
        console.print(f"Broken rule: {problem}\n")
    for key, analysis in runner.workload.analyses.items():
        if analysis.valid is not True:
            console.print(f"{analysis.why}.")
            if analysis.valid is False:
                console.print(f"    drawn in {shown}/independent/{key}/linear.svg")
    for f, counts in found[Keyword("stats")][Keyword("by-f")].items():
        if not counts[Keyword("valid?")]:
            console.print(f"No {f.name} succeeded, so there is nothing to judge it by.")
    if not found[Keyword("availability")][Keyword("valid?")]:
        console.print(f"Too few operations were ok for --availability {opts.availability:g}.")
    console.print(f"See {shown}, and its timeline.html in a browser.")
    if record.cut_short:
        console.print(f"The run was {record.cut_short}; this is the verdict on what was recorded.")
    if record.crash:
        console.print(f"\nThe test could not go on: {record.crash}")
        return options.CRASHED
    status, last_line = LAST_LINES[found[Keyword("valid?")]]
    console.print(f"\n\n{last_line}")
    return status


def main(argv: Sequence[str]) -> int:
    """Runs a command; the exit status."""
    command, *rest = argv
    try:
        if command == "check":
            return judge.main(rest)
        if command == "serve":
            return serve.main(rest)
        if command == "test":
            opts = options.parse(rest)
            for _ in range(opts.test_count):
                status = test(opts)
                if status:
                    break
            return status
    except KeyboardInterrupt:
        return 130
    print(f"maelstrom: the workbench has no command {command!r} yet", file=sys.stderr)
    return options.CRASHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
