"""Entry point of the `oomstream` command: the verbs, the global options, and how errors end.

Exit codes: 0 done, 1 the thing failed, 2 wrong use (also a wrong setting), 130 interrupted. An error is one sentence
on standard error. Starting must be quick, so each verb imports what is heavy (faust, pyarrow, SQLAlchemy)
when it runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from oomstream.agents.cli import (
    check,
    demo,
    dlq,
    export,
    forget,
    gc,
    get,
    importing,
    join,
    push,
    register,
    run,
    setup,
    status,
    syncing,
)
from oomstream.schemas.errors import InvalidSetting, OomstreamError

_PLAIN = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer\b.*", "it is not an integer"),
    (r"Input should be a valid number\b.*", "it is not a number"),
    (r"Input should be less than or equal to ", "it must be at most "),
    (r"Input should be greater than or equal to ", "it must be at least "),
    (r"Input should be ", "it must be "),
)
"""What the library that reads options says of a value, and what we say."""

NAMES = ("oomstream", "oomcli")
"""What the command is installed as."""

_GLOBAL_VALUES = ("--config", "--data-dir")
"""Options of the command itself that take a value; no verb has one of these names."""

EXIT_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="oomstream",
    help="Feature events on Kafka become online values and training sets, exactly once in effect.",
    epilog="Start with: oomstream demo  (or make demo). Settings are OOMSTREAM_… variables: docs/operations.md.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for family in (setup, register, run, get, push, importing, syncing, join, export, dlq, status, check, forget, gc, demo):
    family.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"oomstream {version('oomstream')}")
        raise typer.Exit


@app.callback()
def _global_options(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Folder of the embedded stores; wins over OOMSTREAM_DATA_DIR. Default: .oomstream",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="oomcli's YAML file, which says where the stores are; as OOMCLI_CONFIG. OOMSTREAM_… settings win.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, also print the traceback.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del debug, show_version  # `main` and the callback look after these
    if data_dir is not None:
        # Through the environment, so that it also reaches the query module and the processes that a verb starts.
        os.environ["OOMSTREAM_DATA_DIR"] = str(data_dir)
    if config is not None:
        os.environ["OOMCLI_CONFIG"] = str(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code.

    Args:
        argv: Arguments without the program's name; None = those of the process.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    # Wanted when something has gone wrong already, at the end of the line that is there: accepted anywhere.
    args = _global_first([each for each in args if each != "--debug"]) or ["--help"]
    try:
        command = get_command(app)
        _hide_types_of_flags(command)
        code = command(args=args, prog_name=_called(), standalone_mode=False, obj=debug)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has enough; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except Exception as exc:
        if debug:
            import traceback

            traceback.print_exc()
        sentence, code = explain(exc)
        if sentence:  # there is none where a family of verbs was named without a verb: its help was printed
            print(f"Error: {sentence}", file=sys.stderr)  # noqa: T201
        return code
    if code == EXIT_INTERRUPTED:  # typer gives this code for a KeyboardInterrupt too
        print("stopped", file=sys.stderr)  # noqa: T201
    return code if isinstance(code, int) else 0


def _hide_types_of_flags(command: object) -> None:
    """Have help show no type beside what takes no value: `--wait <bool>` looks as if it wanted `--wait true`."""
    if not isinstance(command, TyperCommand | TyperGroup):
        return
    with typer.Context(command, help_option_names=["-h", "--help"]) as context:
        options = [each for each in command.get_params(context) if isinstance(each, TyperOption)]
    for each in options:
        if each.is_flag:
            each.metavar = ""
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            _hide_types_of_flags(inner)


def _global_first(args: Sequence[str]) -> list[str]:
    """A line with its global options in front of the verb; oomcli, and so its scripts, have them anywhere."""
    first: list[str] = []
    rest: list[str] = []
    left = iter(args)
    for each in left:
        if each == "--":
            return [*first, *rest, each, *left]
        name, equals, _ = each.partition("=")
        if name in _GLOBAL_VALUES:
            value = [] if equals else list(islice(left, 1))
            if not equals and not value:
                return [each]  # which is told that it lacks its value
            first += [each, *value]
        else:
            rest.append(each)
    return first + rest


def _called() -> str:
    """The name that the command was called by, for its help and the shell's completion."""
    name = Path(sys.argv[0]).stem
    return name if name in NAMES else NAMES[0]


def explain(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code for an error."""
    if isinstance(error, typer.TyperException):
        return _plain(_one_line(error.format_message())), error.exit_code
    if isinstance(error, OomstreamError):
        return _one_line(str(error)), EXIT_WRONG_USE if isinstance(error, InvalidSetting) else EXIT_FAILED
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{where}", EXIT_FAILED
    kind = type(error).__name__
    return f"unexpected {kind} in oomstream (run it again with --debug and report what it prints)", EXIT_FAILED


def _plain(text: str) -> str:
    for theirs, ours in _PLAIN:
        text = re.sub(theirs, ours, text)
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
