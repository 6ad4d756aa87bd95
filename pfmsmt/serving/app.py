"""The HTTP server of all scenarios' champions."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

import pfmsmt
from pfmsmt.config import Serve
from pfmsmt.serving.counters import Counters
from pfmsmt.serving.deployments import Fleet
from pfmsmt.serving.guards import FailureGuard, Refusal, TokenGuard
from pfmsmt.serving.openapi import (
    REQUEST_BODY,
    ExampleBody,
    Prediction,
    Readiness,
    Scenario,
    error_responses,
    example_body,
    with_examples,
)
from pfmsmt.serving.predictor import Predictor
from pfmsmt.serving.rows import optional_columns
from pfmsmt.tracking.registry import CHAMPION

_LOG = logging.getLogger("pfmsmt.serving")
_ScenarioPath = Annotated[str, Path(description="As GET /v1/scenarios lists it.")]
_TEXT = "text/plain; version=1.0.0; charset=utf-8"


def build_app(fleet: Fleet, settings: Serve, token: str | None = None) -> FastAPI:
    """Return the ASGI application; it refreshes `fleet` every `settings.poll_seconds` while it runs."""
    counters = Counters()
    predictor = Predictor(fleet, settings, counters)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(fleet.refresh)
        watch = asyncio.create_task(_watch(fleet, settings.poll_seconds))
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        predictor.close()

    # The page /docs loads nothing from elsewhere; /redoc would only repeat it.
    app: FastAPI = FastAPIOffline(
        redoc_url=None, title="pfmsmt", version=pfmsmt.__version__, lifespan=life,
        summary="Personalised multi-scenario multi-task recommendation: every scenario's champion.",
    )  # fmt: skip
    app.add_middleware(FailureGuard)
    if token:
        app.add_middleware(TokenGuard, token=token)
    _add_predictions(app, predictor)
    _add_examples(app, fleet, predictor)
    _add_views(app, fleet, settings, counters, token)
    _add_handlers(app)
    return app


async def _watch(fleet: Fleet, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(fleet.refresh)
        except Exception as error:
            _LOG.error("looking at the registry failed with %s", type(error).__name__)


def _add_predictions(app: FastAPI, predictor: Predictor) -> None:
    @app.post(
        "/v1/scenarios/{scenario}/predict", tags=["predictions"], response_model=Prediction,
        openapi_extra=REQUEST_BODY, responses=error_responses(400, 401, 404, 408, 413, 415, 422, 429, 503, 504),
    )  # fmt: skip
    async def predict(
        request: Request,
        scenario: _ScenarioPath,
        explain: Annotated[Literal["gates"] | None, Query(description="gates: also the gates' weights.")] = None,
        x_request_key: Annotated[
            str | None, Header(description="Whose request this is; decides who answers where a challenger has a share.")
        ] = None,
    ) -> Response:
        """Predict every row's probabilities.

        The answer names the model version, and is Arrow if the request is.
        """
        return await predictor.answer(scenario, request, explain == "gates")


def _add_examples(app: FastAPI, fleet: Fleet, predictor: Predictor) -> None:
    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> RedirectResponse:
        """Lead to the page that describes the requests."""
        return RedirectResponse(f"{request.scope.get('root_path', '').rstrip('/')}/docs")

    @app.get(
        "/v1/scenarios/{scenario}/example", tags=["models"], response_model=ExampleBody,
        responses=error_responses(401, 404, 503),
    )  # fmt: skip
    async def example(scenario: _ScenarioPath) -> dict[str, Any]:
        """Return a made-up request, which the scenario's model answers as it stands."""
        return example_body(predictor.champion(scenario).schema)

    describe = app.openapi

    def described() -> dict[str, Any]:
        """Return the document with the examples of the models that serve now."""
        scorers = {name: fleet.scorer(name) for name in fleet.scenarios}
        return with_examples(describe(), {name: scorer.schema for name, scorer in scorers.items() if scorer})

    app.openapi = described  # type: ignore[method-assign]


def _add_views(app: FastAPI, fleet: Fleet, settings: Serve, counters: Counters, token: str | None) -> None:
    guard = TokenGuard(app, token) if token else None

    @app.get("/v1/scenarios", tags=["models"], response_model=list[Scenario], responses=error_responses(401))
    async def scenarios() -> list[dict[str, Any]]:
        """List scenarios, the columns that requests need, and the versions in service."""
        return [_scenario(fleet, name, settings.optional_columns) for name in fleet.scenarios]

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get(
        "/readyz", tags=["operation"], response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Some scenario has no model in service"}},
    )  # fmt: skip
    async def readyz(request: Request) -> JSONResponse:
        """Say whether every scenario has a model in service.

        `stale`: one is not the version that its alias wants. Where the server has a token, the faults' texts are for
        those who send it.
        """
        found = readiness(fleet)
        if guard and not guard.passes(request.scope):
            found = found.model_copy(update={"faults": []})
        return JSONResponse(found.model_dump(), 200 if found.ready else 503)

    @app.get("/metrics", tags=["operation"], responses={200: {"content": {"text/plain": {}}}, **error_responses(401)})
    async def metrics() -> Response:
        """Return the counters in Prometheus' text form."""
        return Response(counters.text(fleet), headers={"Content-Type": _TEXT})


def readiness(fleet: Fleet) -> Readiness:
    """Say whether all scenarios are served, and list every fault."""
    deployments = fleet.deployments()
    champions = [deployment for (_, alias), deployment in deployments.items() if alias == CHAMPION]
    texts = [
        f"{scenario}: {alias} version {deployment.wanted} is not served: {deployment.fault}"
        for (scenario, alias), deployment in deployments.items()
        if deployment.fault
    ]
    texts += [
        f"{scenario}: challenger version {deployment.wanted} gets no requests: {deployment.unfit}"
        for (scenario, _), deployment in deployments.items()
        if deployment.unfit
    ]
    if fleet.registry_fault:
        texts.append(f"the registry cannot be read: {fleet.registry_fault}")
    ready = bool(champions) and all(deployment.scorer for deployment in champions)
    return Readiness(ready=ready, stale=bool(texts), faults=texts)


def _scenario(fleet: Fleet, name: str, optional: tuple[str, ...]) -> dict[str, Any]:
    own = {alias: found for (scenario, alias), found in fleet.deployments().items() if scenario == name}
    scorer = fleet.scorer(name)
    schema = scorer.schema if scorer else None
    return {
        "scenario": name,
        "tasks": list(scorer.tasks) if scorer else [],
        "categorical": [field.name for field in schema.categorical] if schema else [],
        "numerical": [field.name for field in schema.numerical] if schema else [],
        "optional": sorted(optional_columns(schema, optional)) if schema else [],
        "models": {
            alias: {
                "version": found.scorer.version if found.scorer else None, "wanted": found.wanted,
                "fault": found.fault or found.unfit,
            }
            for alias, found in own.items()
        },
    }  # fmt: skip


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return refusal.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        return JSONResponse({"detail": f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def unanswered(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
