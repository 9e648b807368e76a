"""Property models trained and used from the command line; input that has no answer."""

import csv
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from typer.testing import CliRunner

from pet_calc.calculators.properties import Prediction, PropertyPredictor, gated, predict
from pet_calc.cli import app
from pet_calc.errors import InvalidStructureError, PetCalcError, UnsupportedElementError
from pet_calc.workflows.properties import PropertyObserver

CONFIG = """
name = "small"
members = 2
[property]
backbone = "cgcnn"
hidden = 8
scales = true
targets = [{ name = "bulk_modulus", unit = "GPa", kind = "log10" }, { name = "x", unit = "eV" }]
options = { width = 8, layers = 1 }
[data]
train = ["crystals.csv"]
validation = ["held.xyz"]
[schedule]
epochs = 30
batch_size = 8
learning_rate = 0.02
"""


def crystals(n: int, seed: int) -> list[Atoms]:
    """Rocksalt crystals, stiffer the smaller they are."""
    found = []
    for a in np.random.default_rng(seed).uniform(4.5, 6.5, n):
        atoms = bulk("NaCl" if a < 5.5 else "MgO", "rocksalt", float(a))
        atoms.info |= {"bulk_modulus": 10 ** (4 - 0.4 * a), "x": a - 5}
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model of rocksalt crystals, from a CSV file and extended XYZ."""
    data = tmp_path_factory.mktemp("data")
    rows = ["file,bulk_modulus,x"]
    for k, atoms in enumerate(crystals(60, 0)):
        write(data / f"{k}.vasp", atoms)
        # a label that is not known is left empty
        rows.append(f"{k}.vasp,{atoms.info['bulk_modulus']},{'' if k == 3 else atoms.info['x']}")
    (data / "crystals.csv").write_text("\n".join(rows))
    write(data / "held.xyz", crystals(20, 1))
    (data / "train.toml").write_text(CONFIG)
    # interrupted once; the same command goes on
    for more in (["--stop-after", "10"], ["--stop-after", "45"], []):
        found = CliRunner().invoke(
            app, ["train", str(data / "train.toml"), "--out", str(data / "run"), *more]
        )
        assert found.exit_code == 0, found.output
    return data


def test_training_learns_and_says_how_well(folder):
    errors = json.loads((folder / "run" / "evaluation.json").read_text())
    spread = np.std([a.info["x"] for a in crystals(20, 1)])
    assert errors["validation"]["x"] < 0.3 * spread
    assert errors["validation"]["bulk_modulus"] < 0.3 * 0.4 * spread
    assert len((folder / "run" / "log.csv").read_text().splitlines()) == 61


def test_a_modulus_is_in_its_unit_with_its_uncertainty(folder):
    atoms = crystals(1, 7)[0]
    found = predict(atoms, "bulk_modulus", folder / "run" / "model")
    assert found.unit == "GPa"
    assert found.value == pytest.approx(atoms.info["bulk_modulus"], rel=0.4)
    assert found.in_domain
    assert found.std > 0


def test_a_swollen_crystal_is_outside_of_the_domain(folder):
    atoms = crystals(1, 7)[0]
    swollen = atoms.copy()
    swollen.set_cell(atoms.cell * 2.5, scale_atoms=True)
    far = predict(swollen, "bulk_modulus", folder / "run" / "model")
    assert not far.in_domain
    assert "unlike" in far.reason
    assert "its volume is" in far.reason


def test_the_verb_writes_tables_and_names_what_it_cannot_judge(folder, tmp_path):
    write(tmp_path / "good.xyz", crystals(3, 9))
    write(tmp_path / "molecule.xyz", molecule("H2O"))
    write(tmp_path / "iron.xyz", bulk("Fe"))
    files = [str(tmp_path / f"{n}.xyz") for n in ("good", "molecule", "iron")]
    command = ["predict", *files, "--property", "x", "--property", "bulk_modulus",
               "--model", str(folder / "run/model"), "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out" / "predict.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 10
    assert [r["value"] for r in rows[3:5]] == ["nan", "nan"]
    assert "Fe" in rows[4]["reason"]
    assert (
        json.loads((tmp_path / "out" / "predict.json").read_text())["predictions"][3]["value"]
        is None
    )
    # nothing is overwritten
    assert CliRunner().invoke(app, command).exit_code == 1
    alone = ["predict", files[1], "--property", "x", "--model", str(folder / "run" / "model")]
    assert CliRunner().invoke(app, [*alone, "--out", str(tmp_path / "b")]).exit_code == 1


def test_bad_input_is_named(folder):
    predictor = PropertyPredictor("x", folder / "run" / "model")
    with pytest.raises(UnsupportedElementError, match="without Fe"):
        predictor(bulk("Fe"))
    isolated = Atoms("Na")
    with pytest.raises(InvalidStructureError, match="periodic in three dimensions"):
        predictor(isolated)
    shared = bulk("NaCl", "rocksalt", 5.6)
    shared.info["occupancy"] = {"0": {"Na": 0.5, "Mg": 0.5}}
    with pytest.raises(InvalidStructureError, match="occupancy"):
        predictor(shared)
    large = bulk("NaCl", "rocksalt", 5.3).repeat(10)
    assert len(large) == 2000
    small = predictor(bulk("NaCl", "rocksalt", 5.3))
    assert predictor(large).value == pytest.approx(small.value, rel=1e-5)
    with pytest.raises(PetCalcError, match="but not 'band_gap'"):
        PropertyPredictor("band_gap", folder / "run" / "model")
    with pytest.raises(PetCalcError, match="is no property model"):
        PropertyPredictor("x", "nowhere")


def test_a_metal_has_no_gap():
    gap = Prediction(0.8, "eV", 0.3, True, "")
    metal = gated(gap, 0.9)
    assert metal.value == 0
    assert "metal" in metal.reason
    assert metal.std == pytest.approx((0.1 * (0.64 + 0.09)) ** 0.5)
    insulator = gated(gap, 0.0)
    assert (insulator.value, insulator.std) == (0.8, pytest.approx(0.3))


def test_an_observer_averages_over_frames(folder):
    observer = PropertyObserver(PropertyPredictor("x", folder / "run" / "model"))
    frames = crystals(10, 11)
    for atoms in frames:
        observer(atoms)
    found = observer.summary()
    assert found.frames == 10
    assert found.mean == pytest.approx(np.mean([p.value for p in observer.predictions]))
    assert found.error > 0
    with pytest.raises(ValueError, match="needs a frame"):
        PropertyObserver(observer.predictor).summary()
