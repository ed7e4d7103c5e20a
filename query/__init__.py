"""How it is read."""

if __name__ != "oomstream.query":
    raise ImportError("this folder is the package oomstream.query: write 'import oomstream.query', not 'import query'")
