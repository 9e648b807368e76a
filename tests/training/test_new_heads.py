"""Fine-tuning may add an energy head for another level of theory; the old one stays what it was."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from training.conftest import labeled_crystals

from pet_calc import PETCalculator
from pet_calc.io.models.weights import load_model
from pet_calc.models import evaluate
from pet_calc.models.pet.add_heads import adds_heads, with_new_heads
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.forgetting import read_comparison
from pet_calc.training.potentials.initial_model import with_one_zero
from pet_calc.training.potentials.loop import load_data, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_folder):
    """The data of the parent, and another level of theory: scaled forces, another zero."""
    folder = tmp_path_factory.mktemp("levels")
    for name in ("train", "test"):
        (folder / f"old-{name}.extxyz").write_bytes((data_folder / f"{name}.extxyz").read_bytes())
    frames = labeled_crystals(16, seed=7)
    for atoms in frames:
        results = atoms.calc.results
        results["energy"] = 40.0 * np.sum(atoms.numbers == 11) - 2.0 * results["energy"]
        results["forces"] = -2.0 * results["forces"]
        results["stress"] = -2.0 * results["stress"]
    ase.io.write(folder / "new-train.extxyz", frames[:12])
    ase.io.write(folder / "new-test.extxyz", frames[12:])
    return folder


def tuned(config_table, parent, steps, rate, **options):
    stage = {"steps": steps, "learning_rate": rate, "warmup_steps": 0, "batch_size": 4,
             "loss": {"energy": 1.0, "forces": 1.0}}  # fmt: skip
    head = load_model(parent).config.energy_heads
    model = config_table["model"] | {"energy_heads": [*head, "mine"]}
    data = {
        "validation_frames": 3,
        "sets": [
            {"file": "new-train.extxyz", "level": "mine"},
            {"file": "new-test.extxyz", "level": "mine", "split": "test"},
        ],
    }
    return TrainConfig.from_dict(
        config_table
        | {
            "model": model,
            "data": data,
            "optimizer": {"name": "adam", "ema_decay": 0.0},
            "fine_tune": {"from": str(parent), **options},
            "stages": [stage],
        }
    )


def test_a_new_head_begins_as_a_copy_of_the_one_in_use(parent, data_folder):
    model = load_model(parent, "float64")
    config = replace(model.config, energy_heads=(*model.config.energy_heads, "x", "y"))
    assert adds_heads(config, model.config)
    assert not adds_heads(replace(config, d_node=16), model.config)
    assert not adds_heads(replace(config, energy_heads=("x", "energy")), model.config)
    extended = with_new_heads(model, config)
    # and once more, from a model that has several, of which not the first is in use
    with torch.no_grad():
        extended.variant_reference_energies[1] += 1.0
        extended.heads["y"][-1].edge[-1].weight.mul_(2.0)
    wider = replace(extended.config, energy_heads=(*extended.config.energy_heads, "z"))
    again = with_new_heads(extended.with_energy_head("y"), wider)
    batch = prepare(_frames(data_folder)[0], model.cutoff)

    def energy(of, head):
        found = of.with_energy_head(head)
        return evaluate(found, batch.system, batch.edges, forces=False).energy.item()

    first = energy(model, "energy")
    assert energy(extended, "x") == energy(extended, "energy") == first
    assert energy(again, "x") == energy(again, "energy") == first
    assert energy(again, "z") == energy(again, "y") == energy(extended, "y") != first


def _frames(data_folder):
    from pet_calc.io.data.datasets import read_frames

    return read_frames([data_folder / "test.extxyz"])[0]


def test_the_new_level_is_learned_and_the_old_one_kept(tmp_path, folder, config_table, parent):
    errors = {}
    for name, options in (
        ("heads", {"method": "heads"}),
        ("replay", {"replay": ["old-train.extxyz"], "replay_fraction": 0.5}),
        ("alone", {}),
    ):
        config = tuned(config_table, parent, 60, 5e-3, replay_test=["old-test.extxyz"], **options)
        assert TrainConfig.from_dict(config.to_dict()) == config
        data = load_data(config, folder)
        train(config, tmp_path / name, data)
        changes = read_comparison(tmp_path / name / "fine_tuning.csv")
        errors[name] = {(c.split.split(",")[0], c.quantity): c for c in changes}
    new, old = ("test", "forces"), ("replay test", "forces")
    for name in ("replay", "alone"):
        assert errors[name][new].rmse_after < 0.6 * errors[name][new].rmse_before
    # last layers of the new head alone: the old potential is what it was, to the last bit
    kept = errors["heads"][old]
    assert kept.rmse_after == kept.rmse_before
    before = load_model(parent).state_dict()
    after = load_model(tmp_path / "heads/model").state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert errors["heads"][new].rmse_after < errors["heads"][new].rmse_before
    # replayed frames are read through the old head, with their own zero of energy
    assert errors["replay"][old].rmse_after < 0.7 * errors["alone"][old].rmse_after
    atoms = data.test[0].atoms.copy()
    found = {
        variant: _energy(tmp_path / "replay/model", atoms, variant)
        for variant in ("energy", "mine")
    }
    atoms_energy = {"energy": _energy(parent, atoms, None), "mine": data.test[0].energy}
    for variant, expected in atoms_energy.items():
        assert found[variant] == pytest.approx(expected, abs=4.0), variant
    assert abs(found["energy"] - found["mine"]) > 50.0


def _energy(folder, atoms, variant):
    atoms.calc = PETCalculator(folder, variant=variant)
    return atoms.get_potential_energy()


def test_replayed_frames_of_another_level_keep_their_zero(folder, config_table, parent):
    config = tuned(config_table, parent, 1, 1e-3, replay=["old-train.extxyz"])
    data = load_data(config, folder)
    from pet_calc.training.potentials.splits import prepare_all

    model = with_new_heads(load_model(parent), config.model)
    frames = prepare_all(data.train, config)
    same = with_one_zero(model, frames, data.order)
    assert all(torch.equal(a.energy, b.energy) for a, b in zip(frames, same, strict=True))
