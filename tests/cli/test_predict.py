"""Property models trained and used from the command line; input that has no answer."""

import csv
import hashlib
import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from typer.testing import CliRunner

from pet_calc.cli import app
from pet_calc.crystals.io.property_weights import load_property_model
from pet_calc.crystals.properties.observer import PropertyObserver
from pet_calc.crystals.properties.potential_estimates import PotentialEstimates
from pet_calc.crystals.properties.predictor import Prediction, PropertyPredictor, gated
from pet_calc.crystals.training.property_config import (
    PropertyData,
    PropertySchedule,
    PropertyTraining,
)
from pet_calc.crystals.training.property_data import batches, crystal_set, gather
from pet_calc.crystals.training.property_loop import train_property
from pet_calc.crystals.training.property_network import loss_of
from pet_calc.errors import (
    DatasetError,
    InvalidStructureError,
    PetCalcError,
    UnsupportedElementError,
)
from pet_calc.io.data.crystals import read_crystals

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
    found = PropertyPredictor("bulk_modulus", folder / "run" / "model")(atoms)
    assert found.unit == "GPa"
    assert found.value == pytest.approx(atoms.info["bulk_modulus"], rel=0.4)
    assert found.in_domain
    assert found.std > 0


def test_a_swollen_crystal_is_outside_of_the_domain(folder):
    atoms = crystals(1, 7)[0]
    swollen = atoms.copy()
    swollen.set_cell(atoms.cell * 2.5, scale_atoms=True)
    far = PropertyPredictor("bulk_modulus", folder / "run" / "model")(swollen)
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
    settings = tomllib.loads((tmp_path / "out" / "predict.toml").read_text())
    assert settings["model"] == str(folder / "run/model")
    assert settings["property"] == ["x", "bulk_modulus"]
    weights = (folder / "run/model/weights.safetensors").read_bytes()
    assert settings["provenance"]["sha256"] == [hashlib.sha256(weights).hexdigest()]
    # nothing is overwritten
    assert CliRunner().invoke(app, command).exit_code == 1
    again = ["predict", "--config", str(tmp_path / "out/predict.toml"), "--no-report"]
    assert CliRunner().invoke(app, [*again, "--overwrite"]).exit_code == 0
    assert CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--no-viewer"]).exit_code == 0
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


@pytest.fixture(scope="module")
def blended(folder, tmp_path_factory):
    """The model of `folder`, of one network, with the energies of a shipped potential."""
    out = tmp_path_factory.mktemp("blended")
    text = CONFIG.replace("members = 2", "members = 1")
    text = text.replace(
        "hidden = 8", 'hidden = 8\npotential = { name = "pet-general-v5", target = "x" }'
    )
    config = PropertyTraining.from_toml(written(out / "train.toml", text))
    data = PropertyData(("crystals.csv",), ("energies.xyz",))
    held = crystals(12, 4)
    energies = PotentialEstimates("pet-general-v5")(held)
    for atoms, energy in zip(held, energies.tolist(), strict=True):
        atoms.info["x"] = 0.75 * energy + 0.25 * atoms.info["x"]
    write(folder / "energies.xyz", held)
    train_property(replace(config, data=data), out / "run", folder)
    return out / "run" / "model"


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_potential_has_a_say_in_proportion_to_how_right_it_is(blended):
    weight = float(load_property_model(blended).potential_weight)
    assert weight == pytest.approx(0.75, abs=0.1)
    atoms = crystals(1, 4)[0]
    found = PropertyPredictor("x", blended)(atoms)
    network, energy = atoms.info["x"], float(PotentialEstimates("pet-general-v5")([atoms]))
    assert found.value == pytest.approx(0.75 * energy + 0.25 * network, abs=0.1)
    assert found.std > 0
    assert abs(energy - network) > 0.5  # so that it can be told from either


def test_a_prediction_with_a_potential_is_invariant(blended):
    atoms = crystals(1, 9)[0]
    predictor = PropertyPredictor("x", blended)
    turned = atoms.repeat((2, 1, 1))
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.positions += 0.3
    many = predictor.many([turned, molecule("H2O"), atoms])
    assert many[0].value == pytest.approx(predictor(atoms).value, rel=1e-9)
    assert many[0].std == pytest.approx(predictor(atoms).std, rel=1e-7)
    assert np.isnan(many[1].value)
    assert many[2].value == predictor(atoms).value


def test_a_potential_is_not_asked_about_other_properties(blended, monkeypatch):
    def refuse(self, crystals):
        raise AssertionError("evaluated in vain")

    atoms = crystals(1, 9)[0]
    monkeypatch.setattr(PotentialEstimates, "__call__", refuse)
    found = PropertyPredictor("bulk_modulus", blended)(atoms)
    assert np.isfinite([found.value, found.std]).all()
    with pytest.raises(AssertionError, match="in vain"):
        PropertyPredictor("x", blended)(atoms)


