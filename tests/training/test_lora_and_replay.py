"""Low-rank fine-tuning, replay of old data, and the table of what was gained and forgotten."""

import copy

import ase.io
import numpy as np
import pytest
import torch
from training.conftest import labeled_crystals

from pet_calc import PETCalculator
from pet_calc.io.models.weights import load_model
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.data import energy_shift, prepare
from pet_calc.training.potentials.evaluate import evaluate_frames
from pet_calc.training.potentials.forgetting import read_comparison, without_references
from pet_calc.training.potentials.initial_model import with_one_zero
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.lora import add_low_rank, merged_state
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_folder):
    """Old data, and denser ones with negative forces and another zero of energy."""
    folder = tmp_path_factory.mktemp("new-data")
    for name in ("train", "test"):
        (folder / f"old-{name}.extxyz").write_bytes((data_folder / f"{name}.extxyz").read_bytes())
    frames = labeled_crystals(12, seed=7, a=5.0)
    for atoms in frames:
        results = atoms.calc.results
        results["energy"] = 40.0 * np.sum(atoms.numbers == 11) - results["energy"]
        results["forces"] = -results["forces"]
        results["stress"] = -results["stress"]
    ase.io.write(folder / "new-train.extxyz", frames[:8])
    ase.io.write(folder / "new-test.extxyz", frames[8:])
    return folder


def tuned(config_table, parent, steps=4, rate=5e-3, **options):
    stage = {"steps": steps, "learning_rate": rate, "warmup_steps": 0, "batch_size": 2,
             "loss": {"energy": 1.0, "forces": 1.0}}  # fmt: skip
    return TrainConfig.from_dict(
        config_table
        | {
            "data": {
                "train": ["new-train.extxyz"],
                "test": ["new-test.extxyz"],
                "validation_frames": 2,
            },
            "optimizer": {"name": "adam", "ema_decay": 0.0},
            "fine_tune": {"from": str(parent), **options},
            "stages": [stage],
        }
    )


def predictions(model, frames):
    return [evaluate_frames(model, [f]) for f in frames]


def test_low_rank_updates_start_at_nothing_and_merge_into_ordinary_weights(parent, data_folder):
    model = load_model(parent)
    batches = _old_test(data_folder, model)
    before = predictions(model, batches)
    names = set(model.state_dict())
    tunable = copy.deepcopy(model)
    add_low_rank(tunable, rank=2, alpha=4.0, seed=0)
    assert predictions(tunable, batches) == before
    trained = {n for n, p in tunable.named_parameters() if p.requires_grad}
    assert trained
    assert all(n.endswith((".up", ".down")) for n in trained)
    n_linear = sum(isinstance(m, torch.nn.Linear) for m in model.modules())
    assert len(trained) == 2 * n_linear
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in tunable.named_parameters():
            if name in trained:
                p.copy_(0.05 * torch.randn(p.shape, generator=generator))
    changed = predictions(tunable, batches)
    assert changed != before
    assert set(merged_state(tunable)) == names
    merged = load_model(parent)
    merged.load_state_dict(merged_state(tunable))
    for a, b in zip(predictions(merged, batches), changed, strict=True):
        assert a.forces.rmse == pytest.approx(b.forces.rmse, rel=1e-5)
        assert a.energy.rmse == pytest.approx(b.energy.rmse, rel=1e-4)
    # what the layers differ by has the rank that was asked for
    difference = merged.gnn_layers[0].compress[0].weight - model.gnn_layers[0].compress[0].weight
    assert torch.linalg.matrix_rank(difference.double(), rtol=1e-5) == 2


def _old_test(data_folder, model):
    from pet_calc.io.data.datasets import read_frames

    frames, _ = read_frames([data_folder / "test.extxyz"])
    return [prepare(f, model.cutoff) for f in frames[:3]]


