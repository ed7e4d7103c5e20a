"""The rights that docs/operations.md grants on a server are enough for each user, and no more than it says."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pymysql
import pytest

from tests.integration.cli import RIDES, Cli
from tests.integration.test_docs import ROOT, blocks
from tests.services.mysql_protocol import SqlServer

PASSWORD = "geheim 'wort' ü/"
ENCODED = "geheim%20%27wort%27%20%C3%BC%2F"


def granted(server: SqlServer) -> dict[str, str]:
    """Run the page's statements, with names of this test's own; gives the URL of the database for each user."""
    (sql,) = blocks(ROOT / "docs" / "operations.md", "sql")
    name = f"oomstream_{uuid.uuid4().hex[:8]}"
    sql = re.sub(r"'[\w ]+'", "%s", re.sub(r"\boomstream(?=[_. ])", name, sql))
    with pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True) as connection:
        for statement in filter(None, map(str.strip, sql.split(";"))):
            connection.cursor().execute(statement, (PASSWORD,) * statement.count("%s") or None)
    scheme = server.url.partition("://")[0]
    return {
        role: f"{scheme}://{name}_{role}:{ENCODED}@127.0.0.1:{server.port}/{name}"
        for role in ("admin", "worker", "reader")
    }


@pytest.mark.parametrize("kind", ["tidb", "mariadb"])
def test_rights_are_enough_and_no_more(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Each user can do its work; a worker cannot change tables, a reader cannot write, and no password is shown."""
    server: SqlServer = request.getfixturevalue(f"{kind}_server")
    urls = granted(server)
    cli = Cli(tmp_path)
    online = {"OOMSTREAM_ONLINE_URL": f"sqlite:///{tmp_path}/online.db"}

    def run(role: str, *args: str, code: int = 0) -> str:
        done = cli.run(*args, code=code, **online, OOMSTREAM_HISTORY_URL=urls[role])
        assert "geheim" not in done.stdout + done.stderr
        return done.stderr if code else done.stdout

    push = ("push", "-g", "rides", "-k", "ann", "--feature", "price=12.5", "--event-time", "2025-06-01T10:00:00Z")
    (tmp_path / "labels.csv").write_text("rider_id,event_timestamp\nann,2025-06-02T00:00:00Z\n", encoding="utf-8")
    join = ("join", "--feature", "rides.price", "--input-file", "labels.csv")
    assert "is not initialised: run `oomstream init`" in run("worker", *push, code=2)
    run("admin", "init")
    run("worker", "init")
    run("admin", "apply", str(cli.define()))
    assert run("worker", *push).startswith("pushed:")
    assert run("worker", "verify")
    assert run("reader", *join).splitlines()[1].endswith(",12.5")
    assert run("reader", "status")
    more = cli.define(fields=[*RIDES["fields"], {"name": "tip", "type": ["null", "double"]}])
    assert "lacks a right" in run("worker", "apply", str(more), code=2)
    assert "lacks a right" in run("reader", *push, code=2)
    run("admin", "apply", str(more))
    assert run("worker", *push, "--feature", "tip=1").startswith("pushed:")
    state = {"name": "state", "category": "batch", "entity": "rider", "keys": ["rider_id"], "type": "record"}
    fields = [{"name": "rider_id", "type": "string"}, {"name": "score", "type": "long"}]
    (tmp_path / "state.avsc").write_text(json.dumps({**state, "fields": fields}), encoding="utf-8")
    (tmp_path / "state.csv").write_text("rider,score\nann,5\n", encoding="utf-8")
    run("admin", "apply", "state.avsc")
    imported = ("import", "-g", "state", "--input-file", "state.csv")
    assert "lacks a right" in run("worker", *imported, code=2)
    assert run("admin", *imported) == "RevisionID: 2\n"
    run("worker", "sync", "-g", "state")
    assert "lacks a right" in run("reader", "sync", "-g", "state", code=2)
    assert run("reader", "get", "online", "-k", "ann", "--feature", "state.score", "-o", "csv").endswith("ann,5\n")
    for number in (3, 4):
        assert run("admin", *imported) == f"RevisionID: {number}\n"
    assert "lacks a right" in run("worker", "gc", "--revisions-older-than", "0s", code=2)
    assert run("admin", "gc", "--revisions-older-than", "0s") == "group state: 1 revision removed (3)\n"
