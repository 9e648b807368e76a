"""Parity with published checkpoints: numbers of the original code in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase
import ase.build
import ase.io
import numpy as np
import pytest
import torch
from contracts.structures import system

from pet_calc.geometry import System, voigt_from_matrix
from pet_calc.io.foreign.checkpoints import load_published, read_published
from pet_calc.models import Results, evaluate
from pet_calc.models.pet import PET
from pet_calc.models.pet.direct import DirectHeads
from pet_calc.neighbors import neighbor_list

# eV, eV/Å, eV/Å³
EXACT = (1e-9, 1e-10, 1e-12)
# the published repulsion of nuclei is partly in float32
PARTLY_SINGLE = (1e-5, 1e-5, 1e-5)

MODELS = {
    "pet_legacy": EXACT,
    "pet_modern": EXACT,
    "pet_adaptive_solver": EXACT,
    "pet_adaptive_grid": EXACT,
    "pet_nc_zbl": PARTLY_SINGLE,
}
VERSIONS = (
    "v1_trainer-v1", "v4_trainer-v4", "v7_trainer-v7", "v8_trainer-v9", "v10_trainer-v12",
    "v11_trainer-v13", "v12_trainer-v13", "v13_trainer-v13", "v16_trainer-v15",
)  # fmt: skip


def to_system(atoms: ase.Atoms) -> System:
    return system(atoms.positions, atoms.numbers, np.array(atoms.cell), atoms.pbc.tolist())


def calculate(model: PET, structure: System) -> Results:
    return evaluate(model, structure, neighbor_list(structure, model.cutoff))


def voigt(stress: Any) -> torch.Tensor:
    value = torch.as_tensor(np.asarray(stress))
    return value if value.shape == (6,) else voigt_from_matrix(value)


def compare(found: Results, expected: dict[str, Any], tolerances: tuple[float, ...]) -> None:
    energy, forces, stress = tolerances
    assert abs(found.energy.item() - float(expected["energy"])) < energy
    assert found.forces is not None
    assert np.abs(found.forces.numpy() - np.asarray(expected["forces"])).max() < forces
    if "stress" in expected and bool(torch.isfinite(found.stress[0]).all()):
        assert (found.stress[0] - voigt(expected["stress"])).abs().max() < stress


def golden(file: Path) -> dict[str, dict[str, np.ndarray]]:
    results: dict[str, dict[str, np.ndarray]] = {}
    with np.load(file) as archive:
        for key, value in archive.items():
            name, _, quantity = key.partition("/")
            results.setdefault(name, {})[quantity] = value
    return results


@pytest.fixture(scope="module")
def structures(reference_dir: Path) -> dict[str, ase.Atoms]:
    frames = ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")
    return {atoms.info["name"]: atoms for atoms in frames}


@pytest.mark.parametrize(("name", "tolerances"), MODELS.items(), ids=MODELS)
def test_published_model(
    reference_dir: Path,
    structures: dict[str, ase.Atoms],
    name: str,
    tolerances: tuple[float, ...],
) -> None:
    model = load_published(reference_dir / "pet" / f"{name}.ckpt", torch.float64)
    expected = golden(reference_dir / "pet" / f"{name}.f64.results.npz")
    assert len(expected) == 4
    for structure, values in expected.items():
        compare(calculate(model, to_system(structures[structure])), values, tolerances)


# eV per atom, eV/Å, eV/Å³: what rounding in float32 may do
SINGLE = (1e-5, 1.5e-5, 5e-7)


def rounding(
    model: PET, structures: dict[str, ase.Atoms], exact: dict[str, dict[str, np.ndarray]]
) -> np.ndarray:
    """Largest deviations of energy per atom, forces and stress over the structures."""
    worst = np.zeros(3)
    for name, values in exact.items():
        found = calculate(model, to_system(structures[name]))
        assert found.forces is not None
        assert found.stress is not None
        single = {"energy": found.energy[0], "forces": found.forces, "stress": found.stress[0]}
        worst = np.maximum(worst, deviations(single, values, len(structures[name])))
    return worst


def deviations(found: dict[str, Any], exact: dict[str, np.ndarray], n_atoms: int) -> np.ndarray:
    scales = {"energy": n_atoms, "forces": 1, "stress": 1}
    return np.array([
        np.abs(np.asarray(found[key]) - exact[key]).max() / scale if key in exact else 0.0
        for key, scale in scales.items()
    ])  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_float32_rounds_no_more_than_the_original(
    reference_dir: Path, structures: dict[str, ase.Atoms], name: str
) -> None:
    folder = reference_dir / "pet"
    exact = golden(folder / f"{name}.f64.results.npz")
    theirs = np.max(
        [
            deviations(values, exact[structure], len(structures[structure]))
            for structure, values in golden(folder / f"{name}.f32.results.npz").items()
        ],
        axis=0,
    )
    ours = rounding(load_published(folder / f"{name}.ckpt"), structures, exact)
    assert (ours < SINGLE).all(), ours
    # two ways to round the same numbers spread alike
    assert (ours < 2 * theirs).all(), (ours, theirs)


def test_float32_comparison_notices_coarser_numbers(
    reference_dir: Path, structures: dict[str, ase.Atoms]
) -> None:
    """Positive control: one weight matrix in half precision is seen."""
    model = load_published(reference_dir / "pet" / "pet_modern.ckpt")
    weight = model.gnn_layers[0].trans.layers[0].attention.input_linear.weight
    weight.copy_(weight.half().float())
    exact = golden(reference_dir / "pet" / "pet_modern.f64.results.npz")
    assert rounding(model, structures, exact)[1] > SINGLE[1]


def test_direct_forces_and_stress(reference_dir: Path, structures: dict[str, ase.Atoms]) -> None:
    model = load_published(reference_dir / "pet" / "pet_nc_zbl.ckpt", torch.float64)
    expected = golden(reference_dir / "pet" / "pet_nc_zbl.f64.nc.results.npz")
    assert len(expected) == 2
    for name, values in expected.items():
        structure = to_system(structures[name])
        found = evaluate(DirectHeads(model), structure, neighbor_list(structure, model.cutoff))
        compare(found, values, (1e-5, 1e-10, 1e-12))
        assert found.forces is not None
        assert found.forces.sum(0).abs().max() < 1e-12


@pytest.fixture(scope="module")
def version_structures(reference_dir: Path) -> dict[str, ase.Atoms]:
    """Those of the file, which was written with eight decimals, before they were rounded."""
    ethanol = ase.build.molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=3)
    acetamide = ase.build.molecule("CH3CONH2", cell=[5.1, 5.3, 5.6], pbc=True)
    acetamide.rattle(0.05, seed=4)
    written = ase.io.read(reference_dir / "pet" / "versions" / "structures.extxyz", ":")
    for exact, rounded in zip((ethanol, acetamide), written, strict=True):
        assert np.abs(exact.positions - rounded.positions).max() < 6e-9
        assert (exact.numbers == rounded.numbers).all()
    return {"ethanol": ethanol, "acetamide_cell": acetamide}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_format_version(
    reference_dir: Path, version_structures: dict[str, ase.Atoms], version: str
) -> None:
    folder = reference_dir / "pet" / "versions"
    name = f"model-{version}.ckpt.gz"
    expected = json.loads((folder / "results.json").read_text())[name]
    model = load_published(folder / name, torch.float64)
    checked = 0
    for structure, atoms in version_structures.items():
        if structure in expected:
            compare(calculate(model, to_system(atoms)), expected[structure], EXACT)
            checked += 1
    assert checked >= 1


def test_wrapped_model_is_unwrapped(reference_dir: Path, structures: dict[str, ase.Atoms]) -> None:
    wrapped = read_published(reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt")
    assert "covariance_energy_uncertainty" in wrapped.wrapper
    model = load_published(reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt", torch.float64)
    values = golden(reference_dir / "pet" / "llpr.f64.results.npz")
    for name, expected in values.items():
        found = calculate(model, to_system(structures[name]))
        assert abs(found.energy.item() - expected["system/energy"].item()) < 1e-9


def test_parity_notices_a_wrong_option(
    reference_dir: Path, structures: dict[str, ase.Atoms]
) -> None:
    """Positive control: the other method for adaptive cutoffs is another model."""
    imported = read_published(reference_dir / "pet" / "pet_adaptive_grid.ckpt")
    config = imported.config.to_dict() | {"adaptive_cutoff_method": "solver"}
    model = PET(type(imported.config).from_dict(config), dtype=torch.float64)
    model.load_state_dict(imported.state)
    expected = golden(reference_dir / "pet" / "pet_adaptive_grid.f64.results.npz")
    with pytest.raises(AssertionError):
        compare(
            calculate(model, to_system(structures["water_64mol"])), expected["water_64mol"], EXACT
        )
