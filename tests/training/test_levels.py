"""Two levels of theory in one run: a head, reference energies and a scale for each."""

import ase.io
import numpy as np
import pytest
import torch
from training.conftest import labeled_crystals

from pet_calc import PETCalculator
from pet_calc.io.models.uncertainty import find_uncertainty
from pet_calc.io.models.weights import load_model
from pet_calc.models import evaluate
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import Batch, prepare
from pet_calc.training.potentials.initial_model import magnitude
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.splits import prepare_all

SHIFT = {11: -20.0, 17: 35.0}
SCALE = 1.4


def relabeled(frames):
    """The same field of forces, scaled, and another zero of energy."""
    for atoms in frames:
        results = atoms.calc.results
        binding = results["energy"] + 3.0 * np.sum(atoms.numbers == 11)
        binding += 5.0 * np.sum(atoms.numbers == 17)
        results["energy"] = SCALE * binding + sum(SHIFT[z] for z in atoms.numbers)
        results["forces"] = SCALE * results["forces"]
        results["stress"] = SCALE * results["stress"]
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    frames, others = labeled_crystals(24), relabeled(labeled_crystals(24, seed=5))
    for name, part in (("a", frames), ("b", others)):
        ase.io.write(folder / f"{name}-train.extxyz", part[:18])
        ase.io.write(folder / f"{name}-test.extxyz", part[18:])
    return folder


def configured(config_table, level="b", **options):
    config_table["model"] |= {"energy_heads": ["a", "b"]}
    config_table["data"] = {
        "train": ["a-train.extxyz"],
        "test": ["a-test.extxyz"],
        "validation_frames": 6,
        "sets": [
            {"file": "b-train.extxyz", "level": level},
            {"file": "b-test.extxyz", "level": level, "split": "test"},
        ],
    }
    config_table["optimizer"] = {"name": "adam", "ema_decay": 0.5}
    stage = {"steps": 30, "learning_rate": 5e-3, "warmup_steps": 2, "batch_size": 4,
             "loss": {"energy": 1.0, "forces": 1.0}}  # fmt: skip
    config_table["stages"] = [stage]
    return TrainConfig.from_dict(config_table | options)


@pytest.fixture(scope="module")
def run(tmp_path_factory, folder):
    from training.conftest import configuration

    config = configured(configuration(), uncertainty={"members": 2})
    data = load_data(config, folder)
    out = tmp_path_factory.mktemp("run")
    assert train(config, out, data, stop_after=11) is None  # and goes on below
    return config, data, out, train(config, out, data)


def test_each_level_is_learned_with_its_own_zero(run, folder, tmp_path, config_table):
    config, _, _, table = run
    assert config.levels == ("a", "b")
    assert set(table) == {f"{s}, {h}" for s in ("train", "validation", "test") for h in "ab"}
    for level in "ab":
        assert table[f"test, {level}"].energy.mae < 200  # meV/atom
        assert table[f"test, {level}"].energy.count == 6
    # control: under one head the zeros, tens of eV apart, are errors
    mixed = configured(config_table, level=None)
    assert mixed.levels == ()
    mixed = TrainConfig.from_dict(mixed.to_dict() | {"stages": [{"steps": 1, "warmup_steps": 0}]})
    found = train(mixed, tmp_path, load_data(mixed, folder))
    assert found["test"].energy.mae > 3000


def test_the_calculator_picks_a_level(run):
    _, data, out, _ = run
    model = load_model(out / "model")
    difference = model.variant_reference_energies[0] - model.reference_energies
    frame = next(f for f in data.test if f.level == "b")
    energies, forces = {}, {}
    for level in (None, "a", "b"):
        calculator = PETCalculator(out / "model", variant=level)
        atoms = frame.atoms.copy()
        atoms.calc = calculator
        energies[level], forces[level] = atoms.get_potential_energy(), atoms.get_forces()
        assert calculator.get_property("energy_uncertainty", atoms) > 0
    assert energies[None] == energies["a"]
    counts = [np.sum(frame.atoms.numbers == z) for z in (11, 17)]
    expected = float(np.dot(counts, difference.numpy()))
    assert abs(expected) > 50  # eV, far beyond what the network adds
    assert energies["b"] - energies["a"] == pytest.approx(expected, abs=10)
    assert energies["b"] == pytest.approx(frame.energy, abs=3)
    assert not np.allclose(forces["a"], forces["b"], atol=1e-3)
    assert (
        find_uncertainty(out / "model", "b").multiplier
        != find_uncertainty(out / "model", "a").multiplier
    )
    with pytest.raises(ValueError, match="must be read from a head"):
        PETCalculator(out / "model", variant="c")


def test_scales_follow_the_levels(run):
    _, data, out, _ = run
    model = load_model(out / "model")
    for head, scale in ((None, model.energy_scale), ("b", model.variant_scales[0])):
        size = magnitude([f.forces for f in data.train if f.level == head])
        assert scale.item() == pytest.approx(size)
    assert model.variant_scales[0] != pytest.approx(model.energy_scale.item(), rel=0.05)


def test_a_mixed_batch_is_its_single_frames(run):
    config, data, out, _ = run
    model = load_model(out / "model", torch.float64)
    frames = prepare_all(data.test[4:8], config)  # two of each level
    batch = Batch.concatenate(frames)
    assert batch.system.energy_head.tolist() == [0, 0, 1, 1]
    together = evaluate(model, batch.system, batch.edges)
    for k, (frame, labeled) in enumerate(zip(frames, data.test[4:8], strict=True)):
        head = model.with_energy_head(labeled.level or "a")
        bare = prepare(labeled, model.cutoff)
        alone = evaluate(head, bare.system, bare.edges)
        assert together.energy[k].item() == pytest.approx(alone.energy.item(), abs=1e-9)
        mine = batch.system.system_index == k
        torch.testing.assert_close(together.forces[mine], alone.forces, rtol=0, atol=1e-9)
        assert frame.level == ("a", "b").index(labeled.level or "a")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"energy_heads": ["a", "c"]}, "must be one of the `energy_heads`"),
        ({"energy_heads": ["a", "b"], "direct_forces": True}, "belong to one level"),
    ],
)
def test_levels_without_meaning_are_refused(config_table, model, message):
    table = configured(config_table).to_dict()
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(table | {"model": table["model"] | model})
