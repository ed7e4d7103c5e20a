"""What the data is."""

if __name__ != "oomstream.schemas":
    raise ImportError(
        "this folder is the package oomstream.schemas: write 'import oomstream.schemas', not 'import schemas'"
    )