def test_a_potential_must_cover_the_elements_and_estimate_a_target(folder, tmp_path):
    text = CONFIG.replace("hidden = 8", 'potential = { name = "pet-water-v4", target = "x" }')
    config = PropertyTraining.from_toml(written(tmp_path / "train.toml", text))
    with pytest.raises(DatasetError, match=r"pet-water-v4 must cover all elements.*lacks Na, Mg"):
        train_property(config, tmp_path / "run", folder)
    text = text.replace('target = "x"', 'target = "bulk_modulus"')
    config = PropertyTraining.from_toml(written(tmp_path / "train.toml", text))
    with pytest.raises(ValueError, match="must be one of the targets, and of kind 'linear'"):
        train_property(config, tmp_path / "other", folder)


def test_energies_are_given_if_and_only_if_they_are_asked_for(blended, folder):
    predictor = PropertyPredictor("x", blended)
    graph = predictor.graph(crystals(1, 9)[0]).to(torch.float64)
    with pytest.raises(ValueError, match="must be given if the model has a potential"):
        predictor.model(graph)
    without = PropertyPredictor("x", folder / "run" / "model").model
    with pytest.raises(ValueError, match="which is none"):
        without(graph, torch.zeros(1))


def test_frozen_statistics_are_those_of_predictions(tmp_path):
    """The last epochs see each crystal as a prediction does, not beside others of its size."""
    generator = np.random.default_rng(0)
    held = []
    for k in range(64):
        atoms = bulk("NaCl" if k % 2 else "MgO", "rocksalt", float(generator.uniform(4.5, 6.5)))
        atoms = atoms if k % 2 else atoms.repeat((1, 1, 4))
        atoms.rattle(0.05, seed=k)
        atoms.info |= {
            "bulk_modulus": 90.0 + k,
            "x": float(k % 2) + 0.1 * generator.standard_normal(),
        }
        held.append(atoms)
    for name in ("crystals.xyz", "held.xyz"):
        write(tmp_path / name, held)
    text = CONFIG.replace("members = 2", "members = 1").replace("crystals.csv", "crystals.xyz")
    apart = {}
    for frozen in (0, 10):
        more = text + f"frozen_epochs = {frozen}\naverage_epochs = 1\n"
        config = PropertyTraining.from_toml(written(tmp_path / "train.toml", more))
        reports = []
        train_property(config, tmp_path / f"{frozen}", tmp_path, report=reports.append)
        network = load_property_model(tmp_path / f"{frozen}" / "model").networks[0]
        data = crystal_set(read_crystals([tmp_path / "held.xyz"], ["bulk_modulus", "x"]), network,
                           lambda: None)  # fmt: skip
        rows = batches(data, 8, np.random.default_rng(0))
        with torch.no_grad():
            losses = [float(loss_of(network.eval(), *gather(data, r), "l1")) for r in rows]
        apart[frozen] = abs(np.mean(losses) - reports[-1].loss) / reports[-1].loss
    assert apart[10] < 0.03
    assert apart[0] > 0.1
    with pytest.raises(ValueError, match="frozen_epochs"):
        PropertySchedule(epochs=3, frozen_epochs=4)


def test_heads_are_fine_tuned_from_a_model(folder, tmp_path):
    """It starts where that model is, so that one epoch at a tiny rate changes nothing."""
    tuned = CONFIG.replace("members = 2", "members = 1").replace("epochs = 30", "epochs = 1")
    tuned = tuned.replace("learning_rate = 0.02", "learning_rate = 1e-9")
    tuned = tuned.replace('{ name = "bulk_modulus"', '{ name = "new" }, { name = "bulk_modulus"')
    tuned = tuned.replace("[property]", f'[fine_tune]\nfrom = "{folder}/run/model"\n[property]')
    held = crystals(20, 5)
    for k, atoms in enumerate(held):
        atoms.info |= {"new": float(k), "x": atoms.info["x"] + 100.0}
    write(folder / "tuned.xyz", held)
    tuned = tuned.replace("crystals.csv", "tuned.xyz").replace("held.xyz", "tuned.xyz")
    config = PropertyTraining.from_toml(written(tmp_path / "train.toml", tuned))
    train_property(config, tmp_path / "run", folder)
    member = load_property_model(folder / "run" / "model").networks[0]
    network = load_property_model(tmp_path / "run" / "model").networks[0]
    torch.testing.assert_close(network.last.weight[[1, 2]], member.last.weight[[0, 1]])
    torch.testing.assert_close(network.last.weight[[4, 5]], member.last.weight[[2, 3]])
    # of a target that both have, mean and scale stay, whatever the new data
    assert float(network.target_mean[2]) == float(member.target_mean[1])
    assert float(network.target_mean[0]) == pytest.approx(9.5)
    encoded = dict(member.named_parameters())
    for name, parameter in network.backbone.named_parameters():
        torch.testing.assert_close(parameter, encoded[f"backbone.{name}"])
    other = tuned.replace("width = 8", "width = 4")
    config = PropertyTraining.from_toml(written(tmp_path / "train.toml", other))
    with pytest.raises(ValueError, match=r"`options` in .* must be that of the model to start"):
        train_property(config, tmp_path / "other", folder)
    with pytest.raises(ValueError, match="one option, `from`"):
        PropertyTraining.from_toml(
            written(tmp_path / "train.toml", tuned.replace("[property]", "rank = 8\n[property]", 1))
        )
