"""The embedded broker: a Kafka-protocol log inside a process of ours, for development, demos and tests."""

from oomstream.agents.broker.embedded import EmbeddedBroker

__all__ = ["EmbeddedBroker"]
