"""Uncertainties as results of PETCalculator."""

import copy
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from calculators.small_potentials import liquid, rare_pet, small_pet

from pet_calc import PETCalculator
from pet_calc.calculators.results import (
    DERIVATIVE_UNCERTAINTIES,
    ENERGY_UNCERTAINTIES,
    PROPERTIES,
    ROTATION_PROPERTIES,
)
from pet_calc.errors import IntegrityError, PotentialNotFoundError
from pet_calc.io.models.uncertainty import UNCERTAINTY, write_uncertainty
from pet_calc.io.models.weights import load_model, save_model
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR, LastLayerEnsemble, fit_llpr

#: Of a calculator whose model does not know its uncertainty.
WITHOUT = [*PROPERTIES, *ROTATION_PROPERTIES]
ALL = (*ENERGY_UNCERTAINTIES, *DERIVATIVE_UNCERTAINTIES)
SHAPES = {
    "energy_uncertainty": (),
    "energies_uncertainty": (24,),
    "energy_ensemble": (6,),
    "forces_uncertainty": (24, 3),
    "stress_uncertainty": (6,),
}


def fitted(folder: Path, model, members=6) -> Path:
    """A saved model with an uncertainty model fitted to a few liquids."""
    save_model(folder, model)
    calculator = PETCalculator(folder, dtype="float64")
    features = torch.from_numpy(
        np.stack([calculator.get_features(liquid(seed=k), pooled=True) for k in range(40)])
    )
    errors = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    llpr = fit_llpr(features, torch.full((40,), 24), features, errors, members=members)
    save_model(folder, model, dict(write_uncertainty(folder, {model.energy_head: llpr})))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("fitted") / "model", small_pet())


@pytest.fixture
def calculator(folder) -> PETCalculator:
    return PETCalculator(folder, dtype="float64")


def test_published_uncertainties(reference_dir: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path))
    checkpoint = reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt"
    calculator = PETCalculator(checkpoint, dtype="float64")
    frames = ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")
    structures = {a.info["name"]: a for a in frames}
    with np.load(reference_dir / "pet" / "llpr.f64.results.npz") as archive:
        golden = dict(archive)
    for name in {key.split("/")[0] for key in golden}:
        atoms = structures[name]
        for result, key in (
            ("energy", "system/energy"),
            ("energy_uncertainty", "system/energy_uncertainty"),
            ("energies_uncertainty", "atom/energy_uncertainty"),
            ("energy_ensemble", "system/energy_ensemble"),
        ):
            found = calculator.get_property(result, atoms)
            expected = golden[f"{name}/{key}"].reshape(np.shape(found))
            np.testing.assert_allclose(found, expected, rtol=1e-8, err_msg=f"{name} {key}")
        features = calculator.get_features(atoms, pooled=True)
        expected = golden[f"{name}/system/last_layer_features"][0]
        np.testing.assert_allclose(features, expected, rtol=1e-8, atol=1e-12)
        assert calculator.get_property("forces_uncertainty", atoms).shape == (len(atoms), 3)


def test_shapes_and_declaration(calculator) -> None:
    assert calculator.implemented_properties == [*WITHOUT, *ALL]
    assert PETCalculator(small_pet()).implemented_properties == WITHOUT
    for name, shape in SHAPES.items():
        value = calculator.get_property(name, liquid())
        assert np.shape(value) == shape, name
        assert np.all(np.isfinite(value)), name
        if name != "energy_ensemble":
            assert np.all(np.asarray(value) > 0), name
    assert calculator.results["energy_ensemble"].mean() == pytest.approx(
        calculator.results["energy"], abs=1e-8
    )


def test_uncertainties_are_computed_only_when_asked_for(calculator, monkeypatch) -> None:
    calls = []
    plain = LastLayerEnsemble.evaluate

    def counted(self, *arguments, **options):
        calls.append(self.derivatives)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(LastLayerEnsemble, "evaluate", counted)
    atoms = liquid()
    atoms.calc = calculator
    atoms.get_forces()
    assert list(calculator.results) == list(PROPERTIES)
    assert calls == []
    energy_results = calculator.results
    calculator.get_property("energy_uncertainty", atoms)
    assert list(calculator.results) == [*PROPERTIES, *ENERGY_UNCERTAINTIES]
    assert calculator.results["forces"] is energy_results["forces"], "nothing is computed again"
    assert list(energy_results) == list(PROPERTIES), "earlier results stay as they were"
    calculator.get_property("energy_ensemble", atoms)
    assert calls == [False]
    calculator.get_property("stress_uncertainty", atoms)
    calculator.get_property("forces_uncertainty", atoms)
    assert calls == [False, True]
    atoms.get_potential_energy()
    assert calls == [False, True]


