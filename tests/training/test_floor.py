"""Energies that are lower bounds: only what is predicted below them is an error."""

import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from calculators.small_potentials import rare_pet
from training.conftest import labeled_crystals

from pet_calc.errors import DatasetError
from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.models import evaluate
from pet_calc.training.potentials.config import HuberConfig, LossConfig, TrainConfig
from pet_calc.training.potentials.data import Batch, prepare
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.losses import LabelCounts, loss
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all

WEIGHTS = LossConfig(energy=3.0, forces=0.0)


def test_only_what_is_below_the_bound_costs_and_as_much_as_an_error() -> None:
    model = rare_pet(elements=(8, 14))
    crystals = [bulk("SiO", "zincblende", a=a) for a in (4.4, 4.9)]
    (first, second) = (prepare(LabeledFrame(a, None, None, None), model.cutoff) for a in crystals)
    both = Batch.concatenate([first, second])
    energies = evaluate(model, both.system, both.edges, forces=False).energy

    def value(bounds, huber=None):
        frames = [
            prepare(LabeledFrame(a, None, None, None, floor=b), model.cutoff)
            for a, b in zip(crystals, bounds, strict=True)
        ]
        batch = Batch.concatenate(frames)
        assert not batch.has_derivatives
        assert LabelCounts.of([batch]).energy == sum(b is not None for b in bounds)
        results = evaluate(model, batch.system, batch.edges, forces=False)
        return loss(results, batch, WEIGHTS, huber=huber).item()

    e1, e2 = energies.tolist()
    assert value([e1 - 1.0, e2 - 0.5]) == 0.0
    # two atoms, 0.8 eV too low; the mean is over both bounds
    assert value([e1 + 0.8, e2 - 0.5]) == pytest.approx(3.0 * 0.4**2 / 2, rel=1e-6)
    assert value([e1 + 0.8, None]) == pytest.approx(3.0 * 0.4**2, rel=1e-6)
    huber = HuberConfig(energy=0.1)
    expected = 3.0 * (2 * 0.1 * 0.4 - 0.1**2)
    assert value([e1 + 0.8, None], huber) == pytest.approx(expected, rel=1e-6)
    # beside a labeled frame the mean is over the label and the bound
    labeled = replace(first, energy=torch.tensor([e1 + 0.2], dtype=torch.float64))
    bound = replace(second, floor=torch.tensor([e2 + 0.4], dtype=torch.float64))
    batch = Batch.concatenate([labeled, bound])
    results = evaluate(model, batch.system, batch.edges, forces=False)
    assert loss(results, batch, WEIGHTS).item() == pytest.approx(
        3.0 * (0.1**2 + 0.2**2) / 2, rel=1e-6
    )


@pytest.fixture
def folder(tmp_path, data_folder):
    (tmp_path / "train.extxyz").write_bytes((data_folder / "train.extxyz").read_bytes())
    holes = []
    for atoms in labeled_crystals(8, seed=9):
        hole = atoms.copy()
        hole.info["energy_floor"] = atoms.get_potential_energy() + 0.5 * len(atoms)
        holes.append(hole)
    ase.io.write(tmp_path / "holes.extxyz", holes)
    return tmp_path


def with_holes(config_table, **options):
    sets = [{"file": "holes.extxyz", **options}]
    return TrainConfig.from_dict(config_table | {"data": {"train": ["train.extxyz"], "sets": sets}})


def test_training_fills_holes(folder, config_table, tmp_path) -> None:
    """Crystals below their bound rise towards it, at the cost of the others' energies."""
    config_table["optimizer"] = {"name": "adam"}
    config_table["stages"] = [
        {"steps": 30, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 4,
         "loss": {"energy": 20.0, "forces": 0.0, "stress": 0.0}}
    ]  # fmt: skip
    config = with_holes(config_table, repeat=2)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    data = load_data(config, folder)
    assert data.census["train"].found["energy_floor"] == {"energy_floor": 8}
    bounded = [f for f in data.train if f.floor is not None]
    assert [(f.energy, f.forces, f.stress) for f in bounded] == [(None, None, None)] * 8

    frames = prepare_all(data.train, config)

    def depth(model) -> float:
        """Mean in eV/atom, of those below their bound."""
        holes = [b for b in frames if b.floor.isfinite().all()]
        assert len(holes) == 8
        batch = Batch.concatenate(holes)
        energies = evaluate(model, batch.system, batch.edges, forces=False).energy
        below = (batch.floor - energies).clamp(min=0.0) / batch.n_atoms
        return below.mean().item()

    depths = {}
    for kept in (True, False):  # with and without the bounds
        bare = [replace(f, floor=torch.full_like(f.floor, torch.nan)) for f in frames]
        shown = frames if kept else bare
        run = Run.start(config, data.train, shown)
        for _ in range(30):
            run.advance(shown, data.order)
        depths[kept] = depth(run.model)
    assert depths[True] < 0.7 * depths[False]
    # they are no part of the domain, and a run ends as ever
    out = tmp_path / "run"
    train(config, out, data)
    described = json.loads((out / "model" / "config.json").read_text())
    assert described["domain"]["n_structures"] == len(data.train) - 8
    # nor are they held out to validate on
    assert all(f.floor is None for f in data.validation)


def test_a_bound_may_be_read_as_a_label(folder, config_table) -> None:
    """Where its key is named as that of the energy."""
    config = with_holes(config_table, keys={"energy": "energy_floor", "energy_floor": "none"})
    data = load_data(config, folder)
    assert np.isfinite([f.energy for f in data.train]).all()
    assert all(f.floor is None for f in data.train)


def test_files_that_the_data_folder_lacks_lie_beside_the_configuration(
    folder, config_table, data_folder
) -> None:
    config = with_holes(config_table)
    with pytest.raises(DatasetError, match=r"no data file at .*holes\.extxyz"):
        load_data(config, data_folder)
    found = load_data(config, data_folder, beside=folder)
    assert len(found.train) - len(found.trained_on) == 8
