"""The steps of the optimiser: from a batch of tiles to parameters that have moved."""

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.errors import LossNotFinite
from model.network import UNet
from training.plan import Plan
from training.run.arithmetic import arithmetic, layout
from training.run.distributed import World
from training.run.dropout import TileDropout
from training.run.loss import weighted_cross_entropy
from training.run.optimisation import average_decay, averaged_every, build_optimiser, learning_rate
from training.settings import FitSettings
from training.tiles.augmentation import Tiles


class Descent:
    """A network, the running mean of its parameters, and the optimiser that moves them."""

    def __init__(
        self,
        network: UNet,
        settings: FitSettings,
        plan: Plan,
        places: range,
        device: torch.device,
        world: World,
    ) -> None:
        """Take a network on its device.

        Args:
            network: Its dropout is replaced by one that is drawn by tile.
            settings: Optimiser, warm-up, seed.
            plan: Steps, learning rate, arithmetic of the convolutions.
            places: This process's places in a step's batch.
            device: Where the network is.
            world: The processes that share a batch.
        """
        self.network = network
        self.settings = settings
        self.plan = plan
        self.places = places
        self.device = device
        self.world = world
        self.dropout = TileDropout(network.dropout.p, device)
        network.dropout = self.dropout  # type: ignore[assignment]  # the same rule, drawn by tile
        average = get_ema_multi_avg_fn(average_decay(plan.steps))  # type: ignore[no-untyped-call]  # torch gives no types
        self.averaged = AveragedModel(network, multi_avg_fn=average)
        self.optimiser = build_optimiser(network, settings)
        self._parallel: nn.Module = DistributedDataParallel(network) if world.size > 1 else network

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def step(self, step: int, tiles: Tiles) -> float:
        """Move the parameters once; give the loss before, of the whole batch.

        Raises:
            LossNotFinite: if the loss or its gradient is infinite or not a number.
        """
        self.network.train()
        rate = learning_rate(
            step, self.plan.steps, self.plan.learning_rate, self.settings.warmup_steps
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss = self._finite(step, "loss", self.world.total(self._add_gradients(step, tiles)))
        self._clip(step)
        self.optimiser.step()
        if (step + 1) % averaged_every(self.plan.steps) == 0:
            self.averaged.update_parameters(self.network)
        return loss

    def state(self) -> dict[str, Any]:
        """Give what a resumed run goes on from, beside the averaged parameters."""
        return {
            "training": self.network.state_dict(),
            "averaged_steps": int(self.averaged.n_averaged),
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(state["training"])
        self.averaged.module.load_state_dict(state["model"])
        self.averaged.n_averaged.fill_(state["averaged_steps"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _add_gradients(self, step: int, tiles: Tiles) -> Tensor:
        """Add up the gradients of a batch; give its loss."""
        count = len(self.places)
        # On a CPU a batch is no faster. Tile by tile, the gradients of two processes with one tile
        # each are rounded as those of one process with two.
        at_once = 1 if self.device.type == "cpu" else count
        total_weight = self.world.total(torch.stack([one.sum() for one in tiles.weights]).sum())
        loss = torch.zeros((), device=self.device)
        for start in range(0, count, at_once):
            part = slice(start, start + at_once)
            self.dropout.begin(self.settings.seed, step, self.places[part])
            with self._exchanging(part.stop == count):
                loss += self._add_part(tiles, part, total_weight)
        return loss

    def _add_part(self, tiles: Tiles, part: slice, total_weight: Tensor) -> Tensor:
        order = layout(self.device, self.plan.compute)
        with arithmetic(self.device, self.plan.compute):
            pixels = tiles.pixels[part].contiguous(memory_format=order)
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

    def _clip(self, step: int) -> None:
        """Scale the gradient down where it is too long; touch it at no other time."""
        parameters = list(self.network.parameters())
        norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        if self._finite(step, "norm of the gradient", norm) > self.settings.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)

    def _finite(self, step: int, name: str, scalar: Tensor) -> float:
        value = float(scalar.detach())
        if not math.isfinite(value):
            raise LossNotFinite(
                f"The {name} is {value} at step {step}; the checkpoint of the last validation is "
                "whole. Look for broken images, or take a lower "
                f"--learning-rate (now {self.plan.learning_rate})."
            )
        return value
