"""The workbench's commands, which `./maelstrom` calls."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from . import check
from .console.console import GREEN, RED, YELLOW, Console
from .console.summary import summary
from .reasons import ABORTED, never_ok, of_part, sentence
from .record import edn, store
from .record.edn import Keyword
from .record.history import clients
from .record.journal import Journal
from .report import cycles
from .running import options
from .running.interrupt import interruptible
from .running.options import Options
from .running.prepare import prepare
from .running.results import failures, lost_memory, results
from .running.runner import Record, timeout
from .serve import server
from .verdicts import UNKNOWN, VALID, Results
from .workloads.workload import Workload

LAST_LINES = {
    True: (0, GREEN, "Everything looks good! ヽ(‘ー`)ノ"),  # noqa: RUF001 (Maelstrom's own)
    False: (1, RED, "Analysis invalid! (ﾉಥ益ಥ）ﾉ ┻━┻"),  # noqa: RUF001
    UNKNOWN: (2, YELLOW, "Errors occurred during analysis, but no anomalies found. ಠ~ಠ"),
}


def test(argv: list[str]) -> int:
    """Runs --test-count tests, up to the first that is not valid; returns the exit status."""
    opts = options.parse(argv)
    status = 0
    for number in range(opts.test_count):
        status = status or run(options.numbered(opts, number))
    return status


def run(opts: Options) -> int:
    """Runs one test, prints and writes its results, and returns the exit status."""
    console = Console()
    folder = store.make(opts.workload)
    nodes = "1 node" if opts.node_count == 1 else f"{opts.node_count} nodes"
    console.info("workbench", f"{opts.bin} with {nodes}, --seed {opts.seed}")
    if opts.concurrency_note:
        console.info("workbench", opts.concurrency_note)
    runner = prepare(opts, folder / "node-logs", console)
    if store.wants_report():
        runner.journal = Journal(runner.loop.now)
    record = runner.run()
    console.info("workbench", "analyzing the history...")
    found = results(record, runner.network, runner.workload, opts)

    # Print the verdict before writing files, so that a full disk cannot hide it.
    status = report(console, opts, record, runner.workload, found, folder)
    store.write(
        folder, record.history, found, runner.workload, opts.command, record.life, record.messages
    )
    python = store.reporter()
    if record.history and store.wants_report() and python:
        store.report(python, [folder])
    console.close()
    return status


def report(
    console: Console,
    opts: Options,
    record: Record,
    workload: Workload,
    found: Results,
    folder: Path,
) -> int:
    """Prints the results and then the verdict; returns the exit status."""
    shown = folder.relative_to(Path.cwd())
    if record.history:
        console.print(edn.pretty(found))
        console.print()
        if table := summary(record.history, found):
            console.print("\n".join([*table, ""]))
    # The cause comes before its effects.
    for text in record.unmatched:
        console.print(f"{text}\n")
    for problem in record.problems[:10]:
        console.print(f"Broken rule: {problem}\n")
    for key, analysis in workload.analyses.items():
        if analysis.valid is not True:
            console.print(f"{analysis.why}.")
            if analysis.valid is False:
                console.print(f"    drawn in {shown}/independent/{key}/linear.svg")
    for reason in workload.reasons:
        console.print(sentence(reason))
    for type_ in workload.transactions.cycles if workload.transactions else ():
        console.print(f"The cycle of {type_} is drawn in {shown}/{cycles.picture(type_, 0)}")
    for warning in workload.warnings:
        console.print(f"Warning: {sentence(warning)}")
    for text, count in record.warnings.values():
        more = f"\nand {count - 1:,} more like this" if count > 1 else ""
        console.print(f"Warning: {text}{more}\n")
    if record.warnings:
        console.print("As in the real Maelstrom, this alone is no failure. With --strict it is.\n")
    checked = found[Keyword("workload")]
    told = workload.analyses or workload.reasons or record.problems or record.unmatched
    if not told and checked[VALID] is False and found[Keyword("stats")][VALID]:
        console.print("\n".join(of_part("workload", checked)))
    for f in never_ok(found[Keyword("stats")]) if not record.crash else ():
        _print_none_ok(console, record, f, timeout(workload, opts))
    if found[Keyword("availability")][VALID] is not True:
        console.print(f"Too few operations were ok for --availability {opts.availability:g}.")
    for complaint in store.complaints(folder):
        console.print(complaint)
    page = "timeline.html"
    if record.history and store.wants_report():
        if store.reporter():
            page = "report.html"
        else:
            console.print("report.html was not written. To write it: make report")
    if record.rate_note and not record.unmatched:
        console.print(f"The clients could not keep the rate: {record.rate_note}.")
    for note in record.notes:
        console.print(f"\n{note}")
    if not record.history and not opts.rate and not (record.crash or record.problems):
        console.print("The clients sent nothing, because of --rate 0.")
    if found[VALID] is False and (lost := lost_memory(record.history, opts)):
        console.print(f"\n{lost}.")
    if record.cut_short:
        console.print(f"The run was {record.cut_short}; the verdict covers the recorded part.")
    look = f"; open its {page} in a browser" if clients(record.history) else ""
    console.print(f"The results are in {shown}{look}.")
    if record.crash:
        console.print(f"\n{ABORTED}{record.crash}", RED)
        status = options.CRASHED
    else:
        status, colour, last_line = LAST_LINES[found[VALID]]
        console.print(f"\n\n{last_line}", colour)
    console.flush()
    return status


def _print_none_ok(console: Console, record: Record, f: str, seconds: float) -> None:
    """Prints that no operation of a kind was ok, with the causes that are not printed yet."""
    ends = failures(clients(record.history), f, seconds, record.codes)
    timed_out = "got no reply" in ends.partition(",")[0]
    if record.unmatched and timed_out:
        return
    console.print(
        f"No {f} operation was ok, so the test cannot be valid{f': {ends}' if ends else ''}."
    )
    if f in record.wanted:
        console.print(f"The reply that was wanted: {record.wanted[f]}.")
    if timed_out and not record.notes:
        for text in record.silence[:1]:
            console.print(f"{text}")


def pages(argv: list[str]) -> int:
    """`./maelstrom report [DIR...]`: writes report.html into folders of runs."""
    parser = options.Parser(prog="maelstrom report", description=pages.__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="*",
        default=[Path("store/latest")],
        help="folder of a run by the workbench or the real Maelstrom; default: store/latest",
    )
    folders: list[Path] = parser.parse_args(argv).folder
    python = store.reporter()
    if not python:
        return fail(
            "report.html needs Bokeh, which is not installed; "
            "to install it into .venv and write report.html: make report"
        )
    status = store.report(python, folders)
    if not status:
        for folder in folders:
            print(folder / "report.html")
    return status


COMMANDS = {"test": test, "report": pages, "serve": server.main, "check": check.main}


def main(argv: Sequence[str]) -> int:
    """Runs a command; returns its exit status, or 255 after an OSError or a bug here."""
    command, *rest = argv
    if sys.stdout is None:
        return fail("stdout is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal cannot encode must not end a run.
        sys.stdout.reconfigure(errors="replace")
    try:
        with interruptible():
            try:
                return COMMANDS[command](rest)
            finally:
                flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return fail(": ".join(filter(None, [str(error.filename or ""), error.strerror])))
    except Exception:  # a bug in the workbench says nothing about the nodes
        traceback.print_exc()
        return fail("this is a bug in the workbench, not in the nodes")


def flush() -> None:
    """Flushes stdout. OSError if stdout cannot be written; the unwritten rest is dropped."""
    try:
        sys.stdout.flush()
    except OSError as error:  # else the interpreter would flush again at exit, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "stdout") from error


def fail(why: str) -> int:
    """Prints in one line why there is no verdict; returns the exit status."""
    with contextlib.suppress(OSError):
        print(f"maelstrom: {why}", file=sys.stderr)
    return options.CRASHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
