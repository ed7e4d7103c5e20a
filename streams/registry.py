"""Schemas of a Confluent Schema Registry, fetched when an event names one that is not known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.urls import mask_url

NOT_FOUND = 40403


class RegistrySchemas:
    """Avro schemas of one Schema Registry by id; ids never change their schema, so nothing expires.

    Args:
        url: The registry's URL.
        timeout_s: Deadline of one look-up, seconds.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._masked = mask_url(url)
        self._timeout_s = timeout_s
        self._client = SchemaRegistryClient({"url": url, "timeout": timeout_s, "max.retries": 0})
        self._known: dict[int, dict[str, Any]] = {}

    @property
    def known(self) -> Mapping[int, dict[str, Any]]:
        """Those fetched so far."""
        return MappingProxyType(self._known)

    async def fetch(self, ids: frozenset[int]) -> None:
        """Fetch schemas; an id that the registry does not have, or that is not an Avro record, stays unknown.

        Raises:
            StoreUnavailable: The registry did not answer in time, or refused; names its URL.
        """
        for schema_id in ids - self._known.keys():
            schema = await self._fetch_one(schema_id)
            if schema is not None:
                self._known[schema_id] = schema

    async def _fetch_one(self, schema_id: int) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await asyncio.to_thread(self._client.get_schema, schema_id)
            schema = json.loads(found.schema_str or "null") if found.schema_type == "AVRO" else None
        except SchemaRegistryError as exc:
            if exc.error_code == NOT_FOUND or exc.http_status_code == 404:
                return None
            raise StoreUnavailable(
                f"Schema Registry {self._masked}: looking up schema {schema_id} failed "
                f"with status {exc.http_status_code}"
            ) from exc
        except (OSError, TimeoutError) as exc:
            raise StoreUnavailable(f"Schema Registry {self._masked} does not answer: is it running there?") from exc
        except Exception as exc:  # its HTTP client's errors derive from Exception alone
            if not type(exc).__module__.startswith("httpx"):
                raise
            raise StoreUnavailable(f"Schema Registry {self._masked} does not answer: is it running there?") from exc
        return schema if isinstance(schema, dict) else None
