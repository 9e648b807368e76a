"""Energies without forces, parts of files, structures that are left out."""

import lzma
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from training.conftest import labeled_crystals

from pet_calc.errors import DatasetError
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.loop import load_data
from pet_calc.training.potentials.losses import LabelCounts
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all


@pytest.fixture
def folder(tmp_path, data_folder):
    (tmp_path / "train.extxyz").write_bytes((data_folder / "train.extxyz").read_bytes())
    ase.io.write(tmp_path / "other.extxyz", labeled_crystals(12, seed=3))
    return tmp_path


def config_with(config_table, *sets, **values):
    data = {"train": ["train.extxyz"], "validation_frames": 4, "sets": list(sets)}
    return TrainConfig.from_dict(config_table | {"data": data} | values)


def test_energies_alone_cost_no_derivatives_and_change_nothing(folder, config_table):
    """Frames without forces are computed apart; loss and gradients are those of all at once."""
    bare = labeled_crystals(6, seed=5)
    for a in bare:
        a.calc.results = {"energy": a.calc.results["energy"]}
    ase.io.write(folder / "bare.extxyz", bare)
    config = config_with(config_table, {"file": "bare.extxyz"})
    data = load_data(config, folder)
    prepared = prepare_all(data.train, config)
    gradients = {}
    for apart in (True, False):
        run = Run.start(config, data.train, prepared)
        run.align_energies(prepared)
        frames = [prepared[0], prepared[-1], prepared[1], prepared[-2]]
        stage = replace(config.stages[0], batch_size=4)
        groups = run.batches(stage, frames) if apart else [(frames, None)]
        assert len(groups) == (2 if apart else 1)
        counts = LabelCounts.of(frames)
        for part, draw in groups:
            run.backward(part, draw, stage.loss, counts)
        gradients[apart] = torch.cat([
            p.grad.flatten() for p in run.model.parameters() if p.grad is not None
        ])  # fmt: skip
    scale = gradients[False].abs().max()
    assert (gradients[True] - gradients[False]).abs().max() < 1e-5 * scale


def test_parts_of_a_file(folder, config_table):
    small = {"file": "other.extxyz", "frames": "2:9:2", "max_atoms": 7}
    data = load_data(config_with(config_table, small), folder)
    chosen = [a for a in labeled_crystals(12, seed=3)[2:9:2] if len(a) <= 7]
    alone = load_data(config_with(config_table), folder)
    n, n_more = (len(d.train) + len(d.validation) for d in (alone, data))
    assert n_more == n + len(chosen)
    strongest = max(np.linalg.norm(f.forces, axis=1).max() for f in data.train)
    weak = {"file": "other.extxyz", "max_force": 0.5 * strongest}
    fewer = load_data(config_with(config_table, weak), folder)
    assert len(fewer.train) < 28
    none = {"file": "other.extxyz", "max_force": 1e-9}
    with pytest.raises(DatasetError, match=r"no frame of .* is left"):
        load_data(config_with(config_table, none), folder)
    for wrong, message in (
        ({"frames": "3"}, "a slice"),
        ({"max_atoms": 0}, "max_atoms"),
        ({"max_force": -1.0}, "max_force"),
    ):
        with pytest.raises(ValueError, match=message):
            config_with(config_table, {"file": "other.extxyz"} | wrong)


def test_structures_of_other_elements_are_refused_or_left_out(folder, config_table):
    frames = labeled_crystals(6, seed=4)
    strange = frames[2].copy()
    strange.numbers[0] = 10
    strange.calc = SinglePointCalculator(strange, energy=-1.0)
    ase.io.write(folder / "strange.extxyz", [*frames, strange])
    source = {"file": "strange.extxyz"}
    with pytest.raises(DatasetError, match=r"`model\.elements` must cover .* has Ne too"):
        load_data(config_with(config_table, source), folder)
    without = load_data(config_with(config_table, {**source, "file": "other.extxyz"}), folder)
    more = load_data(config_with(config_table, source | {"covered_only": True}), folder)
    n, n_more = (len(d.train) + len(d.validation) for d in (without, more))
    assert n_more == n - 12 + 6


def test_a_table_of_crystals_is_a_data_set(folder, config_table):
    table = {
        "n_atoms": np.array([2, 1]), "numbers": np.array([11, 17, 11]),
        "frac": np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0.0]]),
        "cellpar": np.array([[3.3, 3.3, 3.3, 90, 90, 90], [4.0, 4, 4, 90, 90, 90]]),
        "formation_energy": np.array([-2.0, 0.1]),
    }  # fmt: skip
    np.savez(folder / "table.npz", **table)
    (folder / "table.npz.xz").write_bytes(lzma.compress((folder / "table.npz").read_bytes()))
    keys = {"energy_per_atom": "formation_energy"}
    for name in ("table.npz", "table.npz.xz"):
        data = load_data(config_with(config_table, {"file": name, "keys": keys}), folder)
        found = [f for f in [*data.train, *data.validation] if f.forces is None]
        assert sorted(f.energy for f in found) == pytest.approx([-4.0, 0.1])
        assert data.census["train"].found["energy"] == {"energy": 20, "formation_energy": 2}
