"""Small labeled data sets made with a Lennard-Jones model."""

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from pet_calc.geometry import System
from pet_calc.models import LennardJones, evaluate
from pet_calc.neighbors import neighbor_list
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.loop import load_data, train


def labeled_crystals(n_frames, seed=0, a=5.4):
    """Rattled, strained 8-atom NaCl-type cells with Lennard-Jones labels and species energies."""
    generator = np.random.default_rng(seed)
    model = LennardJones((11, 17), epsilon=0.2, sigma=2.3, cutoff=4.0, cutoff_width=2.0)
    frames = []
    for k in range(n_frames):
        atoms = ase.build.bulk("NaCl", "rocksalt", a=a, cubic=True)
        if k % 3 == 0:
            del atoms[0]  # a second composition, so that the reference energies are determined
        strain = 0.03 * generator.standard_normal((3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += 0.15 * generator.standard_normal(atoms.positions.shape)
        system = System.single(
            torch.from_numpy(atoms.positions),
            torch.from_numpy(atoms.numbers),
            torch.from_numpy(np.array(atoms.cell)),
            atoms.pbc.tolist(),
        )
        results = evaluate(model, system, neighbor_list(system, model.cutoff))
        energy = (
            results.energy.item()
            - 3.0 * np.sum(atoms.numbers == 11)
            - 5.0 * np.sum(atoms.numbers == 17)
        )
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=energy,
            forces=results.forces.numpy(),
            stress=results.stress[0].numpy(),
        )
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Folder with train.extxyz and test.extxyz."""
    folder = tmp_path_factory.mktemp("lj-data")
    frames = labeled_crystals(26)
    ase.io.write(folder / "train.extxyz", frames[:20])
    ase.io.write(folder / "test.extxyz", frames[20:])
    return folder


@pytest.fixture
def config_table():
    """Plain values of a training configuration that runs in seconds."""
    return configuration()


@pytest.fixture(scope="session")
def parent(tmp_path_factory, data_folder) -> Path:
    """Folder of a potential to fine-tune, of the architecture of `configuration`."""
    folder = tmp_path_factory.mktemp("parent")
    config = TrainConfig.from_dict(configuration())
    train(config, folder, load_data(config, data_folder))
    return folder / "model"


def configuration():
    return {
        "name": "toy",
        "seed": 3,
        "validation_interval": 10,
        "model": {
            "elements": [11, 17],
            "cutoff": 4.0,
            "cutoff_width": 2.0,
            "d_pet": 16,
            "d_node": 24,
            "d_head": 16,
            "d_feedforward": 16,
            "num_heads": 2,
            "num_attention_layers": 1,
            "num_gnn_layers": 2,
            "input_encoding": "radial",
            "num_radial": 12,
        },
        "data": {"train": ["train.extxyz"], "test": ["test.extxyz"], "validation_frames": 4},
        "optimizer": {"name": "soap", "ema_decay": 0.9, "precondition_interval": 3},
        "stages": [
            {
                "steps": 30,
                "learning_rate": 5e-3,
                "warmup_steps": 5,
                "batch_size": 2,
                "loss": {"energy": 10.0, "forces": 1.0, "stress": 10.0},
            },
            {"steps": 10, "learning_rate": 1e-3, "warmup_steps": 1, "loss": {"energy": 100.0}},
        ],
    }
