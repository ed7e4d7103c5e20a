"""Kill the platform until it breaks, and account for every row: ``python -m tests.torture --help``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.services.build import BuildFailed
from tests.services.server import ServerFailed, ServerMissing
from tests.torture.errors import TortureFailed
from tests.torture.report import Progress, print_result
from tests.torture.run import Run
from tests.torture.schedule import LEFT_OUT, Options, make_plan
from tests.torture.stage import open_stage

_ABOUT = """\
Producers write a known random stream of events and garbage while workers are killed with SIGKILL, at crash points in
the pipeline and at random, several at once; frozen past their session timeout and thawed; and drained. With --servers
it runs on real Kafka, TiDB and TiKV, which are restarted and cut off too. In the end an independent verifier recomputes
history, online rows and dead letters from the log, and compares. The same options give the same plan and events.
"""
_EXAMPLES = """\
examples:
  python -m tests.torture --kills 20            on the embedded broker and SQLite: half a minute
  python -m tests.torture --servers --seed 7    on servers that it starts itself
  python -m tests.torture --servers --plan      only print what would be done

exit code: 0 all is right, 1 it is not (the first differences are printed, and the working folder is kept)
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EXAMPLES,
    )
    parser.add_argument("--kills", type=int, default=50, help="how many workers to kill (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="how many run at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="chooses plan and events (default: %(default)s)")
    parser.add_argument(
        "--servers", action="store_true", help=f"on real servers; without it these are left out: {LEFT_OUT}"
    )
    parser.add_argument("--plan", action="store_true", help="only print what would be done")
    parser.add_argument("--folder", type=Path, help="working folder, not there yet (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep the working folder also if all is right")
    asked = parser.parse_args(arguments)
    if asked.kills < 1 or asked.workers < 1:
        parser.error("there must be at least one kill and one worker")
    if asked.folder is not None and asked.folder.exists():
        parser.error(f"{asked.folder} is there already")
    options = Options(asked.kills, asked.workers, asked.seed, asked.servers)
    if asked.plan:
        print("\n".join(map(str, make_plan(options))))
        return 0
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="oomstream-torture-"))
    try:
        return run(options, folder, keep=asked.keep)
    except (TortureFailed, BuildFailed, ServerFailed, ServerMissing) as exc:
        print(f"{exc}. What there is was kept in {folder}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; what there is was kept in {folder}", file=sys.stderr)
        return 130


def run(
    options: Options,
    folder: Path,
    *,
    keep: bool = False,
    console: Console | None = None,
    before_verifying: Callable[[Run], None] | None = None,
) -> int:
    """Run it, and say what came out.

    Args:
        options: What to do.
        folder: Working folder.
        keep: Keep the folder whatever comes out.
        console: Where to say it.
        before_verifying: For tests of the verifier: called when all workers have ended.

    Returns:
        The exit code.

    Raises:
        TortureFailed: The run cannot go on.
    """
    console = console or Console()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.txt").write_text("\n".join(map(str, make_plan(options))) + "\n")
    with Progress(console, options) as progress, open_stage(folder, options) as stage, Run(stage, options) as this:
        this.conduct(progress.tell)
        if before_verifying is not None:
            before_verifying(this)
        result = this.verify()
    print_result(console, options, result, folder)
    if result.right and not keep:
        shutil.rmtree(folder)
    return 0 if result.right else 1


if __name__ == "__main__":
    sys.exit(main())
