"""What every test can use: the real servers, started once a session where they can be had."""

pytest_plugins = ["tests.services.fixtures"]
