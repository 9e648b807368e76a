"""Relaxed structures without labels, files with options of their own, weights that move."""

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from training.conftest import labeled_crystals

from pet_calc.errors import DatasetError
from pet_calc.models import evaluate
from pet_calc.training.potentials.config import LossConfig, StageConfig, TrainConfig
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.initial_model import magnitude
from pet_calc.training.potentials.loop import load_data
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all


@pytest.fixture
def folder(tmp_path, data_folder):
    (tmp_path / "train.extxyz").write_bytes((data_folder / "train.extxyz").read_bytes())
    bare = [a.copy() for a in labeled_crystals(6, seed=9)]
    bare[1].set_constraint(FixAtoms([0, 2]))
    ase.io.write(tmp_path / "relaxed.traj", bare)
    return tmp_path


def with_set(config_table, **options):
    sets = [{"file": "relaxed.traj", **options}]
    return TrainConfig.from_dict(config_table | {"data": {"train": ["train.extxyz"], "sets": sets}})


def test_relaxed_structures_get_zero_labels(folder, config_table):
    config = with_set(config_table, stationary="cell", repeat=3)
    assert TrainConfig.from_dict(config.to_dict()) == config
    data = load_data(config, folder)
    relaxed = [f for f in [*data.train, *data.validation] if f.energy is None]
    assert len(relaxed) == 6
    for frame in relaxed:
        assert not frame.stress.any()
        n_free = int(np.isfinite(frame.forces).all(1).sum())
        assert n_free == len(frame.atoms) - (2 if frame.constrained is not None else 0)
        assert not np.nan_to_num(frame.forces).any()
    assert sum(f.constrained is not None for f in relaxed) == 1
    assert data.census["train"].found["forces"] == {"forces": 20, "(stationary)": 6}
    of = [k for k, f in enumerate(data.train) if f.energy is None]
    assert all(data.order.frames.count(k) == 3 for k in of)
    # the scale of the energy is that of forces that are not zero by definition
    assert magnitude([f.forces for f in data.train]) == pytest.approx(
        magnitude([f.forces for f in data.train if f.energy is not None])
    )


def test_atoms_alone_or_nothing(folder, config_table):
    for kind, forces in (("atoms", True), ("no", False)):
        data = load_data(with_set(config_table, stationary=kind), folder)
        relaxed = [f for f in data.train if f.energy is None]
        assert all((f.forces is not None) == forces for f in relaxed)
        assert all(f.stress is None for f in relaxed)


def test_labels_of_the_file_are_kept(folder, config_table):
    ase.io.write(folder / "relaxed.traj", labeled_crystals(6, seed=9))
    data = load_data(with_set(config_table, stationary="cell"), folder)
    assert all(f.forces.any() and f.stress.any() for f in data.train)
    assert "(stationary)" not in data.census["train"].found["forces"]


def test_a_molecule_has_no_relaxed_cell(folder, config_table):
    ase.io.write(folder / "relaxed.traj", Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]]))
    with pytest.raises(DatasetError, match='say stationary = "atoms"'):
        load_data(with_set(config_table, stationary="cell"), folder)


def test_structures_at_rest_are_learned(folder, config_table):
    """The forces on them shrink, though no label in any file says so."""
    config_table["optimizer"] = {"name": "adam"}
    config_table["augment"] = False
    loss = {"energy": 0.0, "forces": 1.0, "stress": 10.0}
    config_table["stages"] = [
        {"steps": 25, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 3, "loss": loss}
    ]
    found = {}
    for kind in ("cell", "no"):
        config = with_set(config_table, stationary=kind, repeat=3)
        data = load_data(config, folder)
        run = Run.start(config, data.train, prepare_all(data.train, config))
        frames = prepare_all(data.train, config)
        relaxed = [prepare(f, config.model.cutoff) for f in data.train if f.energy is None]
        for _ in range(25):
            run.advance(frames, data.order)
        forces = torch.cat([evaluate(run.model, f.system, f.edges).forces for f in relaxed])
        found[kind] = forces.square().mean().sqrt().item()
    assert found["cell"] < 0.7 * found["no"]


def test_loss_weights_move_linearly(config_table):
    stage = StageConfig(11, loss=LossConfig(1.0, 2.0, 0.0), final_loss=LossConfig(101.0, 2.0, 5.0))
    assert stage.loss_at(0) == LossConfig(1.0, 2.0, 0.0)
    assert stage.loss_at(5) == LossConfig(51.0, 2.0, 2.5)
    assert stage.loss_at(10) == LossConfig(101.0, 2.0, 5.0)
    assert StageConfig(11).loss_at(5) == LossConfig()
    config_table["stages"][0]["final_loss"] = {"energy": 200.0}
    config = TrainConfig.from_dict(config_table)
    # what is not named stays
    assert config.stages[0].final_loss == LossConfig(200.0, 1.0, 10.0)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_moving_weights_move_the_loss(data_folder, config_table):
    config_table["augment"] = False
    config_table["stages"] = [{
        "steps": 3, "learning_rate": 1e-12, "warmup_steps": 0, "batch_size": 16,
        "loss": {"energy": 0.0, "forces": 1.0}, "final_loss": {"forces": 3.0},
    }]  # fmt: skip
    config_table["data"]["validation_frames"] = 4
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    frames = prepare_all(data.train, config)
    run = Run.start(config, data.train, frames)
    losses = [run.advance(frames)[0] for _ in range(3)]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(3 * losses[0], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stationary": True}, "`stationary` in"),
        ({"split": "training"}, "`split` in"),
        ({"repeat": 0}, "`repeat` in"),
        ({"weight": 2}, "unknown option"),
    ],
)
def test_options_without_meaning_are_refused(config_table, options, message):
    with pytest.raises(ValueError, match=message):
        with_set(config_table, **options)
