"""Records of a topic decoded with all that can be known: what is unknown is fetched once, then judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from oomstream.schemas.catalog import RegisteredGroup
from oomstream.schemas.decode import Decoder, EventLimits
from oomstream.schemas.events import Decoded, Record
from oomstream.schemas.groups import FeatureGroup
from oomstream.stores.catalog_cache import CatalogCache
from oomstream.stores.forgetting import Marks
from oomstream.stores.settings import Settings

T = TypeVar("T")


class WriterSchemas(Protocol):
    """Schemas of a Schema Registry by id."""

    @property
    def known(self) -> Mapping[int, dict[str, Any]]:
        """Those fetched so far."""

    async def fetch(self, ids: frozenset[int]) -> None:
        """Fetch schemas; an id that the registry does not have stays unknown.

        Raises:
            StoreUnavailable: The registry did not answer.
        """


class Attempt(Protocol):
    """How an operation that may be unavailable is tried: once, or until an outage outlasts its budget."""

    async def __call__(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Its result."""


async def once(operation: Callable[[], Awaitable[T]]) -> T:
    """Try once."""
    return await operation()


def _without(marks: Marks, group: FeatureGroup, decoded: Decoded) -> Decoded:
    kept = marks.kept(group, decoded.events)
    if len(kept) == len(decoded.events):
        return decoded
    left = {event.sequence for event in kept}
    gone = frozenset(event.sequence for event in decoded.events if event.sequence not in left)
    return decoded._replace(events=kept, forgotten=gone)


class Decoding:
    """Decodes batches in the terms of each group's newest definition; for one task at a time.

    Args:
        catalog: The process's catalog.
        settings: Which event times are accepted.
        registry: Schema Registry, if one is set.
        attempt: How the catalog and the registry are asked.
    """

    def __init__(
        self,
        catalog: CatalogCache,
        settings: Settings,
        registry: WriterSchemas | None = None,
        *,
        attempt: Attempt = once,
    ) -> None:
        self._catalog = catalog
        self._limits = EventLimits(min_event_time_us=settings.min_event_time_us, max_future_us=settings.max_future_us)
        self._registry = registry
        self._attempt = attempt
        self._decoders: dict[str, Decoder] = {}

    async def decode(self, records: Sequence[Record], group: str) -> tuple[Decoded, RegisteredGroup]:
        """Decode one batch, and tell the definition that it was decoded with.

        Events of forgotten entities are in neither the events nor the rejected ones.

        Args:
            records: Of one source, in log order.
            group: Name of the group.

        Raises:
            StoreUnavailable: The history database or the registry cannot be asked.
        """
        registered = (await self._catalog.get()).groups[group]
        decoded = self._decoder(registered).decode(records)
        if decoded.unknown_schema_ids and self._registry is not None:
            registry = self._registry
            await self._attempt(lambda: registry.fetch(decoded.unknown_schema_ids))
            self._decoders.clear()
            decoded = self._decoder(registered).decode(records)
        if decoded.unknown_fingerprints:
            # A newer definition may have been published. (Unknown JSON fields need no such look: the history
            # transaction refuses a batch that was decoded with an older definition.)
            await self.renew()
            registered = (await self._catalog.get()).groups[group]
            decoded = self._decoder(registered).decode(records)
        marks = self._catalog.marks
        if marks is not None:
            decoded = _without(marks, registered.group, decoded)
        return decoded, registered

    async def renew(self) -> None:
        """Read the newest definitions.

        Raises:
            StoreUnavailable: The history database cannot be read.
        """
        await self._attempt(self._catalog.reload)
        self._decoders.clear()

    def _decoder(self, registered: RegisteredGroup) -> Decoder:
        name = registered.group.name
        if name not in self._decoders:
            known = self._registry.known if self._registry is not None else {}
            self._decoders[name] = Decoder(registered, self._limits, known)
        return self._decoders[name]
