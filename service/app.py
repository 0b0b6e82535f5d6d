"""The application: settings and models in, an ASGI application out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata

import anyio
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service import budget, errors, routes
from service.admission import Admission
from service.decoding.pool import Decoders
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.models.models import Models
from service.openapi import DESCRIPTION
from service.request_scope import RequestScope
from service.settings import Settings
from service.slots import Slots
from service.state import State


def create_app(
    settings: Settings | None = None,
    models: Models | None = None,
    decoders: Decoders | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        settings: None reads the environment.
        models: None opens those that the settings name.
        decoders: They end with the application; None starts some with it.

    Raises:
        UNetError: if a model cannot be served as the settings ask.
    """
    settings = budget.filled(settings or Settings())
    models = models or Models.open(settings)
    lifecycle = Lifecycle()
    metrics = Metrics()
    models.engine.observe = metrics.observe_turn
    models.catalogue.observe = metrics.count_change

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = decoders or Decoders(settings.decode_timeout_s)
        admission = Admission(
            settings.max_pending_requests, settings.max_pending_pixels, models.engine.forecast
        )
        slots = Slots()
        metrics.watch(models, admission, pool, slots)
        app.state.service = State(settings, models, admission, lifecycle, metrics, pool, slots)
        pause = partial(asyncio.sleep, settings.reload_every_s)
        watching = asyncio.create_task(models.watch(pause)) if settings.reload_every_s else None
        try:
            pool.start()
            models.start()
            yield
        finally:
            if watching:
                watching.cancel()
            await pool.stop()
            await anyio.to_thread.run_sync(models.stop)

    app = FastAPIOffline(  # its page at /docs loads nothing from elsewhere
        title="U-Net service",
        version=metadata.version("unet-service"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.lifecycle = lifecycle
    app.include_router(routes.router)
    errors.install(app)
    app.add_middleware(RequestScope, lifecycle=lifecycle, metrics=metrics)
    return app
