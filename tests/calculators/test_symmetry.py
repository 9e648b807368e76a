"""`ecse` of the calculator: exact symmetry in programs that use ASE, and honest refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import spglib
import torch
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from calculators.small_potentials import liquid, small_pet
from scipy.spatial.transform import Rotation

from pet_calc import PETCalculator
from pet_calc.models.pet import PET, PETConfig


def local_pet() -> PET:
    """One message-passing layer, residual: an atom sees its neighbors alone."""
    return tiny(num_gnn_layers=1, featurizer_type="residual")


def tiny(seed: int = 0, **options: object) -> PET:
    """A PET that runs in milliseconds and holds atoms apart."""
    values: dict[str, object] = {
        "elements": (11, 12, 14, 17), "cutoff": 3.4, "cutoff_width": 1.5, "d_pet": 8, "d_node": 12,
        "d_head": 8, "d_feedforward": 8, "num_heads": 2, "num_attention_layers": 1,
        "num_gnn_layers": 2, "input_encoding": "radial", "num_radial": 8,
        "short_range_repulsion": True,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PET(PETConfig(**(values | options)), dtype=torch.float64)  # type: ignore[arg-type]
    assert model.repulsion is not None
    model.repulsion.onset.fill_(2.6)
    return model


MODELS = {
    "layerwise": lambda: (tiny(ecse="layerwise"), None),
    "local": lambda: (local_pet(), "auto"),
    "structure": lambda: (tiny(), "auto"),
}

CRYSTALS = {
    "diamond": lambda: bulk("Si", "diamond", a=5.3),
    "rock salt": lambda: bulk("NaCl", "rocksalt", a=5.4),
    "hcp": lambda: bulk("Mg", "hcp", a=3.1, c=5.0),
}


def space_group(atoms: Atoms, symprec: float) -> int:
    cell = (np.array(atoms.cell), atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        # spglib announces how it will report failures from its next version on
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry_dataset(cell, symprec=symprec)
    assert found is not None
    return int(found.number)


CASES = [(m, c) for m in sorted(MODELS) for c in sorted(CRYSTALS)]


@pytest.mark.parametrize(("mode", "crystal"), CASES)
def test_relaxation_keeps_the_space_group(mode: str, crystal: str) -> None:
    model, ecse = MODELS[mode]()
    atoms = CRYSTALS[crystal]()
    before = space_group(atoms, 1e-5)
    atoms.calc = PETCalculator(model, ecse=ecse)
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=4)
    assert space_group(atoms, 1e-5) == before
    # in any orientation
    turned = CRYSTALS[crystal]()
    turned.set_cell(np.array(turned.cell) @ Rotation.random(random_state=2).as_matrix(), True)
    turned.calc = PETCalculator(model, ecse=ecse)
    BFGS(FrechetCellFilter(turned), logfile=None).run(fmax=1e-3, steps=4)
    assert space_group(turned, 1e-5) == before
    assert turned.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


def test_the_plain_model_loses_it() -> None:
    """Positive control: the same relaxation without ECSE."""
    atoms = CRYSTALS["diamond"]()
    atoms.calc = PETCalculator(tiny(), ecse=False)
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=4)
    assert space_group(atoms, 1e-5) < 227


@pytest.mark.parametrize(("mode", "crystal"), CASES)
def test_optical_modes_at_gamma_are_degenerate(mode: str, crystal: str) -> None:
    model, ecse = MODELS[mode]()
    atoms = CRYSTALS[crystal]()
    hessian = gamma_hessian(atoms, PETCalculator(model, ecse=ecse))
    values = np.linalg.eigvalsh(hessian)
    frequency = np.sign(values) * np.sqrt(np.abs(values)) * 15.633302  # THz of sqrt(eV/Å²/u)
    order = np.argsort(np.abs(frequency))
    acoustic, optical = frequency[order[:3]], frequency[order[3:]]
    assert np.abs(optical).min() > 0.1
    if crystal == "hcp":
        # a pair in the basal plane, and one mode along the axis
        gaps = np.diff(np.sort(optical))
        assert gaps.min() < 1e-6 < gaps.max()
    else:
        assert np.ptp(optical) < 1e-6
    # three translations, as small as the root of the rounding of the Hessian
    assert np.abs(values[order[:3]]).max() < 1e-9 or np.abs(acoustic).max() < 1e-3


def gamma_hessian(atoms: Atoms, calculator: PETCalculator) -> np.ndarray:
    """Mass-weighted second derivatives (6, 6) in eV/Å²/u by central differences of forces."""
    h = 1e-3
    rows = []
    for k in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.reshape(-1)[k] += sign * h
            moved.calc = calculator
            forces.append(moved.get_forces().reshape(-1))
        rows.append(-(forces[0] - forces[1]) / (2 * h))
    mass = np.repeat(atoms.get_masses(), 3)
    hessian = np.array(rows) / np.sqrt(np.outer(mass, mass))
    return 0.5 * (hessian + hessian.T)


def test_optical_modes_of_the_plain_model_split() -> None:
    """Positive control."""
    hessian = gamma_hessian(CRYSTALS["diamond"](), PETCalculator(tiny(), ecse=False))
    values = np.linalg.eigvalsh(hessian)
    optical = values[np.argsort(np.abs(values))[3:]]
    assert np.ptp(np.sqrt(np.abs(optical))) * 15.6 > 1e-4


def test_rotation_spread_shows_what_symmetry_breaking_is_left() -> None:
    atoms = liquid(1)
    plain = PETCalculator(small_pet(), ecse=False)
    spread = plain.get_property("energy_rotation_std", atoms)
    forces = plain.get_property("forces_rotation_std", atoms)
    assert spread > 1e-6
    assert forces.shape == (3,)
    grid = PETCalculator(small_pet(), ecse="quadrature")
    assert 1e-12 < grid.get_property("energy_rotation_std", atoms) < 0.5 * spread
    exact = PETCalculator(small_pet(), ecse="auto")
    assert exact.get_property("energy_rotation_std", atoms) < 1e-9
    assert exact.get_property("forces_rotation_std", atoms).max() < 1e-9
    assert "energy_rotation_std" not in plain_results(atoms)


def plain_results(atoms: Atoms) -> dict[str, object]:
    """Results where nobody asked for the spread."""
    calculator = PETCalculator(small_pet(), ecse=False)
    calculator.calculate(atoms, ["forces"])
    return calculator.results


def test_refusals() -> None:
    with pytest.raises(ValueError, match="trained in local frames"):
        PETCalculator(tiny(ecse="layerwise"), ecse=False)
    with pytest.raises(ValueError, match="only for a potential that was trained so"):
        PETCalculator(tiny(), ecse="layerwise")
    with pytest.raises(ValueError, match="its neighbors alone"):
        PETCalculator(tiny(), ecse="local")
