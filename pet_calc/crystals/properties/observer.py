"""Properties along a trajectory or a relaxation: an observer, never a source of forces.

A model trained on relaxed crystals sees one thermally displaced frame as another crystal. The mean
over frames therefore carries two errors, which are reported apart: that of the mean over
correlated frames, and the uncertainty of the model, which frames share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from pet_calc.crystals.properties.predictor import Prediction, PropertyPredictor
from pet_calc.workflows.statistics import block_mean


@dataclass
class PropertyObserver:
    """Predicts a property of the frames that it is shown.

    For MD, ``Observer(PropertyObserver(predictor), every=100)``; for an optimizer of ASE,
    ``optimizer.attach(observer, 10, atoms)``.

    Attributes
    ----------
    predictor : PropertyPredictor
    steps : list of int
        Of the frames; a count where the caller does not say.
    predictions : list of Prediction
    """

    predictor: PropertyPredictor
    steps: list[int] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)

    def __call__(self, atoms: Atoms, sample: object = None) -> None:
        """Predict for one frame; `sample` is what an MD run hands to its observers."""
        self.predictions += self.predictor.many([atoms])
        self.steps.append(int(getattr(sample, "step", len(self.steps))))

    def summary(self) -> TrajectoryProperty:
        """The mean over the frames that have an answer."""
        return average(self.predictions)


@dataclass(frozen=True)
class TrajectoryProperty:
    """A property over the frames of a trajectory.

    Attributes
    ----------
    mean : float
        In `unit`.
    unit : str
    error : float
        Standard error of the mean of correlated frames; NaN for fewer than 8.
    model_std : float
        Mean uncertainty of the model, which does not average out.
    in_domain : float
        Share of the frames that are like the training crystals.
    frames : int
    """

    mean: float
    unit: str
    error: float
    model_std: float
    in_domain: float
    frames: int


def average(predictions: list[Prediction]) -> TrajectoryProperty:
    """Mean, error and uncertainty of predictions along a trajectory.

    Raises
    ------
    ValueError
        If no frame has an answer; the message has the reason of the first.
    """
    answered = [p for p in predictions if np.isfinite(p.value)]
    if not answered:
        reason = predictions[0].reason if predictions else "no frame was seen"
        raise ValueError(f"a property along a trajectory needs a frame with an answer: {reason}")
    values = np.array([p.value for p in answered])
    return TrajectoryProperty(
        mean=float(values.mean()),
        unit=answered[0].unit,
        error=block_mean(values).error,
        model_std=float(np.mean([p.std for p in answered])),
        in_domain=float(np.mean([p.in_domain for p in answered])),
        frames=len(answered),
    )
