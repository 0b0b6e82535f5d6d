"""Networks that are trained on a few images of a data set, and scored on others of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model.architecture import Architecture
from model.artefact import Manifest
from model.geometry import Geometry
from model.instances import InstanceRule
from model.network import UNet
from training.data.census import take_census
from training.data.dataset import AnnotatedImage, read_dataset
from training.data.split import split
from training.draft import draft_manifest
from training.evaluate import evaluate
from training.export.parameters import initialise_from
from training.plan import Plan, make_plan
from training.run.arithmetic import laid_out
from training.run.identity import Identity
from training.run.loop import Loop
from training.run.progress import Validation
from training.settings import Compute, FitSettings
from training.tiles.augmentation import Sampler
from training.tiles.store import Store
from training.validation import NetworkModel, settle, spread_over

PLENTY = 1 << 40
"""Free memory, in bytes, so that no plan depends on the machine's."""


@dataclass(frozen=True, slots=True)
class Material:
    """A data set, divided once for all networks."""

    everything: Sequence[AnnotatedImage]
    """All that may be trained on."""
    scored: Sequence[AnnotatedImage]
    manifest: Manifest
    """Of any network that is trained on it."""

    @classmethod
    def read(cls, settings: FitSettings, most_scored: int) -> "Material":
        """Read and divide a data set as `training.fit` does.

        Args:
            settings: Names the data and the network.
            most_scored: Held-out images that networks are scored on, spread over all.

        Raises:
            DatasetError: if the data cannot be read or divided.
        """
        dataset = read_dataset(settings.data)
        everything, held_out = split(dataset, settings.folds, settings.fold)
        plan = make_plan(take_census(everything[:1]), settings, PLENTY)
        manifest = draft_manifest(settings, plan, dataset, (), held_out)
        return cls(everything, list(spread_over(held_out, most_scored)), manifest)

    @property
    def sha256(self) -> str:
        """Digest of the whole data set: names, pixels and labels."""
        return self.manifest.training.data_sha256


def train(settings: FitSettings, store: Store, plan: Plan, architecture: Architecture) -> nn.Module:
    """Train as `training.fit` does, without validations on the way.

    Raises:
        CheckpointError: if the network does not fit the artefact to begin from.
    """
    device = torch.device("cpu")
    torch.manual_seed(settings.seed)
    network = UNet(architecture)
    if settings.init is not None:
        print(initialise_from(network, settings.init))
    sampler = Sampler(store, plan, Geometry(settings.depth), settings.seed, device)
    network = laid_out(network, device, plan.compute)
    loop = Loop(network, sampler, _unscored, Identity("{}", {}, {}, ""), settings)
    loop.run()
    return loop.descent.averaged.module


def _unscored(_: nn.Module) -> Validation:
    return Validation("none", 0.0, None)


def score(
    network: nn.Module, manifest: Manifest, images: Sequence[AnnotatedImage], compute: Compute
) -> dict[str, float]:
    """Score a network at the decision threshold that suits it best, as every other."""
    device = torch.device("cpu")
    found = settle(NetworkModel(network, manifest, device, compute), images)
    rule = None if found.rule is None else InstanceRule.model_validate(found.rule)
    update = {"decision_threshold": found.threshold, "instances": rule}
    settled = NetworkModel(network, manifest.model_copy(update=update), device, compute)
    return {name: value.value for name, value in evaluate(settled, images).scores.items()}
