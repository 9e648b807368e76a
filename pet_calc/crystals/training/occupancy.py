"""Training of the occupancy model that lets a generator choose compositions itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pet_calc.crystals.diffusion.occupancy import Counts, OccupancyConfig, OccupancyModel, sequences
from pet_calc.crystals.diffusion.unimat import Crystal
from pet_calc.training.core.optimizers import take_step
from pet_calc.training.core.schedule import warmup_cosine


@dataclass(frozen=True)
class OccupancyTraining:
    """How the compositions of crystals are learnt.

    Attributes
    ----------
    epochs, batch : int
        Passes over the crystals, and crystals in a step.
    learning_rate : float
        Peak of AdamW's rate, reached after 5 % of the steps, then half a cosine to 1 % of it.
    seed : int
    """

    epochs: int = 15
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1:
            raise ValueError(
                f"`epochs` and `batch` in [occupancy] must be at least 1, got {self.epochs} and "
                f"{self.batch}"
            )


def occupancies(crystals: Sequence[Crystal]) -> list[Counts]:
    """Elements and numbers of atoms of crystals."""
    found: list[Counts] = []
    for crystal in crystals:
        kinds, counts = np.unique(crystal.numbers, return_counts=True)
        found.append(tuple(zip(kinds.tolist(), counts.tolist(), strict=True)))
    return found


def train_occupancy(
    data: Sequence[Counts], config: OccupancyTraining | None = None, *, slots: int
) -> OccupancyModel:
    """Fit by maximum likelihood.

    Parameters
    ----------
    data : sequence of Counts
    config : OccupancyTraining, optional
    slots : int
        Most atoms of one element.
    """
    config = config or OccupancyTraining()
    rows = sequences(data)
    most = max(sum(n for _, n in counts) for counts in data)
    generator = torch.Generator().manual_seed(config.seed)
    steps = config.epochs * -(-len(rows) // config.batch)
    peak = config.learning_rate
    # dropout draws from the global generator, which is left as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = OccupancyModel(OccupancyConfig(slots=slots, atoms=most))
        optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.05)
        step = 0
        for _ in range(config.epochs):
            for index in torch.randperm(len(rows), generator=generator).split(config.batch):
                loss = -model.log_probability(rows[index]).mean()
                optimizer.zero_grad()
                loss.backward()
                rate = warmup_cosine(
                    step, steps=steps, warmup=steps // 20, peak=peak, final=0.01 * peak
                )
                take_step(
                    optimizer, model.parameters(), loss.item(), rate=rate, clip=1.0,
                    when=f"of the occupancy model at step {step}",
                )  # fmt: skip
                step += 1
    return model.requires_grad_(False).eval()
