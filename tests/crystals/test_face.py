"""What Python users call: properties and crystals as results, with no file written."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from crystals.models.crystals import small_model

from pet_calc.cli import main
from pet_calc.crystals import GenerateConfig, PredictConfig, generate, predict
from pet_calc.crystals.generation.pipeline import Candidate, representative
from pet_calc.crystals.generation.proposals import Proposal
from pet_calc.crystals.io.property_weights import save_property_model
from pet_calc.crystals.models import PropertyEnsemble
from pet_calc.crystals.properties.predictor import PropertyPredictor
from pet_calc.workflows.relax import RelaxConfig

SALT = bulk("NaCl", "rocksalt", 5.64)


def test_the_face_is_cheap_to_import() -> None:
    code = "import sys, pet_calc.crystals as c; c.PredictConfig; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_properties_of_several_crystals(tmp_path) -> None:
    model = PropertyEnsemble.of([small_model("cgcnn").float()])
    save_property_model(tmp_path, model, {})
    (name,) = (t.name for t in model.config.targets)
    config = PredictConfig(properties=(name,), model=str(tmp_path))
    found = predict([SALT, molecule("H2O")], config)
    assert list(found) == [name]
    assert found[name][0].value == PropertyPredictor(name, tmp_path)(SALT).value
    assert np.isnan(found[name][1].value)
    assert "without H" in found[name][1].reason
    assert predict(SALT, config)[name][0].value == found[name][0].value
    with pytest.raises(ValueError, match="tuple of names"):
        PredictConfig(properties="band_gap")


def test_crystals_without_a_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = RelaxConfig(cell="free", fmax=0.05, steps=30)
    config = GenerateConfig("Cu", (1,), 2, ("substitution",), relax=quick)
    found = generate(config, EMT())
    assert found.kept[0].space_group == "Fm-3m (225)"
    assert found.kept[0].atoms is not None
    assert not list(tmp_path.iterdir())
    written = generate(config, EMT(), tmp_path / "run")
    assert [c.energy for c in written.kept] == [c.energy for c in found.kept]


def test_the_most_symmetric_member_stands_for_a_crystal() -> None:
    """A distorted one that is lower by less than a relaxation can tell does not."""
    proposal = Proposal("a", "random", 1, SALT)
    low = Candidate(proposal, "converged", atoms=SALT, energy=-2.0557, space_group="P4/nmm (129)")
    cubic = replace(low, energy=-2.0550, space_group="Fm-3m (225)")
    assert representative([low, cubic]) is cubic
    assert representative([cubic, replace(cubic)]) is cubic
    far = replace(cubic, energy=-2.0)
    assert representative([low, far]) is low


def test_the_command_line_keeps_warnings_of_spglib_off_the_terminal(monkeypatch) -> None:
    """Those of its C code, where no group fits a structure well; what a user chose stays."""
    monkeypatch.setattr(sys, "argv", ["pet-calc", "--help"])
    for given, expected in (("", "OFF"), ("ON", "ON")):
        monkeypatch.setenv("SPGLIB_WARNING", given)
        if not given:
            monkeypatch.delenv("SPGLIB_WARNING")
        with pytest.raises(SystemExit):
            main()
        assert os.environ["SPGLIB_WARNING"] == expected
