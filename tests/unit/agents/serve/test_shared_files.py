"""Clients reach the files of one folder, and nothing else of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oomstream.agents.serve.shared_files import SharedFiles
from oomstream.schemas.errors import InvalidRequest, InvalidSetting


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder to share, beside things that are not shared."""
    (tmp_path / "secret.csv").write_text("x")
    folder = tmp_path / "shared"
    for each in ("sub", ".hidden", "stores"):
        (folder / each).mkdir(parents=True)
        (folder / each / "a.csv").write_text("x")
    (folder / "a.csv").write_text("x")
    (folder / ".netrc").write_text("x")
    (folder / "leads_out").symlink_to(tmp_path)
    (folder / "out.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "in.csv").symlink_to(folder / "sub" / "a.csv")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe.csv")
    return folder


@pytest.fixture
def files(shared: Path) -> SharedFiles:
    """The folder, with the stores in it."""
    return SharedFiles(shared, shared / "stores")


def test_files_of_the_folder(files: SharedFiles, shared: Path) -> None:
    """By relative and absolute paths, also through links that stay within."""
    assert files.input("a.csv") == files.input(str(shared / "a.csv")) == files.input("sub/../a.csv")
    assert files.input("in.csv") == shared / "sub" / "a.csv"
    assert files.output("new.csv") == shared / "new.csv"
    assert files.output("sub/a.csv") == shared / "sub" / "a.csv"
    for suffix in (".parquet", ".arrow", ".feather", ".CSV"):
        assert files.output(f"new{suffix}").parent == shared


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "../secret.csv",
        "sub/../../secret.csv",
        "leads_out/secret.csv",
        "out.csv",
        "/etc/hostname",
        "~/a.csv",
        ".netrc",
        ".hidden/a.csv",
        "stores/a.csv",
        "sub/../stores/a.csv",
        "loop",
        "a\0.csv",
        "a" * 5_000,
        "sub",
        "nothing.csv",
        "pipe.csv",
    ],
)
def test_nothing_else(files: SharedFiles, name: str) -> None:
    """Neither a way out, nor hidden files, nor the stores, nor what is no file."""
    with pytest.raises(InvalidRequest):
        files.input(name)
    if name not in {"nothing.csv"}:
        with pytest.raises(InvalidRequest):
            files.output(name)


@pytest.mark.parametrize("name", ["a.py", "a", "a.csv.sh", ".bashrc", "sub/x.txt", "nowhere/a.csv", "../new.csv"])
def test_outputs_are_data_in_a_folder_that_is_there(files: SharedFiles, name: str) -> None:
    """Other names are never made or overwritten."""
    with pytest.raises(InvalidRequest):
        files.output(name)


def test_nothing_is_shared_without_a_folder(tmp_path: Path) -> None:
    """The sentence names the setting."""
    files = SharedFiles(None, tmp_path)
    with pytest.raises(InvalidSetting, match="OOMSTREAM_SERVE_FILES"):
        files.input("a.csv")
    with pytest.raises(InvalidSetting, match="OOMSTREAM_SERVE_FILES"):
        files.output("a.csv")
