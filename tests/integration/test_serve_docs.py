"""docs/serving.md and docs/from-feast.md say what is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from grpc import StatusCode

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.agents.serve.api_page import api_document
from oomstream.agents.serve.failures import HTTP_STATUS
from oomstream.agents.serve.metrics import METRICS, MetricKind
from oomstream.query.online import FeatureStatus
from tests.integration.cli import Cli
from tests.integration.test_docs import ROOT, blocks

SERVING = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def first_cells(section: str) -> list[str]:
    """Names in the first cells of the table rows of a section."""
    text = SERVING.split(f"## {section}", 1)[1].split("\n## ", 1)[0]
    return [
        name for cell in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    ]


def test_every_metric_is_documented() -> None:
    """The table has each metric by its full name, and no other; the statuses are those that there are."""
    counter = {MetricKind.COUNTER: "_total"}
    full = [f"oomstream_serve_{metric.name}{counter.get(metric.kind, '')}" for metric in METRICS]
    assert first_cells("Metrics") == full
    assert all(f"`{status}`" in SERVING for status in FeatureStatus)


def test_every_rpc_status_and_path_is_documented() -> None:
    """The tables have every rpc, every status that a request can end with, and every path."""
    found = first_cells("gRPC")
    rpcs = {method.name for method in pb.DESCRIPTOR.services_by_name["OomAgent"].methods}
    assert set(found) == rpcs | {code.name for code in HTTP_STATUS if code is not StatusCode.INTERNAL}
    paths = {f"{method.upper()} {path}" for path, all_ in api_document()["paths"].items() for method in all_}
    assert set(first_cells("HTTP")) == paths


def test_the_feast_page_runs(tmp_path: Path) -> None:
    """Its definition is applied, and its Python reads what was pushed."""
    page = ROOT / "docs" / "from-feast.md"
    (definition,), (python,) = blocks(page, "json"), blocks(page, "python")
    (tmp_path / "driver_stats.avsc").write_text(definition, encoding="utf-8")
    cli = Cli(tmp_path)
    cli.run("apply", "driver_stats.avsc")
    event = ["--feature", "conv_rate=0.5", "--event-time", "2025-06-01T12:00:00Z"]
    cli.run("push", "-g", "driver_stats", "-k", "1001", *event)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", python],
        cwd=tmp_path,
        env=cli.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    online, training = map(eval, done.stdout.splitlines())
    assert online == {"driver_id": [1001], "driver_stats.conv_rate": [None], "driver_stats.trips": [None]}
    assert [(row["label"], row["driver_stats.conv_rate"]) for row in training] == [(1, 0.5)]


def test_requests_on_the_serving_page_are_json() -> None:
    """What the page sends with curl can be read."""
    sent = re.findall(r"-d '(.+?)'", SERVING)
    assert len(sent) == 2
    assert all(isinstance(json.loads(each), dict) for each in sent)
