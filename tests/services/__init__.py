"""Real servers for tests: Kafka, TiDB, TiKV and MariaDB, in Docker or from package registries.

Each module starts one kind of server and has the same few names: ``available()`` says whether and how this machine can
start it, ``start()`` does, and what it returns is stopped, restarted, frozen and killed in the same way (`Server`).
``python -m tests.services`` starts all of them for a person to play with. See README.md in this folder.
"""
