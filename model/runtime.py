"""One artefact, opened on one device, and honest about which."""

import hashlib
import logging
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.artefact import (
    Artefact,
    Manifest,
    read_bytes,
    read_manifest,
    verify_digest,
    verify_ports,
)
from model.devices import places_of
from model.errors import DeviceError, InferenceFailed
from model.sessions import DecidingSession, Provider, Session
from model.sessions.cpu import open_on_cpu
from model.sessions.cuda import DEFAULT, CudaOptions, open_on_cuda
from model.sessions.onnx import OnnxSession

log = logging.getLogger(__name__)


class Runtime:
    """A model that is known to run where it says it runs."""

    def __init__(
        self,
        path: Path,
        device: str = "auto",
        threads: int = 0,
        cuda: CudaOptions = DEFAULT,
        artefact: Artefact | None = None,
    ) -> None:
        """Open and verify an artefact.

        Args:
            path: The `.onnx` file.
            device: `cuda`, or `cuda:` and a number, and `openvino` must be had or it is an error;
                `cpu` is ONNX Runtime on the CPU; `auto` takes the first GPU where it can be had,
                else what `open_on_cpu` chooses, unless a GPU was asked for by other options.
            threads: CPU threads of one inference; 0 is one for each core that the process has.
            cuda: How a GPU is used.
            artefact: What was verified before, so that only a file that differs is verified anew.

        Raises:
            ArtefactError: if the file cannot be served; the subclass says why.
            DeviceError: if `cuda` or `openvino` was asked for and would not run the model.
            ValueError: if the device is none, or several.
        """
        (place,) = places_of(device)
        refuse_two_runtimes()
        data = read_bytes(path)
        is_known = artefact is not None and artefact.sha256 == hashlib.sha256(data).hexdigest()
        self.artefact = artefact if artefact and is_known else _verified(path, data)
        self._session: Session = _open(self.artefact, data, place, threads, cuda)

    @property
    def manifest(self) -> Manifest:
        """What the artefact says about itself."""
        return self.artefact.manifest

    @property
    def provider(self) -> Provider:
        """What runs the model, as the session itself says."""
        return self._session.provider

    @property
    def device(self) -> str:
        """The device that runs the model, as the session itself says."""
        return self._session.device

    @property
    def precision(self) -> str:
        """What it computes in, whatever its parameters are stored as."""
        return self._session.precision

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W).

        Raises:
            InferenceFailed: if the session does.
        """
        try:
            return self._session.run(tiles)
        except Exception as exc:  # no session documents errors of its own
            raise _failure(tiles) from exc

    def labels(self, tiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Give the label maps (N, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W).

        They are those that the manifest decides for from the logits; a session that decides where
        the logits are need not copy them.

        Raises:
            InferenceFailed: if the session does.
        """
        if not isinstance(self._session, DecidingSession):
            return np.stack([self.manifest.decide(logits) for logits in self.run(tiles)])
        try:
            return self._session.labels(tiles)
        except Exception as exc:  # no session documents errors of its own
            raise _failure(tiles) from exc

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        """Run empty tiles of one shape, so that no request pays for the first run of it."""
        channels = self.manifest.architecture.in_channels
        self.labels(np.zeros((batch, channels, *tile_shape), np.float32))


def refuse_two_runtimes() -> None:
    """Refuse an environment in which two distributions share the folder `onnxruntime`.

    Raises:
        DeviceError: if both are installed.
    """
    if {"onnxruntime", "onnxruntime-gpu"} <= _distributions():
        raise DeviceError(
            "Both onnxruntime and onnxruntime-gpu are installed; they overwrite each other. "
            "Make a fresh environment with one of the extras `cpu` and `gpu`."
        )


def verified(path: Path) -> Artefact:
    """Read a file, and find it whole, without opening it on a device.

    Raises:
        ArtefactError: if it cannot be served; the subclass says why.
    """
    return _verified(path, read_bytes(path))


def _verified(path: Path, data: bytes) -> Artefact:
    """Read a file, and find it whole, before anything is prepared."""
    reader = OnnxSession(path, data, threads=1, optimise=False)
    manifest = read_manifest(path, reader.metadata)
    verify_ports(path, manifest, reader.inputs, reader.outputs)
    return verify_digest(path, data, manifest, reader.metadata)


def _open(artefact: Artefact, data: bytes, place: str, threads: int, cuda: CudaOptions) -> Session:
    for_gpus = cuda.tensorrt_cache is not None or cuda.precision != "fp32"
    if place in ("cpu", "openvino"):
        if for_gpus:
            raise DeviceError(f"Precision and TensorRT are chosen for GPUs, and none by {place}.")
        return open_on_cpu(artefact, data, threads, place)
    _, _, number = place.partition(":")
    try:
        return open_on_cuda(artefact.path, data, artefact.manifest, int(number or 0), cuda)
    except DeviceError as exc:
        if for_gpus or place != "auto":
            raise
        log.info("running on the CPU: %s", exc)
        return open_on_cpu(artefact, data, threads)


def _failure(tiles: NDArray[np.float32]) -> InferenceFailed:
    shape = "×".join(map(str, tiles.shape))
    return InferenceFailed(f"The runtime failed on a batch of {shape}.")


def _distributions() -> set[str]:
    return {
        name
        for name in ("onnxruntime", "onnxruntime-gpu")
        if any(metadata.distributions(name=name, path=sys.path))
    }
