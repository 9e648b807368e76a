"""Uncertainties fitted by training: calibrated, saved, and of no effect on the weights."""

import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from training.conftest import labeled_crystals

from pet_calc import PETCalculator
from pet_calc.errors import DatasetError
from pet_calc.io.models.files import WEIGHTS
from pet_calc.io.models.uncertainty import find_uncertainty
from pet_calc.io.models.weights import load_model
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.uncertainty import calibration_error, compare


@pytest.fixture
def run(tmp_path, data_folder, config_table):
    """A short run that fits uncertainties on ten held-out frames."""
    config_table["data"]["validation_frames"] = 10
    config_table["uncertainty"] = {"members": 8, "calibration": "squared_residuals"}
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    train(config, tmp_path / "run", data)
    return tmp_path / "run", config, data


def test_fitted_uncertainties_are_calibrated_and_used(run):
    folder, _, data = run
    model = load_model(folder / "model")
    llpr = find_uncertainty(folder / "model")
    assert llpr.n_members == 8
    found = calibration_error(model, llpr, [prepare(f, model.cutoff) for f in data.validation])
    assert found.z_rms == pytest.approx(1.0, rel=1e-3)
    stored = json.loads((folder / "calibration.json").read_text())
    assert set(stored) == {"validation", "test"}
    assert stored["validation"]["z_rms"] == pytest.approx(1.0, rel=1e-6)
    assert stored["test"]["count"] == len(data.test)
    assert (folder / "reliability.png").read_bytes().startswith(b"\x89PNG")
    calculator = PETCalculator(folder / "model")
    atoms = labeled_crystals(1)[0]
    sigma = calculator.get_property("energy_uncertainty", atoms)
    assert sigma > 0
    assert calculator.get_property("forces_uncertainty", atoms).shape == (len(atoms), 3)
    # a crystal under a pressure that no frame was under
    atoms.set_cell(atoms.cell * 0.85, scale_atoms=True)
    assert calculator.get_property("energy_uncertainty", atoms) > 3 * sigma


def test_uncertainties_change_no_weights_and_may_be_added_later(
    run, tmp_path, data_folder, config_table
):
    folder, _, _ = run
    del config_table["uncertainty"]
    plain = TrainConfig.from_dict(config_table)
    train(plain, tmp_path / "plain", load_data(plain, data_folder))
    weights = (folder / "model" / WEIGHTS).read_bytes()
    assert (tmp_path / "plain" / "model" / WEIGHTS).read_bytes() == weights
    assert (
        "energy_uncertainty"
        not in PETCalculator(tmp_path / "plain" / "model").implemented_properties
    )
    config_table["uncertainty"] = {"members": 0}
    later = TrainConfig.from_dict(config_table)
    train(later, tmp_path / "plain", load_data(later, data_folder))
    assert find_uncertainty(tmp_path / "plain" / "model").n_members == 0


def test_uncertainties_need_validation_energies(tmp_path, data_folder, config_table):
    config_table["uncertainty"] = {}
    config = TrainConfig.from_dict(config_table)
    data = load_data(config, data_folder)
    bare = replace(data, validation=[replace(f, energy=None) for f in data.validation])
    with pytest.raises(DatasetError, match="needs energies of validation frames"):
        train(config, tmp_path / "run", bare)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": "nll"}, "`uncertainty.calibration` must be one of"),
        ({"members": 1}, "`uncertainty.members` must be 0 or at least 2, got 1"),
        ({"number": 3}, r"unknown option\(s\) \['number'\] in uncertainty"),
    ],
)
def test_other_options_are_refused(config_table, options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(config_table | {"uncertainty": options})


def test_statistics_of_normal_errors():
    generator = torch.Generator().manual_seed(0)
    sigma = torch.rand(20_000, dtype=torch.float64, generator=generator) + 0.1
    errors = sigma * torch.randn(20_000, dtype=torch.float64, generator=generator)
    counts = torch.full((20_000,), 4)
    found = compare(errors, sigma, counts)
    assert found.z_rms == pytest.approx(1.0, abs=0.02)
    assert found.within_one == pytest.approx(0.683, abs=0.01)
    assert found.within_two == pytest.approx(0.954, abs=0.005)
    assert found.mean_sigma == pytest.approx(1e3 * 0.6 / 4, rel=0.02)
    # of a calibrated normal distribution: σ / sqrt(π), and log(σ) + (1 + log 2π) / 2
    assert found.crps == pytest.approx(1e3 * 0.6 / 4 / np.sqrt(np.pi), rel=0.02)
    expected = sigma.log().mean().item() + 0.5 * (1 + np.log(2 * np.pi))
    assert found.nll == pytest.approx(expected, abs=0.02)
    assert 0.2 < found.rank_correlation < 0.8
    # positive control: half the uncertainty is noticed
    half = compare(errors, 0.5 * sigma, counts)
    assert half.z_rms == pytest.approx(2.0, abs=0.04)
    assert half.crps > found.crps
    assert half.nll > found.nll
    assert half.within_one < 0.4


def test_charges_in_the_data_are_learned(tmp_path, config_table):
    """Frames that differ in their charge alone have two energies, which only the charge tells."""
    frames = labeled_crystals(8)
    pairs = []
    for atoms in frames:
        for charge, shift in ((0, 0.0), (1, 6.0)):
            other = atoms.copy()
            other.info = {"charge": charge, "REF_energy": atoms.get_potential_energy() + shift}
            pairs.append(other)
    ase.io.write(tmp_path / "train.extxyz", pairs)
    config_table["data"] = {"train": ["train.extxyz"], "validation": ["train.extxyz"]}
    config_table["optimizer"] = {"name": "adam", "ema_decay": 0.0}
    config_table["stages"] = [
        {
            "steps": 60,
            "learning_rate": 1e-2,
            "warmup_steps": 1,
            "batch_size": 4,
            "loss": {"forces": 0},
        }
    ]
    errors = {}
    for conditioning in (True, False):
        config_table["model"]["system_conditioning"] = conditioning
        config = TrainConfig.from_dict(config_table)
        out = tmp_path / str(conditioning)
        table = train(config, out, load_data(config, tmp_path))
        errors[conditioning] = table["validation"].energy.rmse
    assert errors[False] > 300  # 6 eV on 8 atoms, half of it either way
    assert errors[True] < 0.5 * errors[False]
    atoms = frames[0].copy()
    atoms.calc = PETCalculator(tmp_path / "True" / "model")
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    assert atoms.get_potential_energy() - neutral == pytest.approx(6.0, abs=3.0)
