"""Batches, augmentation, reference energies, census and configuration."""

import lzma

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import covalent_radii

from pet_calc.errors import DatasetError
from pet_calc.geometry import edge_vectors
from pet_calc.io.data.datasets import read_frames
from pet_calc.models import LennardJones, Results, evaluate
from pet_calc.training.potentials.config import HuberConfig, LossConfig, StageConfig, TrainConfig
from pet_calc.training.potentials.data import (
    Batch,
    fit_reference_energies,
    prepare,
    random_orthogonal,
    shortest_distances,
    turned,
)
from pet_calc.training.potentials.evaluate import Error
from pet_calc.training.potentials.frame_order import Order, replayed_frames
from pet_calc.training.potentials.initial_model import starting_model
from pet_calc.training.potentials.loop import load_data
from pet_calc.training.potentials.losses import loss, penalties
from pet_calc.training.potentials.run import penalty

MODEL = LennardJones((11, 17), epsilon=0.2, sigma=2.3, cutoff=4.0, cutoff_width=2.0)


def batches(data_folder):
    frames, _ = read_frames([data_folder / "train.extxyz"])
    return frames, [prepare(f, MODEL.cutoff) for f in frames]


def test_compressed_files_are_decompressed_once(data_folder, tmp_path, monkeypatch):
    content = (data_folder / "train.extxyz").read_bytes()
    (tmp_path / "train.extxyz.xz").write_bytes(lzma.compress(content))
    monkeypatch.setattr(lzma.LZMAFile, "seek", lambda *a: pytest.fail("decompresses again"))
    frames, census = read_frames([tmp_path / "train.extxyz.xz"])
    plain, expected = read_frames([data_folder / "train.extxyz"])
    assert census == expected
    for a, b in zip(frames, plain, strict=True):
        assert a.atoms == b.atoms
        assert a.energy == b.energy
        assert np.array_equal(a.forces, b.forces)
        assert np.array_equal(a.stress, b.stress)


def test_labels_transform_with_the_structure(data_folder):
    # an invariant model must agree with its labels in every orientation
    _, prepared = batches(data_folder)
    generator = np.random.default_rng(0)
    for k in range(4):
        moved = prepared[k].transformed(random_orthogonal(generator))
        results = evaluate(MODEL, moved.system, moved.edges)
        torch.testing.assert_close(results.forces, moved.forces, rtol=0, atol=1e-6)
        torch.testing.assert_close(results.stress, moved.stress, rtol=0, atol=1e-6)
    assert not torch.allclose(moved.forces, prepared[k].forces, atol=1e-3)


def test_augmentation_draws_proper_and_improper_rotations():
    generator = np.random.default_rng(1)
    matrices = torch.stack([random_orthogonal(generator) for _ in range(400)])
    eye = torch.eye(3, dtype=torch.float64).expand(400, 3, 3)
    torch.testing.assert_close(matrices @ matrices.mT, eye, rtol=0, atol=1e-12)
    improper = (torch.linalg.det(matrices) < 0).double().mean()
    assert abs(improper - 0.5) < 0.1
    assert matrices.mean(0).abs().max() < 5 / np.sqrt(3 * 400)


