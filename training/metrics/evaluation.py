"""The scores of an artefact on annotated images, with their intervals."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from model.artefact import Averaging
from training.metrics.bootstrap import Score, interval, none_if_nan, resampled
from training.metrics.calibration import Bin, reliability_table
from training.metrics.partition import BestThreshold, best_on
from training.metrics.tally import Tally, compute_scores


@dataclass(frozen=True)
class Evaluation:
    """An artefact's scores on annotated images."""

    images: tuple[str, ...]
    """Names of the images."""
    tallies: tuple[Tally, ...]
    """What each of them adds to every score."""
    main_score: str
    """Name of the score that models for such labels are compared by."""
    threshold: float | None
    """Decision threshold of the scores, but for those whose name says `best`."""
    averaging: Averaging = "none"

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Every score by name, with its 95% bootstrap interval over images.

        Of one image alone there is no interval.
        """
        values = compute_scores(self.tallies)
        if len(self.images) == 1:
            return {
                name: Score(float(value[0]), math.nan, math.nan) for name, value in values.items()
            }
        drawn = compute_scores(self.tallies, resampled(len(self.images)))
        return {
            name: Score(float(value[0]), *interval(drawn[name])) for name, value in values.items()
        }

    @property
    def main(self) -> tuple[str, float]:
        """The main score's name and value."""
        return self.main_score, self.scores[self.main_score].value

    @cached_property
    def by_image(self) -> dict[str, dict[str, float]]:
        """The scores of each image; nan where an image has none, such as SEG without objects."""
        tallies = zip(self.images, self.tallies, strict=True)
        return {
            image: {
                name: float(value[0])
                for name, value in compute_scores([replace(tally, curve=())]).items()
            }
            for image, tally in tallies
        }

    @cached_property
    def best(self) -> BestThreshold | None:
        """The threshold with the highest mean V_rand; None if none was tried, or none has any."""
        if not self.tallies[0].curve:
            return None
        best = best_on([tally.curve for tally in self.tallies])
        found = BestThreshold(*(float(values[0]) for values in best.values()))
        return None if math.isnan(found.v_rand) else found

    @property
    def reliability(self) -> tuple[Bin, ...]:
        """How often the probabilities of all images were right."""
        return reliability_table(np.sum([tally.reliability for tally in self.tallies], axis=0))

    def only(self, names: Iterable[str]) -> Self:
        """Give the scores of some of the images alone."""
        wanted = set(names)
        kept = [
            (image, tally)
            for image, tally in zip(self.images, self.tallies, strict=True)
            if image in wanted
        ]
        images, tallies = zip(*kept, strict=True)
        return replace(self, images=images, tallies=tallies)

    def by_image_as_dict(self) -> dict[str, dict[str, float | None]]:
        """Give the scores of each image, as JSON holds them: nan becomes None."""
        return {
            image: {name: none_if_nan(value) for name, value in scores.items()}
            for image, scores in self.by_image.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Give the scores by name, and what they depend on, as JSON holds them."""
        return {
            **{name: score.as_dict() for name, score in self.scores.items()},
            "main": self.main_score,
            "threshold": self.threshold,
            "best_threshold": None if self.best is None else self.best.threshold,
            "averaging": self.averaging,
        }
