"""`oomstream worker`, `oomstream broker` and `oomstream dev`: what runs until it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Annotated

import typer

PANEL = "Run"


def register(parent: typer.Typer) -> None:
    """Add this family of verbs to the command."""
    parent.command("dev", rich_help_panel=PANEL, epilog="Example: oomstream dev")(dev)
    parent.command("worker", rich_help_panel=PANEL, epilog="Example: oomstream worker -g plane -g weather")(worker)
    parent.command("serve", rich_help_panel=PANEL, epilog="Example: oomstream serve --port 6566")(serve)
    parent.command("broker", rich_help_panel=PANEL, epilog="Example: oomstream broker")(broker)


def worker(
    context: typer.Context,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group", "-g", metavar="GROUP", help="Only this group; repeatable. Default: all.", show_default=False
        ),
    ] = None,
) -> None:
    """Ingest events from the broker until it is stopped.

    Start as many as you like, on any machines: they share the partitions. SIGTERM and Ctrl-C end one in order, with
    exit code 0; a worker that was killed loses nothing.
    """
    from oomstream.agents.cli.session import load_catalog, settings
    from oomstream.streams.broker import need_broker

    chosen = settings()
    found = need_broker(chosen)
    if group:
        # What a person mistyped is told as by any other verb; from here on the worker speaks in log lines.
        catalog = asyncio.run(load_catalog())
        for name in group:
            catalog.group(name)
    from oomstream.agents.worker import worker_main

    raise typer.Exit(worker_main(chosen, group or None, broker=found, debug=bool(context.obj)))


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="HTTP port; 0 = a free one. Default: OOMSTREAM_SERVE_PORT, 6566.",
            min=0,
            max=65535,
            show_default=False,
        ),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="gRPC port; 0 = a free one. Default: OOMSTREAM_SERVE_GRPC_PORT, 50051.",
            min=0,
            max=65535,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve reads, pushes, imports and training sets over the network until it is stopped.

    gRPC is what oomstore's agent speaks, for its published clients; HTTP is what Feast's server speaks, with /health,
    /ready, /metrics and /docs. On another address than loopback it wants TLS and a token: OOMSTREAM_SERVE_CERTIFICATE,
    _KEY and _TOKEN.
    """
    # Before gRPC is imported: it prints lines of its own beside our sentence, for example where a port is taken.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from oomstream.agents.cli.session import settings
    from oomstream.agents.serve.process import Addresses
    from oomstream.agents.serve.process import serve as serve_until_stopped

    def say(addresses: Addresses) -> None:
        typer.echo(f"serving oomstore's clients on {addresses.grpc}")
        typer.echo(f"serving HTTP on {addresses.http}")
        sys.stdout.flush()

    asyncio.run(serve_until_stopped(settings(), host, say, http_port=port, grpc_port=grpc_port))


def broker() -> None:
    """Run the embedded broker alone until it is stopped.

    It speaks Kafka's protocol on this machine only, keeps about 5 MB a partition, and forgets everything when it ends.
    Other commands find it through the data folder; it prints its URL for other clients.
    """
    from oomstream.agents.broker import EmbeddedBroker
    from oomstream.agents.cli.session import settings

    chosen = settings()
    # Blocked before the broker starts threads of its own, so that the signals wait for sigwait below.
    ends = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with EmbeddedBroker(chosen.data_dir) as running:
            typer.echo(running.url)
            typer.echo(f"serving Kafka clients at {running.broker.servers[0]}; Ctrl-C ends it", err=True)
            sys.stdout.flush()
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def dev(context: typer.Context) -> None:
    """Run broker, worker and stores in one process.

    Nothing else is needed: the embedded broker, and SQLite in the data folder. It prints what to type next.
    """
    from oomstream.agents.cli.session import settings
    from oomstream.agents.dev import run_dev

    raise typer.Exit(run_dev(settings(), typer.echo, debug=bool(context.obj)))
