"""The `oomstream` command: one module per family of verbs."""
