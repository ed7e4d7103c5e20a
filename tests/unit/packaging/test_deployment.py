"""The image, the compose file and the Procfile: pinned, without secrets, on loopback, and speaking of what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from oomstream.agents.cli.main import app
from oomstream.stores.settings import PREFIX, Settings
from oomstream.stores.tikv.address import TikvAddress
from oomstream.streams.broker import parse_broker
from tests.services import kafka, tidb, tikv

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_images_are_the_ones_that_tests_run_on() -> None:
    """Every server's image has an exact version, the one that tests/services starts."""
    images = {service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert images == {kafka.IMAGE, tidb.IMAGE, tikv.IMAGE, tikv.PD_IMAGE}
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_healthy_or_ends(name: str) -> None:
    """What runs on has a health check of its own or the image's; what works once says that it is not restarted."""
    service = SERVICES[name]
    once = service.get("restart") == "no" or "profiles" in service
    check = service.get("healthcheck", {})
    assert once == bool(check.get("disable"))
    if not once:
        assert service["restart"] == "unless-stopped"
        assert check.get("test") or ("build" in service and "HEALTHCHECK" in DOCKERFILE)


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_wait(name: str) -> None:
    """A service begins when those that it needs are healthy, or have done their work."""
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        ends = SERVICES[needed].get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")


def test_ports_are_on_loopback() -> None:
    """No port is published to a network."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_settings_exist_and_hold_no_secret() -> None:
    """Every OOMSTREAM_ variable is a setting; URLs with users come from secret files, which only a service names."""
    known = {field.alias or PREFIX + name.upper() for name, field in Settings.model_fields.items()}
    for service in OURS.values():
        environment = service["environment"]
        assert {name.removesuffix("_FILE") for name in environment} <= known
        assert parse_broker(environment["OOMSTREAM_BROKER_URL"]).servers == ("kafka:9092",)
        assert TikvAddress.parse(environment["OOMSTREAM_ONLINE_URL"]).pd == ("pd-online:2379",)
        assert environment["OOMSTREAM_HISTORY_URL_FILE"].removeprefix("/run/secrets/") in service["secrets"]
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert not re.search(r"password|passwd|:[^/\s]+@", text, re.IGNORECASE)
    assert all(secret["file"].startswith("${SECRETS_FOLDER:-./secrets}/") for secret in COMPOSE["secrets"].values())
    assert "/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_only_admin_verbs_have_the_admin_secret() -> None:
    """Workers and the cli connect as a user without the right to change tables."""
    admin = {name for name, service in OURS.items() if "history_admin_url" in service["secrets"]}
    assert admin == {"init", "apply"}


def test_online_and_history_have_clusters_of_their_own() -> None:
    """TiDB's TiKV and the online TiKV have different PDs and volumes: their data must not be in one cluster."""
    pds = {name: " ".join(SERVICES[name]["command"]) for name in ("tidb", "tikv-history", "tikv-online")}
    assert "pd-history:2379" in pds["tidb"]
    assert "pd-history:2379" in pds["tikv-history"]
    assert "pd-online:2379" in pds["tikv-online"]
    volumes = [each.partition(":")[0] for service in SERVICES.values() for each in service.get("volumes", [])]
    named = [each for each in volumes if not each.startswith("$")]
    assert sorted(named) == sorted(COMPOSE["volumes"])


def test_our_containers_have_few_rights() -> None:
    """Read-only, no capabilities, no container name (so that workers can be more than one), a user that is not root."""
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "container_name" not in service
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.rindex("USER") > DOCKERFILE.rindex("FROM")


def test_dependencies_of_the_image_are_pinned() -> None:
    """Everything that pip installs in the image is held to constraints.txt, and the second stage installs nothing."""
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert installs
    assert all("-c constraints.txt" in each for each in installs)
    assert "pip" not in DOCKERFILE[DOCKERFILE.rindex("FROM") :]


def test_only_what_is_built_from_reaches_the_engine() -> None:
    """The ignore file leaves everything out but what the Dockerfile copies."""
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    let_in = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)


def test_commands_are_verbs() -> None:
    """Every verb that the files run is one of the command's."""
    commands = [service["command"][0] for service in OURS.values() if "command" in service]
    commands += re.findall(r'(?:CMD \[|"oomstream", )"(\w+)"', DOCKERFILE.replace('CMD ["oomstream", ', "CMD ["))
    commands += re.findall(r"^\w+: oomstream (\w+)$", (ROOT / "Procfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"init", "apply", "worker", "dev", "status"} <= set(commands)
    for verb in set(commands):
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, verb
