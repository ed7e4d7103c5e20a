"""One run of the torture, from empty stores to its findings."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

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


def torture(
    stage: Stage, options: Options, *, tell: Callable[[State], None], meddle: Callable[[], None] | None = None
) -> Result:
    """Carry out a plan, and verify.

    Args:
        stage: Where; its stores are empty.
        options: What to do.
        tell: Called before each step and in the end.
        meddle: Called between the end of the last worker and the verification, for tests of the verifier.

    Raises:
        TortureFailed: The run cannot go on.
    """
    began = time.monotonic()
    letters = LetterBox(stage.broker, [f"{group.topic}.dlq" for group in stage.groups.values()])
    with closing(Database(stage.settings.history)) as database, closing(letters):
        conductor = _conduct(stage, options, database, letters, tell)
        killed = time.monotonic()
        if meddle is not None:
            meddle()
        findings = verify(stage, database, letters)
    return Result(conductor.tally, findings, (killed - began, time.monotonic() - killed))


def _conduct(
    stage: Stage, options: Options, database: Database, letters: LetterBox, tell: Callable[[State], None]
) -> Conductor:
    logs = stage.folder / "logs"
    with WorkerNursery(logs, stage.worker_settings, servers=options.servers) as nursery:
        conductor = Conductor(stage, options, nursery, database, letters)
        produced = stage.folder / PRODUCED
        with TortureFeed(stage.broker, stage.groups, options.seed, produced, lambda: conductor.ingested) as feed:
            conductor.use(feed)
            for step in make_plan(options):
                tell(State(step, conductor.tally, feed.acknowledged, conductor.ingested))
                conductor.step(step)
            tell(State(None, conductor.tally, feed.acknowledged, conductor.ingested))
            conductor.finish()
    return conductor


def verify(stage: Stage, database: Database, letters: LetterBox) -> Findings:
    """Compare the stores with the log: Kafka's, or on the embedded broker, which forgets, the producers' own."""
    produced: Path = stage.folder / PRODUCED
    log: Log = ProducersLog(produced) if stage.embedded else TopicsLog(stage.broker, produced)
    with closing(log):
        return Verifier(stage.groups, log, stage.partitions(), database, stage.settings.online, letters).run()
