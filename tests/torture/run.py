"""One run of the torture, from empty stores to its findings."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.torture.conductor import Conductor, Tally
from tests.torture.database import Database
from tests.torture.feed import TortureFeed
from tests.torture.letters import LetterBox
from tests.torture.log import Log, ProducersLog, TopicsLog
from tests.torture.schedule import Options, Step, make_plan
from tests.torture.stage import Stage
from tests.torture.verifier import Findings, Verifier
from tests.torture.workers import WorkerNursery

PRODUCED = "produced.db"
"""Name of the producers' own log in the working folder."""

LOGS = "logs"
"""Name of the folder of what workers write."""


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        step: The step that begins; None when all are over.
        tally: What was done so far.
        produced: Records that the broker has acknowledged.
        ingested: Records that are in history or dead-lettered.
    """

    step: Step | None
    tally: Tally
    produced: int
    ingested: int


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        tally: What was done.
        findings: What the verifier says.
        seconds: How long the killing took, and the verifying.
    """

    tally: Tally
    findings: Findings
    seconds: tuple[float, float]

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return self.findings.right and not self.tally.unasked


class Run:
    """A run on a stage with empty stores; `with Run(stage, options) as run:`.

    Args:
        stage: Where.
        options: What to do.

    Attributes:
        letters: The dead letters that were read so far.
    """

    def __init__(self, stage: Stage, options: Options) -> None:
        self.letters: LetterBox
        self._stage = stage
        self._options = options
        self._stack = ExitStack()
        self._database = Database(stage.settings.history)
        self._tally = Tally()
        self._killing_s = 0.0

    def __enter__(self) -> Self:
        topics = [f"{group.topic}.dlq" for group in self._stage.groups.values()]
        self.letters = self._stack.enter_context(closing(LetterBox(self._stage.broker, topics)))
        self._stack.enter_context(closing(self._database))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def conduct(self, tell: Callable[[State], None]) -> None:
        """Carry out the plan, and let everything be ingested.

        Args:
            tell: Called before each step and in the end.

        Raises:
            TortureFailed: The run cannot go on.
        """
        stage, options, began = self._stage, self._options, time.monotonic()
        with WorkerNursery(stage.folder / LOGS, stage.worker_settings, servers=options.servers) as nursery:
            conductor = Conductor(stage, options, nursery, self._database, self.letters)
            self._tally = conductor.tally
            produced = stage.folder / PRODUCED
            with TortureFeed(stage.broker, stage.groups, options.seed, produced, lambda: conductor.ingested) as feed:
                conductor.use(feed)
                for step in make_plan(options):
                    tell(State(step, conductor.tally, feed.acknowledged, conductor.ingested))
                    conductor.step(step)
                tell(State(None, conductor.tally, feed.acknowledged, conductor.ingested))
                conductor.finish()
        self._killing_s = time.monotonic() - began

    def verify(self) -> Result:
        """Compare the stores with the log: Kafka's, or on the embedded broker, which forgets, the producers' own."""
        stage, began = self._stage, time.monotonic()
        produced = stage.folder / PRODUCED
        log: Log = ProducersLog(produced) if stage.embedded else TopicsLog(stage.broker, produced)
        with closing(log):
            online = stage.settings.online
            found = Verifier(stage.groups, log, stage.partitions(), self._database, online, self.letters).run()
        return Result(self._tally, found, (self._killing_s, time.monotonic() - began))