def test_low_rank_run_learns_leaves_the_rest_and_resumes(tmp_path, folder, config_table, parent):
    config = tuned(config_table, parent, steps=40, rate=1e-2, method="lora", rank=3, alpha=6.0)
    assert TrainConfig.from_dict(config.to_dict()) == config
    data = load_data(config, folder)
    table = train(config, tmp_path / "whole", data)
    rows = {(r.split, r.quantity): r for r in read_comparison(tmp_path / "whole/fine_tuning.csv")}
    forces = rows["test", "forces"]
    assert forces.rmse_after < 0.8 * forces.rmse_before
    assert forces.rmse_after == pytest.approx(table["test"].forces.rmse)
    assert forces.values == table["test"].forces.count
    old, new = load_model(parent).state_dict(), load_model(tmp_path / "whole/model").state_dict()
    assert old.keys() == new.keys()
    moved = {n for n in old if not torch.equal(old[n], new[n])}
    linear = {n for n in old if n.endswith("weight") and old[n].dim() == 2 and "embed" not in n}
    linear |= {n for n in old if n.endswith("layers.0.edge_embedder.weight")}
    linear |= {n for n in old if "gnn_layers" in n and n.endswith(".edge_embedder.weight")}
    assert moved == linear | {"reference_energies"}
    PETCalculator(tmp_path / "whole/model").get_forces(data.test[0].atoms)  # as any other
    assert train(config, tmp_path / "split", data, stop_after=9) is None
    assert train(config, tmp_path / "split", data) == table


def test_replay_keeps_what_was_learned(tmp_path, folder, config_table, parent):
    rows = {}
    for name, replay in (("without", {}), ("with", {"replay_fraction": 0.6})):
        if replay:
            replay |= {"replay": ["old-train.extxyz"]}
        config = tuned(config_table, parent, 40, 5e-3, replay_test=["old-test.extxyz"], **replay)
        data = load_data(config, folder)
        if replay:
            assert len(data.order.replay) == 20
            assert data.order.replayed == 9  # beside six new frames
            assert data.census["replay"].n_frames == 20
        train(config, tmp_path / name, data)
        changes = read_comparison(tmp_path / name / "fine_tuning.csv")
        rows[name] = {(r.split, r.quantity): r for r in changes}
        assert {r.split for r in changes} == {"test", "replay test"}
    old = ("replay test", "forces")
    before = rows["without"][old].rmse_before
    assert rows["with"][old].rmse_before == before
    # on data of the opposite sign the run without replay forgets
    assert rows["without"][old].rmse_after > 1.5 * before
    assert rows["with"][old].rmse_after < 0.7 * rows["without"][old].rmse_after
    # the zeros differ by 40 eV for each Na, which belongs to no error of the network
    energy = rows["without"]["test", "energy"]
    assert energy.rmse_before > 10_000
    assert rows["without"]["test", "energy, zero fitted"].rmse_before < 1_000


def test_old_and_new_energies_get_one_zero(folder, config_table, parent):
    config = tuned(config_table, parent, replay=["old-train.extxyz"])
    data = load_data(config, folder)
    frames = prepare_all(data.train, config)
    moved = with_one_zero(load_model(parent), frames, data.order)
    model = load_model(parent)
    new, old = data.order.frames, data.order.replay
    assert all(moved[k] is frames[k] for k in new)

    def shift(part, indices):
        return energy_shift(model, [part[k] for k in indices])

    torch.testing.assert_close(shift(moved, old), shift(moved, new), rtol=0, atol=1e-5)
    assert (shift(frames, old) - shift(frames, new)).abs().max() > 30  # control


def test_replayed_frames_take_part_in_the_steps(folder, config_table, parent):
    config = tuned(config_table, parent, replay=["old-train.extxyz"], replay_fraction=0.5)
    data = load_data(config, folder)
    run = Run.start(config, data.train, prepare_all(data.train, config))
    seen = {k for s in range(6) for k in data.order.step(s, 2, config.seed)}
    assert seen & set(data.order.replay)
    assert seen & set(data.order.frames)
    assert len(data.train) == len(data.order.frames) + len(data.order.replay)
    assert run.model.training


def test_another_zero_of_energy_is_no_error(parent, data_folder):
    model = load_model(parent)
    batches = _old_test(data_folder, model) + _old_test(data_folder, model)[1:]
    error = without_references(model, batches)
    with torch.no_grad():
        model.reference_energies += torch.tensor([3.0, -40.0])
    shifted = without_references(model, batches)
    assert shifted.rmse == pytest.approx(error.rmse, abs=1e-6)
    # control: any other change is seen
    with torch.no_grad():
        model.energy_scale *= 1.5
    assert abs(without_references(model, batches).rmse - error.rmse) > 1e-3
