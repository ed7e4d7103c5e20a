"""HTTP beside gRPC: reads and pushes in the shape of Feast's feature server, health, metrics, and what the API is.

``POST /get-online-features`` takes ``{"features": ["plane.arr_delay"], "entities": {"tailnum": ["N14228"]}}`` and gives
``{"metadata": {"feature_names": […]}, "results": [{"values": […], "statuses": […], "event_timestamps": […]}]}``, the
key columns first, one list item per entity. ``POST /push`` takes ``{"push_source_name": "plane", "df": {column:
[…]}}``. ``GET /health`` says that the process lives, ``GET /ready`` that the online store answers, ``GET /metrics``
gives Prometheus' figures, ``/docs`` and ``/openapi.json`` tell the whole of it. Every error is ``{"error": "one
sentence", "code": "INVALID_ARGUMENT"}`` under the status that fits.

Source:
    Feast's Python feature server (paths and shapes).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from oomstream.agents.serve.agent import count_statuses
from oomstream.agents.serve.api_page import api_document, api_page
from oomstream.agents.serve.failures import CALLS_PER_REQUEST, failure_of
from oomstream.agents.serve.feast import push_request, pushed_events, read_answer, read_request, unknown_columns
from oomstream.agents.serve.loopback import is_of_this_machine
from oomstream.agents.serve.metrics import CONTENT_TYPE, ServeMetrics
from oomstream.agents.serve.pushes import Pushes
from oomstream.agents.serve.registered import Registered
from oomstream.query.feature_store import AsyncFeatureStore
from oomstream.schemas.errors import StoreUnavailable
from oomstream.stores.settings import Settings

OPEN_PATHS = frozenset({"/health", "/ready", "/docs", "/openapi.json"})
"""What is asked for without a token: by health checks, and by people who look the API up."""

_CODE_OF_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpApi:
    """The routes and what they answer.

    Args:
        store: Open for as long as the application serves.
        registered: Definitions.
        pushes: Where pushed events go.
        settings: Token, limits and deadlines.
        metrics: Counts the requests, and is what ``/metrics`` shows.
    """

    def __init__(
        self,
        store: AsyncFeatureStore,
        registered: Registered,
        pushes: Pushes,
        settings: Settings,
        metrics: ServeMetrics,
    ) -> None:
        self._store = store
        self._registered = registered
        self._pushes = pushes
        self._timeout_s = CALLS_PER_REQUEST * settings.call_timeout_us / 1e6
        self._token = None if settings.serve_token is None else settings.serve_token.get_secret_value()
        self._max_bytes = settings.serve_max_request_bytes
        self._metrics = metrics
        self.draining = False
        """Set when the server is about to end, so that load balancers learn it from ``/ready``."""

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._answered, self._guarded], client_max_size=self._max_bytes)
        app.router.add_post("/get-online-features", self._read)
        app.router.add_post("/push", self._push)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._figures)
        app.router.add_get("/openapi.json", self._document)
        app.router.add_get("/docs", self._page)
        return app

    async def _read(self, request: web.Request) -> web.Response:
        wanted = read_request(await request.read())
        response = await self._store.get_online_features(wanted.features, wanted.entities)
        count_statuses(self._metrics, response)
        return _json(read_answer(response))

    async def _push(self, request: web.Request) -> web.Response:
        body = await request.read()
        pushed = push_request(body)
        group = await self._registered.group(pushed.group)
        if unknown := unknown_columns(group, pushed):
            group = await self._registered.group(pushed.group, with_features=unknown)
        rows = pushed_events(group, pushed)
        await self._pushes.push(group, rows, len(body))
        if rows:
            self._metrics.count("pushed_events", "http", by=len(rows))
        return _json({"status": "ok", "rows": len(rows)})

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _ready(self, _: web.Request) -> web.Response:
        if self.draining:
            raise StoreUnavailable("this server is ending")
        await self._store.ping()
        return _json({"status": "ready"})

    async def _figures(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _document(self, _: web.Request) -> web.Response:
        return _json(api_document())

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=api_page(), content_type="text/html")

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Bound a request in time, turn errors into answers, and count it."""
        known = request.match_info.route.resource
        with self._metrics.timed("http", known.canonical if known is not None else "unknown path") as timed:
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await handler(request)
            except web.HTTPException as exc:
                code = _CODE_OF_STATUS.get(exc.status, "INVALID_ARGUMENT")
                response = _error(f"{exc.reason}: {request.method} {request.path[:80]}", code, exc.status)
                if "Allow" in exc.headers:
                    response.headers["Allow"] = exc.headers["Allow"]
            except Exception as exc:
                failure = failure_of(exc)
                timed.of_a_store = failure.is_of_a_store
                response = _error(failure.sentence, failure.code.name, failure.http_status)
            timed.code = str(response.status)
            return response

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask for the token, where there is one; else make sure that no page of another host sent the request."""
        if self._token is None and not is_of_this_machine(request):
            return _error("without a token this server is for this machine alone", "PERMISSION_DENIED", 403)
        if self._token is not None and request.path not in OPEN_PATHS:
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
                sentence = "this server wants its bearer token in the Authorization header"
                refused = _error(sentence, "UNAUTHENTICATED", 401)
                refused.headers["WWW-Authenticate"] = "Bearer"
                return refused
        return await handler(request)


def _json(content: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def _error(sentence: str, code: str, status: int) -> web.Response:
    return _json({"error": sentence, "code": code}, status)
