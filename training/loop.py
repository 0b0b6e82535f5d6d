"""The training loop: steps, validations, checkpoints, and a log of both."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.errors import CheckpointError, LossNotFinite
from model.geometry import Geometry
from training import checkpoint
from training.augmentation import TrainingImage, draw_batch
from training.loss import weighted_cross_entropy
from training.settings import FitSettings

MOMENTUM = 0.99
"""Source: Ronneberger et al. 2015, section 3."""
LOG_EVERY = 50
"""Steps whose losses are averaged to one line of the log."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores of the network, as it stands, on the validation images."""

    v_rand: float
    v_info: float
    threshold: float | None
    """The decision threshold of these scores; with more than two classes there is none."""


Validate = Callable[[], Validation]


@dataclass(slots=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    best: dict[str, Any] | None = None
    """The best validation so far: step, v_rand, v_info, threshold."""
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """Checkpoint of the best validation."""
        return self.path / "best.pt"

    @property
    def model(self) -> Path:
        """The exported artefact."""
        return self.path / "model.onnx"

    @property
    def log(self) -> Path:
        """One JSON object a line: losses and validations."""
        return self.path / "log.jsonl"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"


class Loop:
    """One run: a network, its optimiser, its sources of chance and its progress."""

    def __init__(
        self,
        network: nn.Module,
        images: Sequence[TrainingImage],
        validate: Validate,
        manifest: str,
        settings: FitSettings,
    ) -> None:
        self.network = network
        self.images = images
        self.validate = validate
        self.manifest = manifest
        self.settings = settings
        self.folder = RunFolder(settings.out)
        self.device = images[0].pixels.device
        self.optimiser = build_optimiser(network, settings)
        self.random = torch.Generator(self.device).manual_seed(settings.seed)
        self.progress = Progress()

    def run(self) -> Progress:
        """Train to the last step.

        Raises:
            LossNotFinite: if the loss or its gradient is infinite or not a number.
        """
        losses: list[float] = []
        seconds = 0.0
        total = self.settings.steps
        with tqdm(total=total, initial=self.progress.step, unit="step", dynamic_ncols=True) as bar:
            while self.progress.step < total:
                began = time.perf_counter()
                losses.append(self._step())
                seconds += time.perf_counter() - began
                self.progress.step += 1
                bar.update()
                bar.set_postfix({"loss": f"{losses[-1]:.4f}"} | self._best_so_far(), refresh=False)
                if self._is_due(LOG_EVERY):
                    self._log_losses(losses, seconds)
                    losses, seconds = [], 0.0
                if self._is_due(self.settings.validate_every):
                    self._validate()
        return self.progress

    def resume(self) -> None:
        """Go on from the folder's last checkpoint.

        Raises:
            CheckpointError: if there is none, or it is of another run.
        """
        state = checkpoint.load(self.folder.last, self.device)
        self._require_same_run(state)
        self.network.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        self.random.set_state(state["random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["dropout"].cpu(), self.device)
        else:
            torch.set_rng_state(state["dropout"].cpu())

    def _require_same_run(self, state: checkpoint.State) -> None:
        wanted, found = self._fixed_settings(), state.get("settings", {})
        changed = [
            f"{name} {found.get(name)}, now {value}"
            for name, value in wanted.items()
            if found.get(name) != value
        ]
        if changed:
            raise CheckpointError(
                f"{self.folder.last} was written with other settings: {'; '.join(changed)}."
            )
        if _data_digest(state["manifest"]) != _data_digest(self.manifest):
            raise CheckpointError(f"{self.folder.last} was trained on other data.")

    def _is_due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.settings.steps

    def _step(self) -> float:
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.progress.step, self.settings)
        batch = draw_batch(
            self.images,
            self.settings.batch,
            self.settings.tile_edge,
            Geometry(self.settings.depth),
            self.random,
        )
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(batch.tiles.contiguous(memory_format=torch.channels_last))
        loss = weighted_cross_entropy(logits, batch.labels, batch.weights)
        value = self._finite("loss", loss)
        self._descend(loss)
        return value

    def _descend(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        parameters = self.network.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        self._finite("norm of the gradient", norm)
        self.optimiser.step()

    def _finite(self, name: str, scalar: Tensor) -> float:
        value = float(scalar.detach())
        if not math.isfinite(value):
            raise LossNotFinite(
                f"The {name} is {value} at step {self.progress.step}. Start again with a lower "
                f"--learning-rate (now {self.settings.learning_rate})."
            )
        return value

    def _validate(self) -> None:
        entry = {"kind": "validation", "step": self.progress.step, **asdict(self.validate())}
        self.progress.log.append(entry)
        best = self.progress.best
        if best is None or entry["v_rand"] > best["v_rand"]:
            self.progress.best = entry
            checkpoint.save(self.folder.best, self._weights(entry))
        checkpoint.save(self.folder.last, self._weights(entry) | self._state())
        self._write_log()

    def _weights(self, validation: dict[str, Any]) -> checkpoint.State:
        return {
            "model": self.network.state_dict(),
            "manifest": self.manifest,
            "validation": validation,
        }

    def _state(self) -> checkpoint.State:
        return {
            "settings": self._fixed_settings(),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
            "random": self.random.get_state(),
            "dropout": (
                torch.cuda.get_rng_state(self.device)
                if self.device.type == "cuda"
                else torch.get_rng_state()
            ),
        }

    def _fixed_settings(self) -> dict[str, Any]:
        """Give the settings that one run cannot change on its way."""
        return self.settings.model_dump(mode="json", exclude={"data", "out", "resume"})

    def _log_losses(self, losses: Sequence[float], seconds: float) -> None:
        self.progress.log.append(
            {
                "kind": "training",
                "step": self.progress.step,
                "loss": sum(losses) / len(losses),
                "learning_rate": learning_rate(self.progress.step - 1, self.settings),
                "steps_per_second": len(losses) / seconds,
            }
        )
        self._write_log()

    def _write_log(self) -> None:
        lines = (json.dumps(entry) for entry in self.progress.log)
        self.folder.log.write_text("\n".join(lines) + "\n")

    def _best_so_far(self) -> dict[str, str]:
        return {"v_rand": f"{self.progress.best['v_rand']:.4f}"} if self.progress.best else {}


def build_optimiser(network: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """AdamW, or the paper's stochastic gradient descent with high momentum."""
    if settings.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=0.0, momentum=MOMENTUM)
    return torch.optim.AdamW(network.parameters(), lr=0.0)


def learning_rate(step: int, settings: FitSettings) -> float:
    """Rise linearly over the warm-up, then fall along a cosine, to 0 after the last step."""
    warmup = min(settings.warmup_steps, settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(settings.steps - warmup, 1)
    return settings.learning_rate * (1 + math.cos(math.pi * share)) / 2


def _data_digest(manifest: str) -> str:
    return str(json.loads(manifest)["training"]["data_sha256"])
