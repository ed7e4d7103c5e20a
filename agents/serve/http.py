"""Online reads over HTTP, in the shape of Feast's feature server.

``POST /get-online-features`` takes ``{"features": ["plane.arr_delay"], "entities": {"tailnum": ["N14228"]}}`` and gives
``{"metadata": {"feature_names": […]}, "results": [{"values": […], "statuses": […], "event_timestamps": […]}]}``, the
key columns first, one list item per entity. ``GET /health`` says that the process lives, ``GET /ready`` that the online
store answers. Errors are ``{"error": "one sentence"}``: 400 for a wrong request, 401 without the token, 503 while a
store is down.

Source:
    Feast's Python feature server (paths and shapes).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from oomstream.agents.cli.output import plain_json, time_text
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.query.online import OnlineResponse
from oomstream.schemas.errors import InvalidRequest, OomstreamError

MAX_REQUEST_BYTES = 4 << 20
OPEN_PATHS = frozenset({"/health", "/ready"})
"""What health checks ask for, which have no token."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(store: AsyncFeatureStore, *, token: str | None = None) -> web.Application:
    """The HTTP application over an open feature store.

    Args:
        store: Open for as long as the application serves.
        token: Bearer token that every read must bring; None = none is asked for.
    """

    async def health(_: web.Request) -> web.Response:
        return _answer({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        await store.ping()
        return _answer({"status": "ready"})

    async def read(request: web.Request) -> web.Response:
        features, entities = _wanted(await request.read())
        return _answer(_feast_shape(await store.get_online_features(features, entities)))

    app = web.Application(middlewares=[_errors, _guard(token)], client_max_size=MAX_REQUEST_BYTES)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    app.router.add_post("/get-online-features", read)
    return app


def _answer(content: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidRequest as exc:
        return _answer({"error": str(exc)}, 400)
    except OomstreamError as exc:
        return _answer({"error": str(exc)}, 503)
    except web.HTTPException as exc:
        return _answer({"error": exc.reason}, exc.status)


def _guard(token: str | None) -> Any:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if token is not None and request.path not in OPEN_PATHS and not hmac.compare_digest(given, expected):
            return _answer({"error": "this server wants its bearer token in the Authorization header"}, 401)
        return await handler(request)

    return guard


def _wanted(body: bytes) -> tuple[list[str], dict[str, list[Any]]]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest("the request is not JSON") from exc
    features = request.get("features") if isinstance(request, dict) else None
    entities = request.get("entities") if isinstance(request, dict) else None
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise InvalidRequest('the request needs "features": a list of full feature names')
    if not isinstance(entities, dict) or not all(isinstance(each, list) for each in entities.values()):
        raise InvalidRequest('the request needs "entities": a list of values per key column')
    return features, entities


def _feast_shape(response: OnlineResponse) -> dict[str, Any]:
    columns, statuses, times = response.to_dict(), response.statuses, response.event_times
    results = []
    for name, values in columns.items():
        present = ["PRESENT"] * len(values)
        stamps = times.get(name) or [None] * len(values)
        results.append(
            {
                "values": [plain_json(value) for value in values],
                "statuses": [str(each) for each in statuses.get(name, present)],
                "event_timestamps": [None if time is None else time_text(time) for time in stamps],
            }
        )
    return {"metadata": {"feature_names": list(columns), "age_us": response.age_us}, "results": results}
