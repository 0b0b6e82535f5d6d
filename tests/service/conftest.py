"""What tests of the service share: a client of a service over a tiny model."""

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from starlette.exceptions import StarletteDeprecationWarning

from model.architecture import Architecture
from model.artefact import Artefact, Manifest, pack
from model.runtime import Runtime
from service.app import create_app
from service.engine import Engine
from service.logs import JsonLines
from service.models.catalogue import Catalogue
from service.models.loaded import Loaded
from service.models.models import Models
from service.models.opening import Opening
from service.models.reload import Reload
from service.settings import Settings
from tests.conftest import graph_of, manifest_of, square

with warnings.catch_warnings():  # it would rather have httpx2, which is httpx under another name
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient as TestClient

TINY = Architecture(base_channels=4, num_classes=3)
TILE_EDGE = 444
MAX_UPLOAD_BYTES = 1 << 20
MAX_IMAGE_PIXELS = 500_000


def noise(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    """Give pixels from which the tiny model makes every class."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def png(pixels: NDArray[Any], **options: Any) -> bytes:
    """Write (H, W) or (H, W, samples) as PNG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    """Write (H, W) as TIFF."""
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="minisblack", **options)
    return buffer.getvalue()


def write_artefact(
    folder: Path,
    architecture: Architecture = TINY,
    name: str = "tiny",
    file: str = "",
    **changes: Any,
) -> Path:
    """Write an artefact of random weights; its manifest may be changed."""
    path = folder / (file or f"{name}.onnx")
    manifest = manifest_of(architecture, name=name, **changes)
    path.write_bytes(pack(graph_of(architecture), manifest))
    return path


def settings_of(model_dir: Path, **changes: Any) -> Settings:
    """Give settings that keep tests fast."""
    fields: dict[str, Any] = {
        "model_dir": model_dir,
        "device": "cpu",
        "threads": 1,
        "tile_edge": TILE_EDGE,
        "max_upload_bytes": MAX_UPLOAD_BYTES,
        "max_image_pixels": MAX_IMAGE_PIXELS,
    }
    return Settings(**(fields | changes))


class OpensOne(Opening):
    """Opens one model, from whatever file."""

    def __init__(self, model: Loaded) -> None:
        self._model = model

    def verify(self, path: Path) -> Artefact:
        return self._model.artefact

    def expected_bytes(self, manifest: Manifest) -> int:
        return 0

    def open(self, artefact: Artefact) -> Loaded:
        return self._model


def models_of(runtime: Runtime) -> Models:
    """Serve one model, `tiny`, whatever runs it."""
    return serve_one(Loaded([runtime], square(TILE_EDGE)), Engine())


def serve_one(model: Loaded, engine: Engine) -> Models:
    """Serve one model, opened already."""
    catalogue = Catalogue()
    reload = Reload(model.artefact.path.parent, catalogue, OpensOne(model))
    reload.verify_all()
    reload.open_others()
    return Models(catalogue, reload, engine)


@contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """Run a service within this process until the block ends, ready from its start."""
    with TestClient(create_app(settings)) as client:
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            if time.monotonic() > deadline:
                pytest.fail("the service was not ready within a minute")
            time.sleep(0.01)
        yield client


class Log(logging.StreamHandler[StringIO]):
    """What the service logs."""

    def __init__(self) -> None:
        super().__init__(StringIO())
        self.setFormatter(JsonLines())

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    """Give what the service logs from now on."""
    log = Log()
    logging.getLogger("service").addHandler(log)
    with caplog.at_level(logging.INFO, "service"):
        yield log
    logging.getLogger("service").removeHandler(log)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of one grey model of three classes, `tiny`."""
    folder = tmp_path_factory.mktemp("models")
    write_artefact(folder)
    return folder


@pytest.fixture(scope="session")
def runtime(model_dir: Path) -> Runtime:
    """Open the model that the client's service runs."""
    return Runtime(model_dir / "tiny.onnx", "cpu", 1)


@pytest.fixture(scope="session")
def settings(model_dir: Path) -> Settings:
    """Give the settings of the client's service."""
    return settings_of(model_dir)


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """Give a client of a service that is ready."""
    with serving(settings) as client:
        yield client
