"""Every model obeys every contract on every structure, and every check can fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from contracts.energy_model import (
    CHECKS,
    PERIODIC_CHECKS,
    Potential,
    error_ladder,
    forces_match_energy,
    repeated,
    rotation_invariant,
    serializable,
    stress_matches_energy,
)
from contracts.models import (
    ANGULAR,
    BROKEN,
    FLOAT32_MODELS,
    LJ_OPTIONS,
    MODELS,
    Forgetful,
    lennard_jones,
    random_crystalformer,
    random_pet,
)
from contracts.structures import PERIODIC, STRUCTURES, system

from pet_calc.geometry import System
from pet_calc.models import EnergyModel

ALL_CHECKS = CHECKS | PERIODIC_CHECKS | {"rotation_invariant": rotation_invariant}
DIFFERENCES = {"forces_match_energy", "stress_matches_energy"}


def cases(checks: dict[str, object]) -> list[tuple[str, str]]:
    return [
        (check, structure)
        for check in checks
        for structure in (PERIODIC if check in PERIODIC_CHECKS else STRUCTURES)
    ]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("check", "structure"), cases(CHECKS | PERIODIC_CHECKS))
def test_contract(check: str, structure: str, model: str) -> None:
    ALL_CHECKS[check](MODELS[model](), STRUCTURES[structure]())


@pytest.mark.parametrize("model", FLOAT32_MODELS)
@pytest.mark.parametrize("structure", ["water-24", "slab-9", "one-atom"])
@pytest.mark.parametrize("check", [c for c in CHECKS if c not in DIFFERENCES])
def test_contract_in_float32(check: str, structure: str, model: str) -> None:
    CHECKS[check](FLOAT32_MODELS[model](), STRUCTURES[structure]())


@pytest.mark.parametrize(
    ("check", "structure", "make"),
    BROKEN,
    ids=[f"{check}-{structure}-{k}" for k, (check, structure, _) in enumerate(BROKEN)],
)
def test_check_refuses_broken_potential(
    check: str, structure: str, make: Callable[[], Potential]
) -> None:
    ALL_CHECKS[check](MODELS["lj"](), STRUCTURES[structure]())
    with pytest.raises(AssertionError):
        ALL_CHECKS[check](make(), STRUCTURES[structure]())


def test_every_check_has_been_seen_to_fail() -> None:
    assert {check for check, _, _ in BROKEN} == set(ALL_CHECKS)


@pytest.mark.parametrize("model", ["lj", "crystalformer", "pet-angular"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_models_of_distances_and_angles_are_rotation_invariant(structure: str, model: str) -> None:
    rotation_invariant(MODELS[model](), STRUCTURES[structure]())


@pytest.mark.parametrize("model", ["pet-cartesian", "pet-radial"])
def test_plain_pet_is_not_rotation_invariant(model: str) -> None:
    with pytest.raises(AssertionError, match="energy: differs"):
        rotation_invariant(MODELS[model](), STRUCTURES["water-24"]())


@pytest.mark.parametrize("options", [{}, {"input_encoding": "radial"}, ANGULAR])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_state_dict_holds_all_of_pet(dtype: torch.dtype, options: dict[str, object]) -> None:
    model, twin = random_pet(3, dtype, **options), random_pet(4, dtype, **options)
    serializable(Potential(model), twin, STRUCTURES["water-24"]())


def test_state_dict_holds_all_of_crystalformer() -> None:
    model, twin = random_crystalformer(3), random_crystalformer(4)
    serializable(Potential(model), twin, STRUCTURES["water-24"]())


def test_lost_parameter_is_noticed() -> None:
    with pytest.raises(AssertionError, match="lost"):
        serializable(Potential(Forgetful(2.0)), Forgetful(1.0), STRUCTURES["water-24"]())


@pytest.mark.parametrize("model", [lennard_jones(), random_pet(), random_crystalformer()])
def test_model_satisfies_the_protocol(model: EnergyModel) -> None:
    assert isinstance(model, EnergyModel)
    assert list(inspect.signature(model.energies).parameters) == ["system", "edges", "vectors"]
    assert model.atomic_numbers == tuple(sorted(model.atomic_numbers))
    assert not isinstance(object(), EnergyModel)


@pytest.mark.parametrize(
    "kind", ["lj", "pet-cartesian", "pet-radial", "pet-angular", "crystalformer"]
)
def test_float32_follows_float64(kind: str) -> None:
    water = STRUCTURES["water-24"]()
    exact, single = MODELS[kind]()(water), FLOAT32_MODELS[f"{kind}-float32"]()(water)
    assert exact.forces is not None
    assert single.forces is not None
    error = (single.forces - exact.forces).square().mean().sqrt()
    scale = exact.forces.square().mean().sqrt()
    assert 0 < error < 1e-5 * scale
    assert abs(single.energy.item() - exact.energy.item()) < 1e-5 * abs(exact.energy.item())


@pytest.mark.parametrize("cell", ["silicon-2-strained", "one-atom-crystal"])
def test_small_cell_counts_every_image(cell: str) -> None:
    """A cell below half the cutoff, against a supercell that minimum images describe."""
    small = STRUCTURES[cell]()
    potential = MODELS["lj"]()
    side = 1 / np.linalg.norm(np.linalg.inv(small.cell[0].numpy()), axis=0)
    assert side.min() < potential.model.cutoff
    counts = np.ceil(2 * potential.model.cutoff / side).astype(int)
    large = repeated(small, (int(counts[0]), int(counts[1]), int(counts[2])))
    inverse = np.linalg.inv(large.cell[0].numpy())
    x = large.positions.numpy()
    gaps = (x[None] - x[:, None]) @ inverse
    images = np.array(list(np.ndindex(3, 3, 3))) - 1.0  # a skewed cell needs its neighbors too
    gaps = (gaps - np.rint(gaps))[:, :, None] + images
    r = np.linalg.norm(gaps @ large.cell[0].numpy(), axis=-1)
    r = r[(r > 1e-9) & (r < potential.model.cutoff)]
    options = LJ_OPTIONS
    s = (r - options["cutoff"]) / options["cutoff_width"] + 1
    step = np.where(s > 0, 0.5 * (1 + np.tanh(1 / np.tan(np.pi * np.clip(s, 1e-6, 1)))), 1.0)
    x6 = (options["sigma"] / r) ** 6
    pairs = 0.5 * float((4 * options["epsilon"] * (x6 * x6 - x6) * step).sum())
    n = large.n_atoms // small.n_atoms
    assert potential.energy(small).item() == pytest.approx(pairs / n, rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_derivatives_in_the_box_of_192_atoms(reference_dir: Path, model: str) -> None:
    atoms = ase.io.read(reference_dir / "pet" / "structures.extxyz", 1)
    assert not isinstance(atoms, list)
    box = system(atoms.positions, atoms.numbers, np.array(atoms.cell))
    assert box.n_atoms == 192
    forces_match_energy(MODELS[model](), box)
    if model == "lj":
        stress_matches_energy(MODELS[model](), box)


class OnALine(Potential):
    """An energy that is a function of the x of the first atom of each system."""

    function: Callable[[torch.Tensor], torch.Tensor]

    def energy(self, system: System) -> torch.Tensor:
        return type(self).function(system.positions[:, 0])


@pytest.mark.parametrize(
    ("exponent", "slope", "refused"),
    [(3.0, 0.0, None), (2.5, 0.0, "fourfold"), (3.0, 1e-5, "best error")],
    ids=["smooth", "kink", "wrong-slope"],
)
def test_error_ladder(exponent: float, slope: float, refused: str | None) -> None:
    class Power(OnALine):
        @staticmethod
        def function(x: torch.Tensor) -> torch.Tensor:
            return x.sign() * x.abs() ** exponent + slope * x

    def climb() -> None:
        error_ladder(
            Power(lennard_jones()),
            lambda h: system([[h, 0.0, 0.0]], [1]),
            0.0,
            unit=1.0,
            limit=1e-6,
            what="test",
        )

    if refused is None:
        climb()
    else:
        with pytest.raises(AssertionError, match=refused):
            climb()
