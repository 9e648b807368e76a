"""Learning-rate schedule."""

from __future__ import annotations

import math

from pet_calc.training.potentials.config import StageConfig


def learning_rate(stage: StageConfig, step: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to the final rate.

    Parameters
    ----------
    stage : StageConfig
    step : int
        Step within the stage, 0-based.
    """
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    rest = max(1, stage.steps - stage.warmup_steps)
    phase = min(1.0, (step - stage.warmup_steps) / rest)
    span = stage.learning_rate - stage.final_learning_rate
    return stage.final_learning_rate + 0.5 * span * (1.0 + math.cos(math.pi * phase))