def test_one_forward_pass_gives_results_and_uncertainties(calculator, monkeypatch) -> None:
    passes = []
    plain = PET.features

    def counted(self, *arguments):
        passes.append(1)
        return plain(self, *arguments)

    monkeypatch.setattr(PET, "features", counted)
    atoms = liquid()
    expected = PETCalculator(calculator.potential.folder, dtype="float64").evaluate(atoms)
    passes.clear()
    calculator.get_property("forces_uncertainty", atoms)
    assert len(passes) == 1
    for name in PROPERTIES:
        np.testing.assert_allclose(calculator.results[name], expected[name], rtol=0, atol=1e-12)
    # control: what is asked for later takes a pass of its own
    other = liquid(seed=4)
    calculator.get_property("forces", other)
    calculator.get_property("energy_uncertainty", other)
    assert len(passes) == 3


def test_no_uncertainty_is_stale(calculator, folder) -> None:
    atoms = liquid()
    before = {name: calculator.get_property(name, atoms) for name in SHAPES}
    atoms.rattle(0.1, seed=1)
    fresh = PETCalculator(folder, dtype="float64")
    for name, value in before.items():
        found = calculator.get_property(name, atoms)
        np.testing.assert_allclose(found, fresh.get_property(name, atoms), rtol=1e-6, atol=1e-10)
        assert np.abs(found - value).max() > 1e-9, name


def test_structures_far_from_the_training_set_are_less_certain(calculator) -> None:
    known = calculator.get_property("energy_uncertainty", liquid(seed=3))
    squeezed = liquid(seed=3)
    squeezed.set_cell(squeezed.cell * 0.8, scale_atoms=True)
    assert calculator.get_property("energy_uncertainty", squeezed) > 2 * known


def test_forces_spread_as_the_energies_of_the_members(calculator) -> None:
    """Finite differences of the ensemble: independent of the backward passes."""
    atoms = liquid(1, length=4.0)
    found = calculator.get_property("forces_uncertainty", atoms)
    step = 1e-4
    for atom, axis in ((0, 0), (2, 1)):
        ensembles = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            ensembles.append(calculator.get_property("energy_ensemble", moved))
        forces = -(ensembles[0] - ensembles[1]) / (2 * step)
        assert found[atom, axis] == pytest.approx(forces.std(ddof=1), rel=1e-4)


def test_stress_uncertainty_needs_three_periodic_directions(calculator) -> None:
    water = ase.build.molecule("H2O")
    water.calc = calculator
    water.get_potential_energy()
    results = calculator.results
    with pytest.raises(PropertyNotImplementedError, match="periodicity in three dimensions"):
        calculator.get_property("stress_uncertainty", water)
    assert calculator.results is results
    assert np.isfinite(calculator.get_property("forces_uncertainty", water)).all()
    assert "stress_uncertainty" not in calculator.results


def test_models_without_uncertainties_do_not_have_them(tmp_path) -> None:
    atoms = liquid()
    atoms.calc = PETCalculator(small_pet())
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("energy_uncertainty", atoms)
    few = PETCalculator(fitted(tmp_path / "none", small_pet(), members=0), dtype="float64")
    assert few.implemented_properties == [*WITHOUT, "energy_uncertainty", "energies_uncertainty"]
    assert few.get_property("energy_uncertainty", atoms) > 0
    with pytest.raises(PropertyNotImplementedError):
        few.get_property("forces_uncertainty", atoms)


def test_direct_forces_have_no_uncertainty_from_the_energy(tmp_path) -> None:
    model = rare_pet(1, direct_forces=True, direct_stress=True)
    folder = fitted(tmp_path / "model", model)
    direct = PETCalculator(folder, dtype="float64", non_conservative="forces")
    assert direct.implemented_properties == [
        *WITHOUT,
        *ENERGY_UNCERTAINTIES,
        "stress_uncertainty",
    ]
    assert direct.get_property("stress_uncertainty", liquid()).shape == (6,)
    assert "forces_uncertainty" not in direct.results


def test_uncertainty_belongs_to_the_head_in_use(tmp_path) -> None:
    model = rare_pet(2, energy_heads=("energy", "energy/b"), energy_head="energy/b")
    folder = fitted(tmp_path / "model", model)
    assert "energy_uncertainty" in PETCalculator(folder).implemented_properties
    other = PETCalculator(folder, variant="energy")
    assert other.implemented_properties == WITHOUT


def test_uncertainty_sees_the_charge(tmp_path) -> None:
    model = rare_pet(3, system_conditioning=True)
    calculator = PETCalculator(fitted(tmp_path / "model", model), dtype="float64")
    atoms = liquid()
    neutral = calculator.get_property("energy_uncertainty", atoms)
    forces = calculator.get_property("forces_uncertainty", atoms)
    atoms.info["charge"] = 2
    assert calculator.get_property("energy_uncertainty", atoms) > 1.01 * neutral
    assert np.abs(calculator.get_property("forces_uncertainty", atoms) - forces).max() > 1e-6


