"""`oomstream serve`: online reads over HTTP in Feast's shape, protected, ended in order."""

from __future__ import annotations

import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest

from oomstream.agents.broker import EmbeddedBroker
from oomstream.agents.serve import oomagent_pb2 as pb
from tests.certificates import Authority
from tests.integration.agent_groups import CLICKS
from tests.integration.backends import Backends, prepare
from tests.integration.cli import Cli
from tests.integration.feed import DEADLINE_S, workers_on
from tests.integration.served import AgentClient, Served, ask
from tests.integration.served import serving as serving_settings

READ = {"features": ["rides.price", "rides.rating"], "entities": {"rider_id": ["ann", "bob"]}}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command in a folder with the group `rides` and one event of ann."""
    cli = Cli(tmp_path)
    cli.define()
    cli.run("apply", "rides.avsc")
    cli.run("push", "-g", "rides", "-k", "ann", "--feature", "price=8.25", "--event-time", "2026-01-02T10:00:00Z")
    return cli


def serving(cli: Cli, *args: str) -> AbstractContextManager[list[str]]:
    """The server in the background, on free ports."""
    return cli.running("serve", "--port", "0", "--grpc-port", "0", *args, until="serving HTTP on")


def url_of(said: list[str]) -> str:
    """The URL that the server said it serves on."""
    return said[-1].split()[-1]


def test_reads_in_feasts_shape(cli: Cli) -> None:
    """Values, statuses and event times come per column, key columns first; wrong requests are 400 with a sentence."""
    with serving(cli) as said:
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
            ([], "not a JSON object"),
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
    with serving(cli, "--host", "localhost") as said:
        url = url_of(said)
        assert url.startswith("https://localhost:")
        assert ask(f"{url}/health", tls=tls) == (200, {"status": "ok"})
        for token in (None, "another"):
            status, answer = ask(f"{url}/get-online-features", READ, token=token, tls=tls)
            assert (status, "bearer token" in answer["error"]) == (401, True)
        assert ask(f"{url}/get-online-features", READ, token="a-token", tls=tls)[0] == 200
        assert ask(f"{url}/openapi.json", tls=tls)[0] == 200
        address = said[-2].split()[-1].removeprefix("https://")
        get = pb.OnlineGetRequest(entity_key="ann", features=["rides.price"])
        with AgentClient(address, "a-token", authority.certificate) as client:
            assert client.values("ann", "rides.price") == {"rides.price": 8.25}
        for token in (None, "another"):
            with AgentClient(address, token, authority.certificate) as client:
                client.call("HealthCheck")
                for name, request in (("OnlineGet", get), ("ChannelJoin", [pb.ChannelJoinRequest()])):
                    code, sentence = client.failure(name, request)
                    assert (code, "bearer token" in sentence) == (grpc.StatusCode.UNAUTHENTICATED, True)
        with AgentClient(address, "a-token") as client:
            assert client.failure("OnlineGet", get)[0] is grpc.StatusCode.UNAVAILABLE


def test_what_is_open_to_others_must_be_protected(cli: Cli) -> None:
    """On an address that others can reach, TLS and a token are needed; half a certificate is refused."""
    refused = cli.run("serve", "--host", "0.0.0.0", code=2)
    assert "OOMSTREAM_SERVE_TOKEN (or serve on 127.0.0.1)" in refused.stderr
    assert "go together" in cli.run("serve", code=2, OOMSTREAM_SERVE_CERTIFICATE="x").stderr
    wrong = {"OOMSTREAM_SERVE_CERTIFICATE": "x", "OOMSTREAM_SERVE_KEY": "secret"}
    said = cli.run("serve", code=2, **wrong).stderr
    assert "as PEM text" in said
    assert "secret" not in said


def test_pages_of_other_hosts_cannot_use_a_browser_on_this_machine(cli: Cli) -> None:
    """Without a token, what comes from a page of another host, or under another host's name, is 403."""
    with serving(cli) as said:
        url = url_of(said)
        port = url.rpartition(":")[2]
        for headers, status in (
            ({"Origin": "https://example.com"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": f"rebound.example.com:{port}"}, 403),
            ({"Host": "[half"}, 403),
            ({"Origin": f"http://localhost:{port}"}, 200),
            ({"Host": f"localhost:{port}"}, 200),
            ({"Host": "[::1]:80"}, 200),
        ):
            request = urllib.request.Request(f"{url}/health", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    found = answer.status
            except urllib.error.HTTPError as exc:
                with exc:
                    found = exc.code
            assert found == status, headers


def test_a_taken_port_is_named(cli: Cli) -> None:
    """A port that something else listens on is one sentence, with no lines of gRPC's own beside it."""
    with serving(cli) as said:
        port, grpc_port = (line.split()[-1].rpartition(":")[2] for line in reversed(said))
        refused = cli.run("serve", "--port", port, "--grpc-port", "0", code=1).stderr
        assert f"127.0.0.1:{port}" in refused
        command = cli.command("serve", "--port", "0")
        environment = {**cli.environment, "OOMSTREAM_SERVE_GRPC_PORT": grpc_port}
        done = subprocess.run(
            command, cwd=cli.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{grpc_port} for gRPC")


def text(url: str) -> str:
    """The text that a path gives."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: str = answer.read().decode()
        return found


def test_pushes_in_feasts_shape(backends: Backends, tmp_path: Path) -> None:
    """What is pushed can be read when the answer is there, and is in history; wrong pushes leave nothing behind."""
    settings = backends.fresh()
    prepare(settings, [CLICKS])
    with serving_settings(settings, tmp_path) as (server, client):
        rows = {"user": ["ann", "bob"], "event_timestamp": ["2024-05-01 12:00:00"] * 2, "number": [1, 2]}
        push = {"push_source_name": "clicks", "df": rows, "to": "online_and_offline"}
        assert server.ask("/push", push) == (200, {"status": "ok", "rows": 2})
        read = {"features": ["clicks:number"], "entities": {"user": ["bob", "ann"]}}
        status, answer = server.ask("/get-online-features", read)
        assert (status, [each["values"] for each in answer["results"]]) == (200, [["bob", "ann"], [2, 1]])
        assert answer["results"][1]["event_timestamps"] == ["2024-05-01T12:00:00Z"] * 2
        late = {"user": ["ann"], "event_timestamp": ["2024-04-30T12:00:00Z"], "number": [9]}
        assert server.ask("/push", {"push_source_name": "clicks", "df": late})[0] == 200
        assert client.values("ann", "clicks.number") == {"clicks.number": 1}
        for wrong, status, sentence in (
            ({**push, "push_source_name": "nothing"}, 404, "'nothing'"),
            ({**push, "df": {**rows, "number": [3, "x"]}}, 400, "clicks.number, row 1"),
            ({**push, "df": {**rows, "event_timestamp": ["2024-05-02", "2199-01-01"]}}, 400, "clicks"),
            ({**push, "df": {**rows, "user": ["ann", ""]}}, 400, "clicks.user"),
            ({**push, "df": {"number": [1]}}, 400, "clicks.user"),
        ):
            found = server.ask("/push", wrong)
            assert (found[0], sentence in found[1]["error"]) == (status, True), found
        assert client.values("ann", "clicks.number") == {"clicks.number": 1}
        figures = text(f"{server.http}/metrics")
        assert 'oomstream_serve_pushed_events_total{interface="http"} 3.0' in figures
        assert 'oomstream_serve_requests_total{code="404",interface="http",method="/push"} 1.0' in figures
        assert 'oomstream_serve_requests_total{code="OK",interface="grpc",method="OnlineGet"} 2.0' in figures
        assert "<h1>oomstream serve" in text(f"{server.http}/docs")
        assert server.ask("/openapi.json")[1]["info"]["title"] == "oomstream serve"


def test_errors_have_one_shape(cli: Cli) -> None:
    """Whatever goes wrong, the answer is JSON with a sentence and a code, under a status that fits; limits hold."""
    cli.environment["OOMSTREAM_SERVE_MAX_REQUEST_BYTES"] = "2000"
    with serving(cli) as said:
        url = url_of(said)
        for path, content, status, code in (
            ("/nothing", None, 404, "NOT_FOUND"),
            ("/push", None, 405, "UNIMPLEMENTED"),
            ("/health", {}, 405, "UNIMPLEMENTED"),
            ("/push", b"x" * 3_000, 413, "RESOURCE_EXHAUSTED"),
            ("/push", b"x", 400, "INVALID_ARGUMENT"),
            ("/push", {"push_source_name": "nothing", "df": {}}, 404, "NOT_FOUND"),
        ):
            found, answer = ask(f"{url}{path}", content)
            assert (found, answer["code"]) == (status, code)
            assert answer["error"]
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"{url}/push", timeout=30)
        with raised.value as refused:
            assert refused.headers["Allow"] == "POST"
        with AgentClient(said[-2].split()[-1].removeprefix("http://")) as client:
            large = pb.OnlineGetRequest(entity_key="x" * 3_000, features=["rides.price"])
            assert client.failure("OnlineGet", large)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_files_are_those_of_the_setting(cli: Cli, tmp_path: Path) -> None:
    """OOMSTREAM_SERVE_FILES says which folder is shared, in place of the working folder."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "labels.csv").write_text("rider_id,unix_milli\nann,1767348000000\n")
    (shared / "labels.csv").write_text("rider_id,unix_milli\nann,1767348000000\n")
    cli.environment["OOMSTREAM_SERVE_FILES"] = "shared"
    with serving(cli) as said, AgentClient(said[-2].split()[-1].removeprefix("http://")) as client:
        join = pb.JoinRequest(features=["rides.price"], input_file="labels.csv", output_file="out.csv")
        client.call("Join", join)
        assert "8.25" in (shared / "out.csv").read_text()
        join.input_file = str(tmp_path / "labels.csv")
        assert client.failure("Join", join)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_sigterm_lets_what_is_under_way_end(tmp_path: Path) -> None:
    """A push that waits for a worker at SIGTERM is answered, /ready says that the end is near, and exit is 0."""
    backends = Backends("sqlite+sqlite", tmp_path)
    with EmbeddedBroker() as embedded:
        settings = backends.fresh(broker_url=embedded.broker.url)
        prepare(settings, [CLICKS], embedded.broker)
        server = Served(settings, tmp_path)
        with server.agent() as client, ThreadPoolExecutor(1) as pool, workers_on(settings, embedded.broker) as start:
            pushed = pool.submit(client.push, "clicks", "ann", number=pb.Value(int64=7))
            until(lambda: 'requests_in_flight{interface="grpc"} 1.0' in text(f"{server.http}/metrics"))
            server.terminate()
            until(lambda: server.ask("/ready")[0] == 503)
            start()
            pushed.result(DEADLINE_S)
        assert server.wait() == 0, "".join(server.said)
    assert not [line for line in server.said if re.search("Traceback|Error", line)]


def until(condition: Callable[[], bool]) -> None:
    """Ask until something holds."""
    for _ in range(20_000):
        if condition():
            return
    raise AssertionError("it never held")
