"""The gRPC server: rpcs by the compiled protocol, errors as status codes, the token, limits and deadlines."""

from __future__ import annotations

import asyncio
import hmac
import keyword
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from grpc import aio

from oomstream.agents.serve import oomagent_pb2 as pb
from oomstream.agents.serve.failures import CALLS_PER_REQUEST, failure_of
from oomstream.agents.serve.metrics import ServeMetrics, Timed
from oomstream.schemas.errors import Fatal
from oomstream.stores.settings import Settings

SERVICE = "oomagent.OomAgent"
OPEN_METHODS = frozenset({f"/{SERVICE}/HealthCheck"})
"""What health checks ask for, which have no token."""

SHORT = frozenset({"HealthCheck", "OnlineGet", "OnlineMultiGet", "Push", "Snapshot"})
"""Rpcs that end by a deadline of ours; the others last as long as their rows, or their client's deadline."""

MAX_CONCURRENT_RPCS = 1_000
_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Else a second server could take the same port and half of the requests.
    ("grpc.so_reuseport", 0),
    # A client whose machine is gone is found out, so that what it was streaming ends.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)

Rpc = Callable[..., Any]
Context = Any  # aio.ServicerContext; its stubs want the types of request and response


def snake(name: str) -> str:
    """``OnlineMultiGet`` as ``online_multi_get``, and ``Import`` as ``import_``."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return f"{words}_" if keyword.iskeyword(words) else words


class GrpcServer:
    """The agent on a port.

    Args:
        answers: Object or objects that have a method for each rpc, named as Python names methods. One that answers with
            a stream is an async generator; one that reads a stream takes an async iterator of messages.
        settings: Token, limits and deadlines.
        metrics: Counts the requests.
    """

    def __init__(self, answers: tuple[object, ...], settings: Settings, metrics: ServeMetrics) -> None:
        self._metrics = metrics
        self._timeout_s = CALLS_PER_REQUEST * settings.call_timeout_us / 1e6
        token = settings.serve_token.get_secret_value() if settings.serve_token is not None else None
        self._server = aio.server(
            interceptors=[] if token is None else [_TokenGuard(token, metrics)],
            options=[*_OPTIONS, ("grpc.max_receive_message_length", settings.serve_max_request_bytes)],
            maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS,
        )
        handlers = {method.name: self._handler(method, answers) for method in _methods()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen, and answer from now on.

        Args:
            host: Address.
            port: Port; 0 = a free one.
            credentials: TLS; None = in clear.

        Returns:
            The port.

        Raises:
            Fatal: The port is taken.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as exc:
            raise Fatal(
                f"cannot listen on {address} for gRPC: the port is taken, or the address is none of ours"
            ) from exc
        await self._server.start()
        return int(bound)

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, and give those under way some seconds to end."""
        await self._server.stop(grace_s)

    def _handler(self, method: Any, answers: tuple[object, ...]) -> grpc.RpcMethodHandler[Any, Any]:
        (rpc,) = (found for each in answers if (found := getattr(each, snake(method.name), None)) is not None)
        makers: dict[tuple[bool, bool], Any] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        answer = self._streamed(method.name, rpc) if method.server_streaming else self._single(method.name, rpc)
        handler: grpc.RpcMethodHandler[Any, Any] = makers[method.client_streaming, method.server_streaming](
            answer,
            request_deserializer=getattr(pb, method.input_type.name).FromString,
            response_serializer=getattr(pb, method.output_type.name).SerializeToString,
        )
        return handler

    def _single(self, name: str, rpc: Rpc) -> Callable[[Any, Context], Awaitable[Any]]:
        async def answer(request: Any, context: Context) -> Any:
            with self._metrics.timed("grpc", name) as timed:
                try:
                    async with asyncio.timeout(self._timeout_s if name in SHORT else None):
                        response = await rpc(_checked(request, context))
                except Exception as exc:
                    await _abort(context, exc, timed)
                timed.code = "OK"
                return response

        return answer

    def _streamed(self, name: str, rpc: Rpc) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._metrics.timed("grpc", name) as timed:
                try:
                    async for response in rpc(_checked(request, context)):
                        yield response
                except Exception as exc:
                    await _abort(context, exc, timed)
                timed.code = "OK"

        return answer


def _methods() -> list[Any]:
    return list(pb.DESCRIPTOR.services_by_name["OomAgent"].methods)


def _checked(request: Any, context: Context) -> Any:
    return whole(request, context) if hasattr(request, "__aiter__") else request


async def whole(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
    """The messages of a stream, up to an end that the client meant.

    Where the connection breaks, a stream may seem to end before the call is cancelled. So at its end something is sent:
    that goes through the call, which is known to be broken by then.

    Raises:
        asyncio.CancelledError: The stream broke off.
    """
    async for message in messages:
        yield message
    await context.send_initial_metadata(())
    await asyncio.sleep(0)
    if context.cancelled():
        raise asyncio.CancelledError


async def _abort(context: Context, error: Exception, timed: Timed) -> NoReturn:
    if isinstance(error, aio.AbortError):
        raise error
    failure = failure_of(error)
    timed.code, timed.of_a_store = failure.code.name, failure.is_of_a_store
    await context.abort(failure.code, failure.sentence)
    raise AssertionError("abort raises")


class _TokenGuard(aio.ServerInterceptor):
    """Refuses rpcs without the token before their messages are read."""

    def __init__(self, token: str, metrics: ServeMetrics) -> None:
        self._expected = f"Bearer {token}".encode()
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        text = given if isinstance(given, bytes) else str(given).encode()
        if handler is None or method in OPEN_METHODS or hmac.compare_digest(text, self._expected):
            return handler

        async def refuse(_: Any, context: Context) -> None:
            with self._metrics.timed("grpc", method.rpartition("/")[2]) as timed:
                timed.code = grpc.StatusCode.UNAUTHENTICATED.name
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "this server wants its bearer token in the metadata `authorization`",
                )

        # What the client streams is not read.
        return grpc.stream_unary_rpc_method_handler(refuse)


def credentials_of(settings: Settings, tls: ssl.SSLContext | None) -> grpc.ServerCredentials | None:
    """TLS for gRPC where the settings have a certificate, which `tls` says is one."""
    if tls is None or settings.serve_certificate is None or settings.serve_key is None:
        return None
    pair = settings.serve_key.get_secret_value().encode(), settings.serve_certificate.encode()
    return grpc.ssl_server_credentials([pair])
