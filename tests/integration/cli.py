"""Running the `oomstream` command in tests."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO, Any, NamedTuple

from confluent_kafka import Producer

from oomstream.agents.cli.main import main
from oomstream.streams.broker import published_broker

RIDES: dict[str, Any] = {
    "type": "record",
    "name": "rides",
    "doc": "What a rider's newest ride says.",
    "entity": "rider",
    "keys": ["rider_id"],
    "event_time": "ended_at",
    "partitions": 2,
    "fields": [
        {"name": "rider_id", "type": "string"},
        {"name": "ended_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": "double"},
        {"name": "rating", "type": ["null", "int"], "doc": "1 to 5."},
    ],
}


class Output(NamedTuple):
    """What a verb printed."""

    stdout: str
    stderr: str


class Cli:
    """The command, run in a folder of its own with no settings from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OOMSTREAM_")}
        self.environment = {**clean, "COLUMNS": "80", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def command(self, *args: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "oomstream.agents.cli.main", *args]

    def run(self, *args: str, code: int = 0, **settings: str) -> Output:
        """Run a verb to its end, in this process (starting one costs ten times the verb), and check its exit code."""
        out, err = io.StringIO(), io.StringIO()
        here, environment = Path.cwd(), dict(os.environ)
        try:
            os.chdir(self.folder)
            os.environ.clear()
            os.environ.update({**self.environment, **settings})
            with redirect_stdout(out), redirect_stderr(err):
                returned = main(args)
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(environment)
        done = Output(out.getvalue(), err.getvalue())
        assert returned == code, f"exit code {returned}\n{done.stdout}\n{done.stderr}"
        if code:
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith("Error: ")
            assert done.stderr.count("\n") == 1
        return done

    def json(self, *args: str) -> Any:
        """What a listing says."""
        return json.loads(self.run(*args, "-o", "json").stdout)

    def define(self, file_name: str = "rides.avsc", /, **changes: Any) -> Path:
        """Write a definition."""
        file = self.folder / file_name
        file.write_text(json.dumps({**RIDES, **changes}), encoding="utf-8")
        return file

    def produce(self, topic: str, *values: bytes, key: bytes = b"ann") -> None:
        """Write bytes to partition 0 of a topic of the embedded broker that runs on the folder, as a foreign client."""
        broker = published_broker(self.folder / ".oomstream")
        assert broker is not None
        producer = Producer({"bootstrap.servers": ",".join(broker.servers)})
        for value in values:
            producer.produce(topic, value, key, partition=0)
        assert producer.flush(30) == 0

    @contextmanager
    def running(self, *args: str, until: str) -> Iterator[list[str]]:
        """Run a verb in the background from when it has said `until`; gives what it says. It must end in order."""
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.folder,
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        said: list[str] = []
        lines = process.stdout
        assert lines is not None
        rest = threading.Thread(target=lambda: said.extend(lines), daemon=True)
        try:
            said.extend(iter_until(lines, until))
            assert until in said[-1], f"{args} ended without saying {until!r}:\n{''.join(said)}"
            rest.start()
            yield said
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, "".join(said)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait(10)
            if rest.ident is not None:
                rest.join(10)
            lines.close()


def iter_until(lines: IO[str], until: str) -> Iterator[str]:
    """Lines up to the first that holds `until`."""
    for line in lines:
        yield line
        if until in line:
            return
    yield ""
