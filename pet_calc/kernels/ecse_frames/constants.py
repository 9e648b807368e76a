"""The constants of local frames."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class FrameConfig:
    """Constants of frames and weights; the defaults are the published ones.

    Attributes
    ----------
    beta : float
        Sharpness of the smooth extremes of distances, 1/Å.
    taper : float
        Width over which a neighbor leaves the inner cutoff, Å.
    collinearity : float
        A pair whose squared sine is above this plus its width shapes the inner cutoff in full.
    collinearity_width : float
        Frames exist above `collinearity` - `collinearity_width`.
    beta_weights : float
        Sharpness of the smooth maximum of weights.
    num_prunings : int
        How often small weights are removed.
    pruning_threshold, pruning_width : float
        In units of the smooth maximum: a weight is removed below the threshold and untouched above
        the sum of both.
    """

    beta: float = 5.0
    taper: float = 0.15
    collinearity: float = 0.2
    collinearity_width: float = 0.15
    beta_weights: float = 1.0
    num_prunings: int = 4
    pruning_threshold: float = 0.9
    pruning_width: float = 0.1

    # Below these largest weights the frame-free limit takes over and nothing is pruned.
    hand_over: float = 0.5
    pruning_onset: float = 0.5
    pruning_onset_width: float = 0.25

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrameConfig:
        """Constants from plain values; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown frame constant(s) {unknown}; known are {sorted(known)}")
        return cls(**values)
