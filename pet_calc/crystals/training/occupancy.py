"""Training of the occupancy model that lets a generator choose compositions itself.

``python -m pet_calc.crystals.training.occupancy train.toml --data DATA --out RUN`` learns
the compositions of the files that the generator in ``RUN/model`` was trained
on, and adds the model to it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pet_calc.crystals.diffusion.occupancy import Counts, OccupancyConfig, OccupancyModel, sequences
from pet_calc.crystals.io.generators import load_generator, save_generator
from pet_calc.crystals.io.unimat import read_crystals
from pet_calc.crystals.training.generator import GeneratorConfig
from pet_calc.training.core.schedule import learning_rate
from pet_calc.training.potentials.config import StageConfig


def occupancies(files: Sequence[Path], atoms: int | None = None) -> list[Counts]:
    """Elements and numbers of atoms of all crystals of some files, of at most `atoms` atoms."""
    found: list[Counts] = []
    for path in files:
        for crystal in read_crystals(path):
            if atoms is not None and len(crystal.numbers) > atoms:
                continue
            kinds, counts = np.unique(crystal.numbers, return_counts=True)
            found.append(tuple(zip(kinds.tolist(), counts.tolist(), strict=True)))
    return found


def train_occupancy(
    data: Sequence[Counts],
    *,
    slots: int,
    epochs: int = 15,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
) -> OccupancyModel:
    """Fit by maximum likelihood.

    Parameters
    ----------
    data : sequence of Counts
    slots : int
        Most atoms of one element.
    epochs, batch : int
    rate : float
        Peak of AdamW's learning rate.
    seed : int
    """
    rows = sequences(data)
    most = max(sum(n for _, n in counts) for counts in data)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(rows) // batch)
    stage = StageConfig(
        steps=steps, warmup_steps=steps // 20, learning_rate=rate, final_learning_rate=0.01 * rate
    )
    # dropout draws from the global generator, which is left as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OccupancyModel(OccupancyConfig(slots=slots, atoms=most))
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
        step = 0
        for _ in range(epochs):
            for index in torch.randperm(len(rows), generator=generator).split(batch):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(stage, step)
                loss = -model.log_probability(rows[index]).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                step += 1
    return model.requires_grad_(False).eval()


def main(arguments: list[str] | None = None) -> None:
    """Entry of ``python -m pet_calc.crystals.training.occupancy``."""
    parser = argparse.ArgumentParser(description="Learn the compositions of a UniMat generator.")
    parser.add_argument("config", type=Path, help="TOML file of the generator's training")
    parser.add_argument("--data", type=Path, required=True, help="folder of the crystals")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args(arguments)
    config = GeneratorConfig.from_toml(options.config)
    folder = options.out / "model"
    model, _, values = load_generator(folder)
    data = occupancies([options.data / name for name in config.files], config.atoms)
    learnt = train_occupancy(data, slots=model.config.slots, epochs=options.epochs)
    training = {**values["training"], "occupancy_epochs": options.epochs}
    save_generator(folder, model, training, learnt)


if __name__ == "__main__":
    main()
