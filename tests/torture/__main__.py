"""Kill the platform until it breaks, and account for every row: ``python -m tests.torture --help``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.torture.errors import TortureFailed
from tests.torture.report import Progress, print_result
from tests.torture.run import torture
from tests.torture.schedule import LEFT_OUT, Options, make_plan
from tests.torture.stage import open_stage

_ABOUT = """\
Producers write a known random stream of events and garbage while workers are killed with SIGKILL, at crash points in
the pipeline and at random, several at once; frozen past their session timeout and thawed; and drained. With --servers
it runs on real Kafka, TiDB and TiKV, which are restarted and cut off too. In the end an independent verifier recomputes
history, online rows and dead letters from the log, and compares.
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m tests.torture --kills 50 --seed 7 --servers\nexit code: 0 all is right, 1 it is not",
    )
    parser.add_argument("--kills", type=int, default=50, help="how many workers to kill (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="how many run at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="chooses plan and events (default: %(default)s)")
    parser.add_argument(
        "--servers", action="store_true", help=f"on real servers; without them these are left out: {LEFT_OUT}"
    )
    parser.add_argument("--plan", action="store_true", help="only print what would be done")
    parser.add_argument("--keep", action="store_true", help="keep the working folder also if all is right")
    asked = parser.parse_args(arguments)
    if asked.kills < 1 or asked.workers < 1:
        parser.error("there must be at least one kill and one worker")
    options = Options(asked.kills, asked.workers, asked.seed, asked.servers)
    if asked.plan:
        print("\n".join(map(str, make_plan(options))))
        return 0
    return _run(options, keep=asked.keep)


def _run(options: Options, *, keep: bool) -> int:
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="oomstream-torture-"))
    (folder / "plan.txt").write_text("\n".join(map(str, make_plan(options))) + "\n")
    progress = Progress(console, options)
    try:
        with open_stage(folder, options) as stage:
            result = torture(stage, options, tell=progress.tell)
    except TortureFailed as exc:
        progress.end()
        print(f"{exc}. Everything is kept in {folder}.", file=sys.stderr)
        return 1
    progress.end()
    print_result(console, options, result, folder)
    if result.right and not keep:
        shutil.rmtree(folder)
    return 0 if result.right else 1


if __name__ == "__main__":
    sys.exit(main())
