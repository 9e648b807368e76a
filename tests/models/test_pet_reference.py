"""Parity with published PET weights: numbers of the original code in float64."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from contracts.structures import system
from models.published_pet import load_published_pet

from pet_calc.geometry import System, voigt_from_matrix
from pet_calc.models import Results, evaluate
from pet_calc.models.pet import PET
from pet_calc.neighbors import neighbor_list

# eV, eV/Å, eV/Å³
ENERGY, FORCES, STRESS = 1e-9, 1e-10, 1e-12


@pytest.fixture(scope="module")
def model(reference_dir: Path) -> PET:
    return load_published_pet(reference_dir / "pet" / "pet_modern.ckpt")


@pytest.fixture(scope="module")
def structures(reference_dir: Path) -> list[ase.Atoms]:
    return ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")


@pytest.fixture(scope="module")
def golden(reference_dir: Path) -> dict[str, np.ndarray]:
    with np.load(reference_dir / "pet" / "pet_modern.f64.results.npz") as archive:
        return dict(archive)


def to_system(atoms: ase.Atoms) -> System:
    return system(atoms.positions, atoms.numbers, np.array(atoms.cell), atoms.pbc.tolist())


def calculate(model: PET, structure: System) -> Results:
    return evaluate(model, structure, neighbor_list(structure, model.cutoff))


def voigt(stress: np.ndarray) -> torch.Tensor:
    value = torch.from_numpy(stress)
    return value if value.shape == (6,) else voigt_from_matrix(value)


def test_numbers_of_the_original_code(
    model: PET, structures: list[ase.Atoms], golden: dict[str, np.ndarray]
) -> None:
    checked = {"energy": 0, "forces": 0, "stress": 0}
    for atoms in structures:
        name = atoms.info["name"]
        result = calculate(model, to_system(atoms))
        assert result.forces is not None
        assert result.stress is not None
        assert abs(result.energy.item() - float(golden[f"{name}/energy"])) < ENERGY, name
        assert np.abs(result.forces.numpy() - golden[f"{name}/forces"]).max() < FORCES, name
        checked["energy"] += 1
        checked["forces"] += 1
        if atoms.pbc.all():
            gap = (result.stress[0] - voigt(golden[f"{name}/stress"])).abs().max().item()
            assert gap < STRESS, name
            checked["stress"] += 1
    assert checked == {"energy": 4, "forces": 4, "stress": 2}


def test_batch_has_the_same_numbers(
    model: PET, structures: list[ase.Atoms], golden: dict[str, np.ndarray]
) -> None:
    batch = calculate(model, System.concatenate([to_system(a) for a in structures]))
    expected = [float(golden[f"{a.info['name']}/energy"]) for a in structures]
    assert np.abs(batch.energy.numpy() - expected).max() < ENERGY
    forces = np.concatenate([golden[f"{a.info['name']}/forces"] for a in structures])
    assert batch.forces is not None
    assert np.abs(batch.forces.numpy() - forces).max() < FORCES


def test_parity_notices_a_wrong_weight(
    model: PET, structures: list[ase.Atoms], golden: dict[str, np.ndarray]
) -> None:
    """Positive control: one weight of 1e5 that is off by 1e-6."""
    atoms = structures[0]
    weight = model.gnn_layers[1].trans.layers[0].mlp.w_in.weight
    with torch.no_grad():
        weight[0, 0] += 1e-6
        try:
            found = calculate(model, to_system(atoms))
        finally:
            weight[0, 0] -= 1e-6
    assert found.forces is not None
    gap = np.abs(found.forces.numpy() - golden[f"{atoms.info['name']}/forces"]).max()
    assert gap > FORCES


def test_float32_stays_close(model: PET, structures: list[ase.Atoms]) -> None:
    """Float32 weights and computation: force errors far below any model error."""
    single = PET(model.config, dtype=torch.float32)
    single.load_state_dict(model.state_dict())
    for atoms in structures:
        exact, found = (calculate(m, to_system(atoms)) for m in (model, single))
        assert exact.forces is not None
        assert found.forces is not None
        assert (exact.forces - found.forces).abs().max() < 1e-4
        assert abs((exact.energy - found.energy).item()) < 1e-5 * len(atoms)
