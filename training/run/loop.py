"""The training loop: steps, validations, checkpoints, and a log of both."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from model.errors import TrainingStopped
from model.network import UNet
from training.run import checkpoint
from training.run.descent import Descent
from training.run.distributed import World
from training.run.folder import RunFolder
from training.run.identity import Identity, fixed_settings, require_same_run
from training.run.interruption import Interrupted, Signals
from training.run.memory import keep_freed_memory
from training.run.progress import Progress, Settled, Validate, Validation
from training.run.tensorboard import follow
from training.run.writing import write
from training.settings import FitSettings
from training.tiles.augmentation import Sampler, Tiles

LOG_EVERY = 50
"""Steps whose losses are averaged to one line of the log."""


class Loop:
    """One run: a network that descends on tiles, its validations and its progress."""

    def __init__(
        self,
        network: UNet,
        sampler: Sampler,
        validate: Validate,
        identity: Identity,
        settings: FitSettings,
        world: World | None = None,
    ) -> None:
        self.sampler = sampler
        self.validate = validate
        self.identity = identity
        self.settings = settings
        self.world = world or World()
        self.folder = RunFolder(settings.out)
        self.steps = sampler.plan.steps
        self.places = self.world.places(sampler.plan.batch)
        self.descent = Descent(
            network,
            settings,
            sampler.plan,
            self.places,
            sampler.device,
            self.world,
        )
        self.progress = Progress()
        self._tell: Callable[[dict[str, Any]], None] = lambda _: None

    def run(self) -> Progress:
        """Train to the last step.

        Raises:
            LossNotFinite: if the loss or its gradient is infinite or not a number.
            CheckpointError: if a checkpoint or the log cannot be written.
            TrainingStopped: if a signal asks to stop, with its number; the run can be resumed.
        """
        if self.progress.step == 0 and self.world.leads:
            self._save()  # a kill at any step leaves something to resume from
        keep_freed_memory()
        seconds, steps = 0.0, 0  # since the last line of the log, in this process
        with (
            Signals() as signals,
            self._followed(),
            self._tiles_ahead() as tiles,
            self._bar() as bar,
        ):
            while True:
                if self._is_due(self.settings.validate_every):
                    self._validate(signals)
                if self.world.any(signals.came):
                    self._stop(signals.first or signal.SIGTERM)  # another process had the signal
                if self.progress.step == self.steps:
                    return self.progress
                began = time.perf_counter()
                loss = self.descent.step(self.progress.step, next(tiles))
                self.progress.losses.append(loss)
                self.progress.step += 1
                bar.update()
                bar.set_postfix(self._shown(loss), refresh=False)
                seconds, steps = seconds + time.perf_counter() - began, steps + 1
                if self._is_due(LOG_EVERY):
                    self._log_losses(steps / seconds)
                    seconds, steps = 0.0, 0

    def resume(self) -> None:
        """Go on from the folder's last checkpoint.

        Raises:
            CheckpointError: if there is none, or it is of another run.
        """
        state = checkpoint.load(self.folder.last, self.sampler.device)
        require_same_run(self.folder.last, state, self._fixed_settings(), self.identity.data_sha256)
        self.descent.load(state)
        self.progress = Progress(**state["progress"])
        self.world.wait()  # the first one may write another before the others have read this

    def _is_due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.steps

    @contextlib.contextmanager
    def _tiles_ahead(self) -> Iterator[Iterator[Tiles]]:
        """Draw the tiles of the next step while this one is computed."""
        with ThreadPoolExecutor(1) as pool:

            def draw(step: int) -> Future[Tiles]:
                return pool.submit(self.sampler.draw, step, self.places)

            def tiles() -> Iterator[Tiles]:
                coming = draw(self.progress.step)
                for step in range(self.progress.step + 1, self.steps):
                    ready, coming = coming.result(), draw(step)
                    yield ready
                yield coming.result()

            yield tiles()

    def _validate(self, signals: Signals) -> None:
        """Validate, if it was not done; a signal ends it, and whoever resumes begins it anew."""
        if self.progress.validated == self.progress.step:
            return
        if self.world.leads:
            self._save()
            with contextlib.suppress(Interrupted):
                with signals.raised():
                    found = self.validate(self.descent.averaged.module)
                self._take(found)
        self.world.wait()

    def _take(self, found: Validation | Settled) -> None:
        """Note what a validation found, and keep the parameters if there were no better ones."""
        self.progress.validated = self.progress.step
        kind = "validation" if isinstance(found, Validation) else "settled"
        entry = {"kind": kind, "step": self.progress.step, **asdict(found)}
        if kind == "validation":
            self._note(entry)
        if self._is_best(entry):
            self.progress.best = entry
            checkpoint.save(self.folder.best, self._weights(entry))
        self._save()

    def _is_best(self, entry: dict[str, Any]) -> bool:
        """Compare it with the best so far; where nothing is measured, the last is the best."""
        best = self.progress.best
        return best is None or "value" not in entry or bool(entry["value"] >= best["value"])

    def _stop(self, number: int) -> None:
        if self.world.leads:
            self._save()
        raise TrainingStopped(
            f"Stopped at step {self.progress.step} of {self.steps}; "
            "the same command with --resume goes on.",
            signal=number,
        )

    def _save(self) -> None:
        checkpoint.save(self.folder.last, self._weights(self.progress.best) | self._state())
        self._write_log()

    def _weights(self, validation: dict[str, Any] | None) -> checkpoint.State:
        return {
            "model": self.descent.averaged.module.state_dict(),
            "manifest": self.identity.manifest,
            "plan": self.identity.plan,
            "source": self.identity.source,
            "validation": validation,
        }

    def _state(self) -> checkpoint.State:
        return self.descent.state() | {
            "progress": asdict(self.progress),
            "settings": self._fixed_settings(),
            "data_sha256": self.identity.data_sha256,
        }

    def _fixed_settings(self) -> dict[str, Any]:
        return fixed_settings(self.settings, self.sampler.plan)

    def _log_losses(self, steps_per_second: float) -> None:
        losses = self.progress.losses
        self._note(
            {
                "kind": "training",
                "step": self.progress.step,
                "loss": sum(losses) / len(losses),
                "learning_rate": self.descent.learning_rate,
                "steps_per_second": steps_per_second,
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
            write(self.folder.log, "".join(lines).encode())

    def _bar(self) -> "tqdm[Any]":
        return tqdm(
            total=self.steps,
            initial=self.progress.step,
            unit="step",
            dynamic_ncols=True,
            disable=not self.world.leads,
        )

    def _shown(self, loss: float) -> dict[str, str]:
        shown = {"loss": f"{loss:.4f}"}
        best = self.progress.best
        if best and "value" in best:
            shown[f"best {best['score']}"] = f"{best['value']:.4f}"
        return shown
