"""The training loop: steps, validations, checkpoints, and a log of both."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from model.errors import CheckpointError, LossNotFinite, TrainingStopped
from model.network import UNet
from training import checkpoint
from training.augmentation import Sampler, Tiles
from training.distributed import World
from training.dropout import TileDropout
from training.folder import RunFolder
from training.interruption import Signals, memory_errors_explained
from training.loss import weighted_cross_entropy
from training.optimisation import average_decay, build_optimiser, learning_rate
from training.settings import FitSettings
from training.tensorboard import follow

LOG_EVERY = 50
"""Steps whose losses are averaged to one line of the log."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Main score of the network, as it stands, on the validation images."""

    score: str
    """Name of the main score."""
    value: float
    threshold: float | None
    """The decision threshold of this score; with more than two classes there is none."""
    rule: dict[str, Any] | None = None
    """How objects were told apart; None where none were annotated one by one."""


Validate = Callable[[nn.Module], Validation]


@dataclass(slots=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    best: dict[str, Any] | None = None
    """The best validation so far, of equal ones the last: its step and what `Validation` holds."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last line of the log."""
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a run the same run when it is resumed."""

    manifest: str
    """The manifest's draft, as JSON."""
    plan: dict[str, Any]
    source: dict[str, Any]
    """What reads and splits the data again."""
    data_sha256: str


class Loop:
    """One run: a network, its optimiser, its tiles and its progress."""

    def __init__(
        self,
        network: UNet,
        sampler: Sampler,
        validate: Validate,
        identity: Identity,
        settings: FitSettings,
        world: World | None = None,
    ) -> None:
        self.network = network
        self.sampler = sampler
        self.validate = validate
        self.identity = identity
        self.settings = settings
        self.world = world or World()
        self.folder = RunFolder(settings.out)
        self.device = sampler.device
        self.plan = sampler.plan
        self.places = self.world.places(self.plan.batch)
        self.dropout = TileDropout(network.dropout.p)
        network.dropout = self.dropout  # type: ignore[assignment]  # the same rule, drawn by tile
        decay = average_decay(self.plan.steps)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch gives no types
        self.averaged = AveragedModel(network, multi_avg_fn=average)
        self.optimiser = build_optimiser(network, settings)
        self.progress = Progress()
        self._tell: Callable[[dict[str, Any]], None] = lambda _: None
        self._parallel: nn.Module = (
            DistributedDataParallel(network) if self.world.size > 1 else network
        )

    def run(self) -> Progress:
        """Train to the last step.

        Raises:
            LossNotFinite: if the loss or its gradient is infinite or not a number.
            OutOfMemory: if a step or a validation does not fit the memory.
            CheckpointError: if a checkpoint cannot be written.
            TrainingStopped: if a signal asks to stop; the run can be resumed.
        """
        if self.progress.step == 0 and self.world.leads:
            self._save()  # a kill at any step leaves something to resume from
        began = time.perf_counter()
        with (
            memory_errors_explained(),
            Signals() as signals,
            self._followed(),
            self._tiles_ahead() as tiles,
            self._bar() as bar,
        ):
            while self.progress.step < self.plan.steps:
                self.progress.losses.append(self._step(next(tiles)))
                self.progress.step += 1
                bar.update()
                bar.set_postfix(self._shown(), refresh=False)
                if self._is_due(LOG_EVERY):
                    self._log_losses(time.perf_counter() - began)
                    began = time.perf_counter()
                if self._is_due(self.settings.validate_every):
                    self._validate()
                    began = time.perf_counter()
                if self.world.any(signals.came):
                    self._stop()
        return self.progress

    def resume(self) -> None:
        """Go on from the folder's last checkpoint.

        Raises:
            CheckpointError: if there is none, or it is of another run.
        """
        state = checkpoint.load(self.folder.last, self.device)
        self._require_same_run(state)
        self.network.load_state_dict(state["training"])
        self.averaged.module.load_state_dict(state["model"])
        self.averaged.n_averaged.fill_(state["averaged_steps"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])

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
        if state["data_sha256"] != self.identity.data_sha256:
            raise CheckpointError(f"{self.folder.last} was trained on other data.")

    def _is_due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.plan.steps

    @contextlib.contextmanager
    def _tiles_ahead(self) -> Iterator[Iterator[Tiles]]:
        """Draw the tiles of the next step while this one is computed."""
        with ThreadPoolExecutor(1) as pool:

            def draw(step: int) -> Future[Tiles]:
                return pool.submit(self.sampler.draw, step, self.places)

            def tiles() -> Iterator[Tiles]:
                coming = draw(self.progress.step)
                for step in range(self.progress.step + 1, self.plan.steps):
                    ready, coming = coming.result(), draw(step)
                    yield ready
                yield coming.result()

            yield tiles()

    def _step(self, tiles: Tiles) -> float:
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.progress.step, self.plan.steps, self.settings)
        value = self._descend(tiles)
        self.averaged.update_parameters(self.network)
        return value

    def _descend(self, tiles: Tiles) -> float:
        count = len(self.places)
        # On a CPU a batch is no faster. Tile by tile, the gradients of two processes with one tile
        # each are rounded as those of one process with two.
        at_once = 1 if self.device.type == "cpu" else count
        total_weight = self.world.total(torch.stack([one.sum() for one in tiles.weights]).sum())
        self.optimiser.zero_grad()
        loss = torch.zeros((), device=self.device)
        for start in range(0, count, at_once):
            loss += self._add_gradients(tiles, slice(start, start + at_once), total_weight)
        value = self._finite("loss", self.world.total(loss))
        parameters = self.network.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        self._finite("norm of the gradient", norm)
        self.optimiser.step()
        return value

    def _add_gradients(self, tiles: Tiles, part: slice, total_weight: Tensor) -> Tensor:
        self.dropout.begin(self.settings.seed, self.progress.step, self.places[part])
        bfloat16 = self.settings.compute == "bfloat16"
        with self._exchanging(part.stop == len(self.places)):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                pixels = tiles.pixels[part].contiguous(memory_format=torch.channels_last)
                logits = self._parallel(pixels)
            labels, weights = tiles.labels[part], tiles.weights[part]
            loss = weighted_cross_entropy(logits, labels, weights, total_weight)
            # Gradients are averaged over processes, losses are added.
            (loss * self.world.size).backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss.detach()

    def _exchanging(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Let processes exchange gradients after the last part of a batch alone."""
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._parallel.no_sync()

    def _finite(self, name: str, scalar: Tensor) -> float:
        value = float(scalar.detach())
        if not math.isfinite(value):
            raise LossNotFinite(
                f"The {name} is {value} at step {self.progress.step}; the checkpoint of the last "
                "validation is whole. Look for broken images, or take a lower "
                f"--learning-rate (now {self.settings.learning_rate})."
            )
        return value

    def _validate(self) -> None:
        if self.world.leads:
            validation = asdict(self.validate(self.averaged.module))
            entry = {"kind": "validation", "step": self.progress.step, **validation}
            self._note(entry)
            best = self.progress.best
            if best is None or entry["value"] >= best["value"]:
                self.progress.best = entry
                checkpoint.save(self.folder.best, self._weights(entry))
            self._save()
        self.world.wait()

    def _save(self) -> None:
        checkpoint.save(self.folder.last, self._weights(self.progress.best) | self._state())
        self._write_log()

    def _weights(self, validation: dict[str, Any] | None) -> checkpoint.State:
        return {
            "model": self.averaged.module.state_dict(),
            "manifest": self.identity.manifest,
            "plan": self.identity.plan,
            "source": self.identity.source,
            "validation": validation,
        }

    def _state(self) -> checkpoint.State:
        return {
            "training": self.network.state_dict(),
            "averaged_steps": int(self.averaged.n_averaged),
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
            "settings": self._fixed_settings(),
            "data_sha256": self.identity.data_sha256,
        }

    def _fixed_settings(self) -> dict[str, Any]:
        """Give the settings and the plan that one run cannot change on its way."""
        free = {"data", "out", "resume", "plan_only", "tensorboard", "cross_validate"}
        settings = self.settings.model_dump(mode="json", exclude=free)
        plan = self.plan.model_dump(mode="json", exclude={"reasons"})
        return settings | {f"planned {name}": value for name, value in plan.items()}

    def _log_losses(self, seconds: float) -> None:
        losses = self.progress.losses
        self._note(
            {
                "kind": "training",
                "step": self.progress.step,
                "loss": sum(losses) / len(losses),
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "steps_per_second": len(losses) / seconds,
            }
        )
        self.progress.losses = []
        self._write_log()

    def _note(self, entry: dict[str, Any]) -> None:
        self.progress.log.append(entry)
        self._tell(entry)

    @contextlib.contextmanager
    def _followed(self) -> Iterator[None]:
        """Let TensorBoard read along, if that was asked for."""
        if not (self.settings.tensorboard and self.world.leads):
            yield
            return
        with follow(self.folder.tensorboard, self.progress.step) as self._tell:
            yield

    def _write_log(self) -> None:
        if self.world.leads:
            lines = (json.dumps(entry) + "\n" for entry in self.progress.log)
            self.folder.log.write_text("".join(lines))

    def _bar(self) -> "tqdm[Any]":
        return tqdm(
            total=self.plan.steps,
            initial=self.progress.step,
            unit="step",
            dynamic_ncols=True,
            disable=not self.world.leads,
        )

    def _shown(self) -> dict[str, str]:
        shown = {"loss": f"{self.progress.losses[-1]:.4f}"} if self.progress.losses else {}
        if best := self.progress.best:
            shown[f"best {best['score']}"] = f"{best['value']:.4f}"
        return shown

    def _stop(self) -> None:
        if self.world.leads:
            self._save()
        raise TrainingStopped(
            f"Stopped at step {self.progress.step} of {self.plan.steps}; "
            "the same command with --resume goes on."
        )
