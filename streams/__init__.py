"""How it moves."""

if __name__ != "oomstream.streams":
    raise ImportError(
        "this folder is the package oomstream.streams: write 'import oomstream.streams', not 'import streams'"
    )