def test_missing_and_damaged_uncertainties_are_refused(folder, tmp_path) -> None:
    content = (folder / UNCERTAINTY).read_bytes()
    for damage in (content[:-1] + b"x", None):
        other = {"energy": LLPR(*(torch.ones(1, 1) for _ in range(3)))}
        record = write_uncertainty(tmp_path / "model", other)
        save_model(tmp_path / "model", load_model(folder), dict(record))
        if damage is None:
            (tmp_path / "model" / UNCERTAINTY).unlink()
            with pytest.raises(PotentialNotFoundError, match="records uncertainties"):
                PETCalculator(tmp_path / "model")
        else:
            (tmp_path / "model" / UNCERTAINTY).write_bytes(damage)
            with pytest.raises(IntegrityError, match="must have the SHA-256"):
                PETCalculator(tmp_path / "model")


# several models


def test_several_models_give_mean_and_spread() -> None:
    models = [small_pet(seed=k) for k in range(3)]
    atoms = liquid()
    calculator = PETCalculator(models)
    assert calculator.implemented_properties == [*WITHOUT, *ALL]
    atoms.calc = calculator
    atoms.get_potential_energy()
    assert list(calculator.results) == [*PROPERTIES, *ALL], "the spread costs nothing more"
    singles = []
    for model in models:
        alone = PETCalculator(model)
        alone.get_property("energy", atoms)
        singles.append(alone.results)
    for name in PROPERTIES:
        mean = np.mean([r[name] for r in singles], axis=0)
        np.testing.assert_allclose(calculator.results[name], mean, atol=1e-9, err_msg=name)
    for name, of in (
        ("energy_uncertainty", "energy"),
        ("energies_uncertainty", "energies"),
        ("forces_uncertainty", "forces"),
        ("stress_uncertainty", "stress"),
    ):
        spread = np.std([r[of] for r in singles], axis=0, ddof=1)
        np.testing.assert_allclose(calculator.results[name], spread, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(
        calculator.results["energy_ensemble"], [r["energy"] for r in singles], atol=1e-9
    )
    assert calculator.get_property("energy_ensemble", atoms).shape == (3,)


def test_several_models_conserve_or_not_and_see_charges(tmp_path) -> None:
    options = {"direct_forces": True, "direct_stress": True, "system_conditioning": True}
    models = [rare_pet(k, **options) for k in range(2)]
    found = []
    for charge in (0, 1):
        atoms = liquid()
        atoms.info["charge"] = charge
        atoms.calc = PETCalculator(models, non_conservative=True)
        forces = atoms.get_forces()
        alone = []
        for model in models:
            atoms.calc = PETCalculator(model, non_conservative=True)
            alone.append(atoms.get_forces())
        np.testing.assert_allclose(forces, np.mean(alone, axis=0), atol=1e-12)
        found.append(forces)
    assert np.abs(found[1] - found[0]).max() > 1e-6


def test_several_models_from_folders_have_names(folder, tmp_path) -> None:
    save_model(tmp_path / "other", small_pet(seed=1))
    calculator = PETCalculator([folder, tmp_path / "other"])
    assert [p.folder for p in calculator.potentials] == [folder, tmp_path / "other"]
    values = calculator.todict()
    assert values["model"] == [str(folder), str(tmp_path / "other")]
    assert len(set(values["sha256"])) == 2
    assert str(folder) in repr(calculator)
    assert calculator.get_property("energy_uncertainty", liquid()) > 0
    with pytest.raises(ValueError, match="belongs to one model"):
        calculator.get_features(liquid())


def test_lists_that_make_no_committee_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two of them"):
        PETCalculator([small_pet()])
    with pytest.raises(ValueError, match="each named"):
        PETCalculator(["auto", "pet-water"])
    with pytest.raises(TypeError, match="got list"):
        PETCalculator([small_pet(), 3])
    with pytest.raises(ValueError, match="`dtype` must be named"):
        PETCalculator([small_pet(), small_pet(dtype=torch.float32)])
    assert PETCalculator([small_pet(), small_pet(dtype=torch.float32)], dtype="float64")


# with the rest of ASE


def test_programs_that_know_no_uncertainties_are_not_disturbed(calculator, tmp_path) -> None:
    atoms = liquid()
    atoms.calc = calculator
    calculator.get_property("forces_uncertainty", atoms)
    assert set(atoms.get_properties(["energy", "forces"])) >= {"energy", "forces"}
    calculator.get_property("forces_uncertainty", atoms)
    for name in ("frame.extxyz", "frame.traj", "frame.json"):
        ase.io.write(tmp_path / name, atoms)
        again = ase.io.read(tmp_path / name)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-7)
    known = {k: v for k, v in calculator.results.items() if k in PROPERTIES}
    SinglePointCalculator(atoms, **known)
    other = copy.deepcopy(atoms)
    other.rattle(0.1, seed=0)
    assert other.calc.get_property("energy_uncertainty", other) > 0
