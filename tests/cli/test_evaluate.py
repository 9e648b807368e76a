"""``pet-calc evaluate`` as a user runs it."""

from dataclasses import replace

import ase.io
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from calculators.small_potentials import liquid, publish, small_pet
from typer.testing import CliRunner

from pet_calc.calculators import PETCalculator
from pet_calc.cli import app
from pet_calc.errors import DatasetError, PotentialNotFoundError
from pet_calc.io.models.uncertainty import write_uncertainty
from pet_calc.io.models.weights import load_model, save_model
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR


@pytest.fixture
def folder(tmp_path):
    """A model, and structures labeled with that model plus 0.1 eV/Å on every force."""
    model = small_pet()
    save_model(tmp_path / "model", model)
    frames = []
    for seed in range(2):
        atoms = liquid(seed=seed)
        atoms.calc = PETCalculator(tmp_path / "model", dtype="float64")
        energy, forces = atoms.get_potential_energy(), atoms.get_forces() + 0.1
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    ase.io.write(tmp_path / "data.extxyz", frames)
    return tmp_path


def run(folder, *extra):
    command = ["evaluate", str(folder / "data.extxyz"), "--model", str(folder / "model"), *extra]
    return CliRunner().invoke(app, command)


def test_prints_the_errors(folder):
    result = run(folder, "--dtype", "float64", "--rotations", "2")
    assert result.exit_code == 0, result.output
    forces = next(x for x in result.output.splitlines() if "│ forces  " in x)
    assert "100.00" in forces
    assert "under rotation and reflection" in result.output


def test_reads_another_variant(folder):
    small = small_pet()
    config = replace(small.config, energy_heads=("energy", "other"))
    model = PET(config, dtype=torch.float64)
    model.load_state_dict(small.state_dict(), strict=False)
    save_model(folder / "model", model)
    main, other = (run(folder, "--dtype", "float64", *v) for v in ([], ["--variant", "other"]))
    assert main.exit_code == other.exit_code == 0, other.output
    energies = [
        next(x for x in found.output.splitlines() if "│ energy  " in x) for found in (main, other)
    ]
    assert energies[0] != energies[1]
    refused = run(folder, "--variant", "third")
    assert isinstance(refused.exception, ValueError)
    assert "third" in str(refused.exception)


def test_refuses_what_cannot_be_compared(folder):
    bare = ase.io.read(folder / "data.extxyz", ":")
    for atoms in bare:
        atoms.calc = None
    ase.io.write(folder / "data.extxyz", bare)
    assert isinstance(run(folder).exception, DatasetError)


def test_refuses_an_absent_model(folder):
    result = CliRunner().invoke(
        app, ["evaluate", str(folder / "data.extxyz"), "--model", str(folder / "absent")]
    )
    assert isinstance(result.exception, PotentialNotFoundError)


def test_prints_the_calibration_of_uncertainties(folder):
    assert "uncertainty of the energy" not in run(folder).output
    model = load_model(folder / "model")
    n = len(PETCalculator(model).get_features(liquid(1, length=4.0), pooled=True))
    eye = torch.eye(n, dtype=torch.float64)
    llpr = LLPR(eye, torch.tensor(1e-3, dtype=torch.float64), eye[:0])
    save_model(folder / "model", model, dict(write_uncertainty(folder / "model", {"energy": llpr})))
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "uncertainty of the energy" in result.output
    assert "root mean square of e / σ" in result.output


def test_picks_a_potential_for_the_elements(folder, monkeypatch):
    publish(folder / "shipped", water_v1="H O", salt_v1="Na Cl")
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (folder / "shipped",))
    result = CliRunner().invoke(app, ["evaluate", str(folder / "data.extxyz")])
    assert result.exit_code == 0, result.output
    assert "potential: water-v1" in result.output