def test_every_epoch_uses_every_frame_once():
    order = Order(tuple(range(7)))
    seen = [k for step in range(7) for k in order.step(step, 3, seed=5)]
    for epoch in range(3):
        assert sorted(seen[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]


def test_batch_of_frames_gives_the_labels_of_each(data_folder):
    _, prepared = batches(data_folder)
    batch = Batch.concatenate(turned(prepared[4:7], 0, 0))
    results = evaluate(MODEL, batch.system, batch.edges)
    torch.testing.assert_close(results.forces, batch.forces, rtol=0, atol=1e-6)
    assert batch.n_atoms.tolist() == [len(p.forces) for p in prepared[4:7]]


def test_old_frames_are_a_fraction_of_every_epoch_until_all_are_seen():
    new, old = (0, 1, 2, 2), tuple(range(10, 18))
    order = Order(new, old, replayed_frames(len(new), 0.4))
    assert order.length == 7  # three of seven are old: 0.43, the nearest to 0.4
    epochs = [order.epoch(k, seed=1) for k in range(8)]
    for epoch in epochs:
        assert sorted(k for k in epoch if k < 10) == [0, 1, 2, 2]
    replayed = [k for epoch in epochs for k in epoch if k >= 10]
    counts = [replayed.count(k) for k in old]
    assert counts == [3] * 8  # 24 draws of 8 frames, each cycle seeing all of them
    assert epochs[0] != epochs[1]
    assert epochs[0] == order.epoch(0, seed=1) != order.epoch(0, seed=2)


def test_reference_energies_of_known_composition():
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(12):
        n_o, n_h = generator.integers(1, 5, size=2)
        atoms = Atoms(numbers=[8] * n_o + [1] * n_h, positions=generator.random((n_o + n_h, 3)))
        atoms.calc = SinglePointCalculator(atoms, energy=-430.0 * n_o - 13.5 * n_h)
        frames.append(atoms)
    labeled = _frames(frames)
    solution = fit_reference_energies(labeled, (1, 8))
    np.testing.assert_allclose(solution.numpy(), [-13.5, -430.0], atol=1e-8)
    with pytest.raises(DatasetError, match=r"hold \[8\]"):
        fit_reference_energies(labeled, (1,))


def test_reference_energies_of_one_stoichiometry_reproduce_the_mean():
    frames = []
    for k in range(3):
        atoms = Atoms("H2O", positions=np.eye(3) * (k + 1))
        atoms.calc = SinglePointCalculator(atoms, energy=-440.0 + 0.1 * (k - 1))
        frames.append(atoms)
    solution = fit_reference_energies(_frames(frames), (1, 8))
    assert 2 * solution[0] + solution[1] == pytest.approx(-440.0, abs=1e-9)


def _frames(atoms_list):
    from pet_calc.io.data.datasets import LabeledFrame

    return [
        LabeledFrame(a, a.calc.results["energy"], a.calc.results.get("forces"), None)
        for a in atoms_list
    ]


def test_census_counts_labels_by_key(tmp_path):
    first = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], cell=[4, 4, 4], pbc=True)
    first.calc = SinglePointCalculator(first, energy=-1.0, forces=np.ones((2, 3)))
    second = first.copy()
    second.info["REF_energy"] = -2.0
    second.arrays["REF_forces"] = np.full((2, 3), 2.0)
    second.info["virial"] = np.diag([1.0, 2.0, 3.0])
    ase.io.write(tmp_path / "a.extxyz", [first, second])
    frames, census = read_frames([tmp_path / "a.extxyz"])
    assert census.found["energy"] == {"energy": 1, "REF_energy": 1}
    assert census.found["forces"] == {"forces": 1, "REF_forces": 1}
    assert census.count("stress") == 1
    assert census.elements == {"H": 4}
    np.testing.assert_allclose(frames[1].stress, [-1 / 64, -2 / 64, -3 / 64, 0, 0, 0])
    frames, census = read_frames([tmp_path / "a.extxyz"], {"energy": "REF_energy"})
    assert census.found["energy"] == {"REF_energy": 1}
    assert frames[0].energy is None


def test_constrained_atoms_keep_their_forces(tmp_path):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((2, 3), 0.5))
    ase.io.write(tmp_path / "a.traj", atoms)
    frames, _ = read_frames([tmp_path / "a.traj"])
    np.testing.assert_array_equal(frames[0].forces, np.full((2, 3), 0.5))


def test_labels_that_are_not_finite_are_refused(tmp_path):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    atoms.calc = SinglePointCalculator(atoms, energy=np.nan)
    ase.io.write(tmp_path / "a.traj", atoms)
    with pytest.raises(DatasetError, match="must be finite"):
        read_frames([tmp_path / "a.traj"])


def test_absent_labels_do_not_contribute(data_folder):
    _, prepared = batches(data_folder)
    batch = Batch.concatenate(prepared[:2])
    shifted = Results(
        energy=batch.energy + batch.n_atoms * 0.1,
        energies=torch.zeros(batch.system.n_atoms),
        forces=batch.forces + 0.2,
        stress=batch.stress + 0.3,
    )
    weights = LossConfig(energy=1.0, forces=2.0, stress=3.0)
    assert loss(shifted, batch, weights).item() == pytest.approx(0.01 + 2 * 0.04 + 3 * 0.09)
    half = batch.energy.clone()
    half[0] = torch.nan
    partial = Batch(
        batch.system, batch.edges, half, batch.forces, batch.stress, batch.n_atoms, batch.floor
    )
    assert loss(shifted, partial, weights).item() == pytest.approx(0.01 + 2 * 0.04 + 3 * 0.09)
    nothing = Batch(
        batch.system,
        batch.edges,
        torch.full_like(half, torch.nan),
        batch.forces,
        batch.stress,
        batch.n_atoms,
        batch.floor,
    )
    assert loss(shifted, nothing, weights).item() == pytest.approx(2 * 0.04 + 3 * 0.09)


