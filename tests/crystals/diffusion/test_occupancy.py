"""Occupancies: every sequence is legal, probabilities sum to one, and training is recovered."""

import itertools
from collections import Counter

import pytest
import torch

from pet_calc.crystals.diffusion import occupancy as module
from pet_calc.crystals.diffusion.occupancy import OccupancyConfig, OccupancyModel, sequences
from pet_calc.crystals.training.occupancy import OccupancyTraining, train_occupancy
from pet_calc.errors import SimulationError


def model(**options) -> OccupancyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OccupancyModel(OccupancyConfig(**{"width": 8, **options})).eval()


def test_probabilities_sum_to_one(monkeypatch) -> None:
    """Over all occupancies of a table of four elements with at most three atoms."""
    monkeypatch.setattr(module, "N_ELEMENTS", 4)
    small = model(slots=2, atoms=3)
    every = [
        tuple((z, n) for z, n in enumerate(counts, 1) if n)
        for counts in itertools.product(range(3), repeat=4)
        if 0 < sum(counts) <= 3
    ]
    logs = small.log_probability(sequences(every))
    assert logs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    # what comes in another order, or exceeds the cell, has no probability of its own
    outside = sequences([((3, 2), (4, 2)), ((2, 3),)])
    outside[1, 1] = 4 + 2  # within the slots, but followed by a lower element
    outside[1, 2:4] = torch.tensor([1, 4 + 1])
    assert torch.isneginf(small.log_probability(outside)).all()


def test_samples_follow_the_probabilities_and_the_bounds(monkeypatch) -> None:
    monkeypatch.setattr(module, "N_ELEMENTS", 4)
    small = model(slots=2, atoms=3)
    drawn = small.sample(4000, torch.Generator().manual_seed(1))
    for counts, times in Counter(drawn).most_common(5):
        p = small.log_probability(sequences([counts])).exp().item()
        assert times / 4000 == pytest.approx(p, abs=5 * (p / 4000) ** 0.5)
    assert drawn == small.sample(4000, torch.Generator().manual_seed(1))
    bounded = small.sample(50, torch.Generator().manual_seed(1), elements=[2, 3], atoms=[2])
    assert all(sum(n for _, n in c) == 2 and {z for z, _ in c} <= {2, 3} for c in bounded)
    with pytest.raises(SimulationError, match="atoms"):
        small.sample(3, torch.Generator().manual_seed(1), atoms=[9])


def test_training_learns_what_the_compositions_have_in_common() -> None:
    """Metal halides of one formula unit: five atoms, the last element a halogen in threes."""
    data = [
        ((a, 1), (b, 1), (x, 3)) for a in (3, 4, 11, 12) for b in (22, 23, 24) for x in (35, 53)
    ]
    held = data[::5]
    learnt = train_occupancy(
        [c for c in data if c not in held],
        OccupancyTraining(epochs=30, learning_rate=1e-2),
        slots=5,
    )
    drawn = learnt.sample(200, torch.Generator().manual_seed(0))
    assert sum(sum(n for _, n in c) == 5 for c in drawn) >= 190
    assert any(c in held for c in drawn)
    blank = OccupancyModel(learnt.config).eval()
    with torch.inference_mode():
        better = learnt.log_probability(sequences(held)) - blank.log_probability(sequences(held))
    assert better.min() > 0
