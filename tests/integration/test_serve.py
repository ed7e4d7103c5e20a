"""`oomstream serve`: online reads over HTTP in Feast's shape, protected, ended in order."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.integration.cli import Cli

READ = {"features": ["rides.price", "rides.rating"], "entities": {"rider_id": ["ann", "bob"]}}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides` and one event of ann."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=8.25", "--event-time", "2026-01-02T10:00:00Z")
    return cli


def ask(
    url: str, content: Any = None, *, token: str | None = None, tls: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    """Status and JSON answer of a GET, or of a POST of `content` (bytes as they are, the rest as JSON)."""
    body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30, context=tls) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def url_of(said: list[str]) -> str:
    """The URL that the server said it serves on."""
    return said[-1].split()[-1]


def test_reads_in_feasts_shape(cli: Cli) -> None:
    """Values, statuses and event times come per column, key columns first; wrong requests are 400 with a sentence."""
    with cli.running("serve", "--port", "0", until="serving on") as said:
        url = url_of(said)
        assert ask(f"{url}/health") == (200, {"status": "ok"})
        assert ask(f"{url}/ready") == (200, {"status": "ready"})
        status, answer = ask(f"{url}/get-online-features", READ)
        assert status == 200
        assert answer == {
            "metadata": {"feature_names": ["rider_id", "rides.price", "rides.rating"], "age_us": 0},
            "results": [
                {"values": ["ann", "bob"], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": [None, None]},
                {
                    "values": [8.25, None],
                    "statuses": ["PRESENT", "NOT_FOUND"],
                    "event_timestamps": ["2026-01-02T10:00:00Z", None],
                },
                {
                    "values": [None, None],
                    "statuses": ["NULL_VALUE", "NOT_FOUND"],
                    "event_timestamps": ["2026-01-02T10:00:00Z", None],
                },
            ],
        }
        for wrong, sentence in (
            (b"{", "the request is not JSON"),
            ([], '"features"'),
            ({"features": ["rides.price"]}, '"entities"'),
            ({**READ, "features": ["rides.tip"]}, "invalid feature names [rides.tip]"),
            ({**READ, "entities": {"rider": ["ann"]}}, "rider_id"),
            ({**READ, "entities": {"rider_id": [7]}}, "rider_id"),
        ):
            status, answer = ask(f"{url}/get-online-features", wrong)
            assert status == 400
            assert sentence in answer["error"]
        assert ask(f"{url}/nothing")[0] == 404


def test_token_and_tls(cli: Cli) -> None:
    """With a token, reads without it are 401; with a certificate, the server speaks TLS only."""
    authority = Authority()
    pair = authority.issue("localhost")
    for name, text in (("serve_token", "a-token\n"), ("serve_certificate", pair.certificate), ("serve_key", pair.key)):
        file = cli.folder / name
        file.write_text(text)
        cli.environment[f"OOMSTREAM_{name.upper()}_FILE"] = str(file)
    tls = ssl.create_default_context(cadata=authority.certificate)
    with cli.running("serve", "--host", "localhost", "--port", "0", until="serving on") as said:
        url = url_of(said)
        assert url.startswith("https://localhost:")
        assert ask(f"{url}/health", tls=tls) == (200, {"status": "ok"})
        for token in (None, "another"):
            status, answer = ask(f"{url}/get-online-features", READ, token=token, tls=tls)
            assert (status, "bearer token" in answer["error"]) == (401, True)
        assert ask(f"{url}/get-online-features", READ, token="a-token", tls=tls)[0] == 200


def test_what_is_open_to_others_must_be_protected(cli: Cli) -> None:
    """On an address that others can reach, TLS and a token are needed; half a certificate is refused."""
    refused = cli.run("serve", "--host", "0.0.0.0", code=2)
    assert "OOMSTREAM_SERVE_TOKEN (or serve on 127.0.0.1)" in refused.stderr
    assert "go together" in cli.run("serve", code=2, OOMSTREAM_SERVE_CERTIFICATE="x").stderr
    wrong = {"OOMSTREAM_SERVE_CERTIFICATE": "x", "OOMSTREAM_SERVE_KEY": "secret"}
    said = cli.run("serve", code=2, **wrong).stderr
    assert "as PEM text" in said
    assert "secret" not in said


def test_a_taken_port_is_named(cli: Cli) -> None:
    """A port that something else listens on is one sentence."""
    with cli.running("serve", "--port", "0", until="serving on") as said:
        port = url_of(said).rpartition(":")[2]
        assert f"127.0.0.1:{port}" in cli.run("serve", "--port", port, code=1).stderr