def test_large_errors_count_linearly_beyond_the_huber_limit(data_folder):
    _, prepared = batches(data_folder)
    batch = Batch.concatenate(prepared[:2])
    size = torch.tensor([0.01, 0.5]).repeat(len(batch.forces))[: len(batch.forces), None]
    results = Results(
        energy=batch.energy + batch.n_atoms * torch.tensor([0.1, 0.01]),
        energies=torch.zeros(batch.system.n_atoms),
        forces=batch.forces + size * torch.tensor([2.0, -1.0, 2.0]) / 3,
        stress=batch.stress + 0.1,  # of length 0.24
    )
    weights = LossConfig(energy=2.0, forces=3.0, stress=5.0)
    limits = HuberConfig(energy=0.03, forces=0.1, stress=0.4)
    forces = torch.where(size <= 0.1, size**2, 2 * 0.1 * size - 0.1**2)
    expected = 2 * ((2 * 0.03 * 0.1 - 0.03**2) + 0.01**2) / 2
    expected += 3 * forces.sum().item() / batch.forces.numel() + 5 * 0.01
    assert loss(results, batch, weights, huber=limits).item() == pytest.approx(expected)
    squared = loss(results, batch, weights).item()
    assert squared > 1.5 * expected  # so that the test can tell one from the other
    wide = HuberConfig(energy=9.0, forces=9.0, stress=9.0)
    assert loss(results, batch, weights, huber=wide).item() == pytest.approx(squared)


def test_huber_gradients_are_finite_at_zero_error_and_without_labels():
    error = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    label = torch.zeros(3, 3)
    label[2] = torch.nan
    penalties(error, label, 0.5).backward()
    # 2 δ e / |e| beyond the limit
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(error.grad, expected)


def test_huber_limits_must_be_positive():
    with pytest.raises(ValueError, match=r"huber\.forces.*must be positive, got 0"):
        HuberConfig(forces=0.0)


def test_best_weights_are_chosen_by_the_loss_that_is_learnt():
    many_small, one_large = Error(10.0, 60.0, 100), Error(12.0, 20.0, 100)
    assert penalty(many_small, None) > penalty(one_large, None)
    assert penalty(many_small, 0.01) < penalty(one_large, 0.01)


def test_schedule_warms_up_and_decays_to_the_final_rate():
    stage = StageConfig(steps=110, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=10)
    rates = [stage.rate_at(k) for k in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("section", "key"), [("model", "d_pett"), ("data", "trains"), ("optimizer", "lr"), (None, "x")]
)
def test_unknown_option_is_refused(config_table, section, key):
    table = config_table if section is None else config_table[section]
    table[key] = 1
    with pytest.raises(ValueError, match=f"unknown.*{key}"):
        TrainConfig.from_dict(config_table)


def test_configuration_survives_a_round_trip(config_table):
    import json

    config = TrainConfig.from_dict(config_table)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_onset_of_the_repulsion(tmp_path, data_folder, config_table):
    """The shortest distance of the data, or a share of the bond where that is less."""
    frames = [prepare(f, 4.0) for f in read_frames([data_folder / "train.extxyz"])[0]]
    elements = [11, 17, 79]
    found = shortest_distances(frames, elements)
    vectors = torch.cat([edge_vectors(f.system, f.edges).norm(dim=1) for f in frames])
    assert found[:2, :2].min() == vectors.min()
    bonds = torch.tensor([[covalent_radii[a] + covalent_radii[b] for a in elements]
                          for b in elements])  # fmt: skip
    assert torch.allclose(found[2], 0.8 * bonds[2])  # gold is not in the data
    reached = shortest_distances(frames, elements, reach=0.9)
    assert torch.allclose(reached, found.minimum(0.9 * bonds), atol=1e-6)
    assert bool((reached < found - 0.05).any())
    assert torch.equal(shortest_distances(frames, elements, reach=9.0), found)
    table = config_table | {"model": config_table["model"] | {"short_range_repulsion": True}}
    config = TrainConfig.from_dict(table | {"repulsion_reach": 0.5})
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert "repulsion_reach" not in TrainConfig.from_dict(table).to_dict()
    model = starting_model(config, load_data(config, data_folder).train, frames)
    assert torch.allclose(model.repulsion.onset, 0.5 * bonds[:2, :2], atol=1e-6)
    with pytest.raises(ValueError, match="`repulsion_reach` must be positive"):
        TrainConfig.from_dict(table | {"repulsion_reach": 0.0})
