"""The application: routes, errors and middleware, put together. `dpdau serve` names `create_app` by import string."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from dpdau_assets.api import docs_page, erasure, events, health, numbers, operations, problems
from dpdau_assets.api.bounds import Bounds
from dpdau_assets.api.problems import Problem, ProblemRaised, is_for_operators, problem_of
from dpdau_assets.api.request_log import Answered, RequestLog, described, new_request_id
from dpdau_assets.api.schemas import documented
from dpdau_assets.api.service import Service, opened
from dpdau_assets.core.errors import DpdauError
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.settings import Settings
from dpdau_assets.core.version import VERSION
from resources.settings_env import read_settings
from resources.store import CANNOT_KEEP

_log = logging.getLogger("dpdau.api")

ROUTERS = (events.router, erasure.router, numbers.router, operations.router, health.router, docs_page.router)
SUMMARY = "Events and erasure requests in; daily and monthly active users with differential privacy out."


def create_app() -> ASGIApp:
    """The application on the store that the environment names."""
    return app_on(read_settings())


def app_on(settings: Settings, store: Store | None = None) -> ASGIApp:
    """The application on this store, with what bounds it around it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with opened(settings, store) as service:
            app.state.service = service
            upkeep = [asyncio.create_task(service.keep_up()), asyncio.create_task(service.security.keep_telling())]
            try:
                yield {"docs_url": settings.docs_url}  # for what answers before a request is one
            finally:
                for task in upkeep:
                    task.cancel()
                await service.limits.close()

    return bounded(routes(settings, lifespan), settings)


def bounded(app: FastAPI, settings: Settings) -> ASGIApp:
    """What every request passes, outermost first: log and metrics, sizes and time, origins."""
    inner: ASGIApp = app
    if settings.cors_origins:
        inner = Origins(
            app,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "X-API-Key"],
            expose_headers=["ETag", "Idempotency-Replayed", "Retry-After", "X-Request-ID"],
        )
        inner.docs_url = settings.docs_url
    return RequestLog(Bounds(inner, docs_url=settings.docs_url), also=partial(_count, app))


class Origins(CORSMiddleware):
    """Starlette's, whose refusals have the one shape of errors."""

    docs_url: str | None = None

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether a page may call."""
        said = super().preflight_response(request_headers)
        if said.status_code == 200:
            return said
        refusal = problems.response(problems.ORIGIN_REFUSED, new_request_id(), self.docs_url)
        kept = {name: value for name, value in said.headers.items() if name.startswith(("access-control-", "vary"))}
        refusal.headers.update(kept)
        return refusal


def _count(app: FastAPI, answered: Answered) -> None:
    service: Service = app.state.service
    service.metrics.answered(
        answered.method,
        answered.route,
        answered.status,
        answered.seconds,
        answered.bytes_in,
        answered.bytes_out,
    )


def routes(settings: Settings, lifespan: Any = None) -> FastAPI:
    """The routes and how their errors are answered, without what bounds them."""
    app = FastAPI(
        title="dpdau",
        summary=SUMMARY,
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    for router in ROUTERS:
        app.include_router(router)

    _answer_errors(app, settings.docs_url)
    return documented(app)


def _answer_errors(app: FastAPI, docs_url: str | None) -> None:
    """Every error in the one shape; what a client can do nothing about is in the log too, under the request's id."""

    def answered(problem: Problem, request: Request) -> Response:
        return problems.response(problem, request.state.request_id, docs_url)

    def told(error: Exception, request: Request, message: str) -> None:
        fields = {"request_id": request.state.request_id, "errors": described(error)}
        _log.error("%s", message, extra={"fields": fields})

    @app.exception_handler(ProblemRaised)
    async def _(request: Request, error: ProblemRaised) -> Response:
        return answered(error.problem, request)

    @app.exception_handler(DpdauError)
    async def _(request: Request, error: DpdauError) -> Response:
        if is_for_operators(error):
            told(error, request, f"{error.reason} {error.remedy}")
        return answered(problem_of(error), request)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        broken = [{"field": _place(each), "rule": each["msg"].removeprefix("Value error, ")} for each in error.errors()]
        return answered(problems.INVALID.saying(errors=broken), request)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return answered(replace(problems.METHOD_NOT_ALLOWED, headers={"Allow": _methods(app, request)}), request)
        return answered(problems.NOT_FOUND if error.status_code == 404 else problems.UNEXPECTED, request)

    @app.exception_handler(Exception)
    async def _(request: Request, _: Exception) -> Response:
        return answered(problems.UNEXPECTED, request)  # it is raised on, and what bounds the routes logs it

    for kind in CANNOT_KEEP:

        @app.exception_handler(kind)
        async def _(request: Request, error: Exception) -> Response:
            told(error, request, "Something that is kept could not be written or reached.")
            return answered(problems.UNAVAILABLE, request)


def _place(broken: Mapping[str, Any]) -> str:
    return ".".join(map(str, broken["loc"]))


def _methods(app: FastAPI, request: Request) -> str:
    """Every method that the path has a route for: each route by itself names its own alone. HEAD is answered as GET."""
    there = (route for route in iter_route_contexts(app.routes) if route.path_regex.match(request.scope["path"]))
    methods = {method for route in there for method in route.methods or ()}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
