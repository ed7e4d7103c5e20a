"""What people start."""

if __name__ != "oomstream.agents":
    raise ImportError(
        "this folder is the package oomstream.agents: write 'import oomstream.agents', not 'import agents'"
    )
