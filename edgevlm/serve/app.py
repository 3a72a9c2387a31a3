"""The addresses, as a Starlette application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import edgevlm
from edgevlm.serve import body
from edgevlm.serve.answers import Telling
from edgevlm.serve.conversation import messages_of, wanted
from edgevlm.serve.description import description
from edgevlm.serve.fields import ChatRequest, read_request
from edgevlm.serve.metrics import Metrics
from edgevlm.serve.pictures.bring import Pictures
from edgevlm.serve.refusals import Refusal, of_error
from edgevlm.serve.replies import ModelCard, ModelList
from edgevlm.serve.work import Done, Event, Job, Piece, Served, stopping
from edgevlm.web.guard import Guard

JSON = "application/json"
GONE = 499
"""The status that is counted for clients that hung up; nobody gets it."""
CODES = {401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
Handler: TypeAlias = "Callable[[Request], Awaitable[Response]]"


@dataclass
class Serving:
    """What a server has, and whether it goes on."""

    models: Sequence[Served]
    pictures: Pictures
    most_bytes: int
    """Of a body."""
    most_arriving: int
    """Requests being read, and pictures of theirs being brought, at once."""
    tokens: tuple[str, ...] = field(default=(), repr=False)
    """Each lets in; none lets everybody on this machine in."""
    stopping: bool = False
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.models)

    def model(self, name: str) -> Served:
        """By name. Raises `Refusal` (404)."""
        for one in self.models:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.models)
        raise Refusal(404, f"no model {name!r} is served here: there is {known}", "model_not_found", "model")


def application(serving: Serving) -> Any:
    """The ASGI application."""
    chat, desk = _Chat(serving), _Desk(serving)
    routes = [
        Route("/v1/chat/completions", chat.post, methods=["POST"]),
        Route("/v1/models", desk.models),
        Route("/v1/models/{model:path}", desk.model),
        Route("/health", desk.health),
        Route("/ready", desk.ready),
        Route("/metrics", desk.metrics),
        Route("/openapi.json", desk.description),
    ]
    handlers: Any = {Refusal: _refused, HTTPException: _http, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, serving.tokens or None, lambda status, why: Refusal(status, why, CODES[status]).response())


class _Desk:
    """What is answered at once."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        names = [one.name for one in serving.models]
        self._description = msgspec.json.encode(description(edgevlm.__version__, names, bool(serving.tokens)))

    async def models(self, _: Request) -> Response:
        cards = [ModelCard(one.name, one.created) for one in self._serving.models]
        return Response(msgspec.json.encode(ModelList(cards)), media_type=JSON)

    async def model(self, request: Request) -> Response:
        one = self._serving.model(request.path_params["model"])
        return Response(msgspec.json.encode(ModelCard(one.name, one.created)), media_type=JSON)

    async def health(self, _: Request) -> Response:
        return _lamp(all(one.alive for one in self._serving.models), "healthy")

    async def ready(self, _: Request) -> Response:
        serving = self._serving
        return _lamp(not serving.stopping and all(one.alive for one in serving.models), "ready")

    async def metrics(self, _: Request) -> Response:
        return Response(self._serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def description(self, _: Request) -> Response:
        return Response(self._description, media_type=JSON)


class _Chat:
    """`/v1/chat/completions`."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._arriving = 0

    async def post(self, request: Request) -> Response:
        """Answer, or say why not; either is counted."""
        count = self._serving.metrics.status
        name = ""
        try:
            async with self._arrival(request):
                asked = read_request(await body.read(request, self._serving.most_bytes))
                served = self._serving.model(asked.model)
                name = served.name
                job = await self._job(request, asked, served)
            response = await self._answer(request, asked, served, job)
        except ClientDisconnect:
            response = Response(status_code=GONE)
        except Refusal as refusal:
            response = refusal.response()
        count(name, response.status_code)
        return response

    @asynccontextmanager
    async def _arrival(self, request: Request) -> AsyncIterator[None]:
        """While a request is read and its pictures are brought. Raises `Refusal` where too many are."""
        if self._serving.stopping:
            raise stopping()
        if self._arriving >= self._serving.most_arriving:
            await body.drain(request)
            raise Refusal(429, "too many requests arrive at once: come again later", "queue_full", None, 1)
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def _job(self, request: Request, asked: ChatRequest, served: Served) -> Job:
        how = wanted(asked, served.vlm)
        system = served.vlm.manifest.prompt.system_prompt
        messages = await messages_of(asked, self._serving.pictures, system)
        return Job(_client(request, bool(self._serving.tokens)), messages, how)

    async def _answer(self, request: Request, asked: ChatRequest, served: Served, job: Job) -> Response:
        told = self._told(request, served, job)
        telling = Telling(asked, served)
        if not asked.stream:
            async with aclosing(told):
                return await _whole(telling, told)
        first = await anext(told, None)  # until now, what fails has a status of its own
        if first is None:
            raise ClientDisconnect
        return _Events(telling.events(first, told), told)

    async def _told(self, request: Request, served: Served, job: Job) -> AsyncGenerator[Event]:
        """What becomes of a job. Ends without `Done` when the client has gone. Raises `Refusal`."""
        metrics, first = self._serving.metrics, True
        async with _waiting(request, served, job):
            async for event in job.events():
                if first:
                    metrics.first(served.name, job)
                    first = False
                if isinstance(event, Done):
                    metrics.done(served.name, job, event)
                yield event
                if isinstance(event, Done):
                    return
            metrics.hung_up(served.name)


class _Events(Response):
    """Server-sent events. Starlette's own streams would read what tells that the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], told: Any) -> None:
        super().__init__()
        self._events, self._told = events, told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [one for one in self.raw_headers if one[0] != b"content-length"]
        async with aclosing(self._told):
            await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def _waiting(request: Request, served: Served, job: Job) -> AsyncIterator[None]:
    """In the line or in the thread, as long as the client is there."""
    served.put(job)

    async def watch() -> None:
        await body.gone(request)
        served.leave(job)
        job.tell(None)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        served.leave(job)


async def _whole(telling: Telling, told: AsyncIterator[Event]) -> Response:
    tokens: list[Any] = []
    async for event in told:
        if isinstance(event, Piece | Done):
            tokens += event.tokens
        if isinstance(event, Done):
            return Response(telling.whole(event, tokens), media_type=JSON)
    raise ClientDisconnect


def _client(request: Request, known: bool) -> Hashable:
    """Whose turn it is: by token and address; by address alone where no token is asked for."""
    address = request.client.host if request.client else ""
    return (address, request.headers.get("authorization", "")) if known else address


def _lamp(lit: bool, word: str) -> Response:
    return PlainTextResponse(f"{word}\n" if lit else f"not {word}\n", 200 if lit else 503)


async def _refused(_: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _http(_: Request, error: HTTPException) -> Response:
    code = CODES.get(error.status_code, "http")
    answer = Refusal(error.status_code, f"{error.detail}: GET /openapi.json says what is here", code).response()
    answer.headers.update(error.headers or {})
    return answer


async def _failed(_: Request, error: Exception) -> Response:
    return of_error(error).response()
