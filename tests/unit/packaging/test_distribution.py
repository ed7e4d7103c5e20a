"""What is built and shipped: one import name, with every file of every room in it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("agents", "query", "schemas", "stores", "streams")


def tracked_files() -> set[str]:
    """Files of the rooms that git knows, so that stray files of a work tree are not asked for."""
    listed = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a copy of the tree and the wheel built from that sdist alone."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            target.write_bytes(source.read_bytes())
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, "--sdist", str(tree)], check=True, capture_output=True, timeout=300)
    (sdist,) = out.glob("*.tar.gz")
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (root,) = unpacked.iterdir()
    subprocess.run([*build, "--wheel", str(root)], check=True, capture_output=True, timeout=300)
    return out


def test_wheel_has_one_import_name_and_every_file(built: Path) -> None:
    """`oomstream` is the wheel's only top-level name, and no file of a room is missing from it."""
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"oomstream"}
    expected = {f"oomstream/{name}" for name in tracked_files()} | {"oomstream/__init__.py", "oomstream/py.typed"}
    assert expected - names == set()


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_not_a_top_level_package(room: str) -> None:
    """Importing a room by its folder's name fails with a message that names the right one."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert f"oomstream.{room}" in done.stderr.splitlines()[-1]
