"""Where it rests."""

if __name__ != "oomstream.stores":
    raise ImportError(
        "this folder is the package oomstream.stores: write 'import oomstream.stores', not 'import stores'"
    )
