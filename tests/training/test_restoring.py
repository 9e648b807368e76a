"""Disturbed copies of relaxed structures, whose energy must rise on the way to them."""

import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from calculators.small_potentials import rare_pet
from training.conftest import labeled_crystals

from pet_calc.errors import DatasetError
from pet_calc.geometry import edge_vectors
from pet_calc.geometry.cell import voigt_from_matrix
from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.models import Results, evaluate
from pet_calc.training.potentials.config import LossConfig, TrainConfig
from pet_calc.training.potentials.data import Batch, prepare, turned
from pet_calc.training.potentials.loop import load_data
from pet_calc.training.potentials.losses import LabelCounts, loss, rises
from pet_calc.training.potentials.rattled_minima import LINEAR, RestoringConfig
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all

STRONG = RestoringConfig(compression=0.1, expansion=0.15, shear=0.05, displacement=0.1)


def silica() -> Atoms:
    atoms = bulk("SiO", "zincblende", a=4.6)
    atoms.rattle(0.1, seed=1)
    return atoms


def relaxed(atoms: Atoms) -> LabeledFrame:
    return LabeledFrame(atoms, -3.0, np.zeros((len(atoms), 3)), np.zeros(6))


def rise_of(model, frame: LabeledFrame) -> tuple[float, float]:
    """Of the energy, and its bound."""
    batch = prepare(frame, model.cutoff)
    results = evaluate(model, batch.system, batch.edges)
    return rises(results, batch).item(), batch.rise.least.item()


@pytest.mark.parametrize("seed", range(3))
def test_the_rise_is_the_derivative_on_the_way(seed: int) -> None:
    """E(t) by the path that the module states, differentiated numerically."""
    model = rare_pet(elements=(8, 14))
    start = silica()
    disturbed = STRONG.disturb(relaxed(start), "it", seed)
    assert (disturbed.energy, disturbed.forces, disturbed.stress) == (None, None, None)
    gradient = np.linalg.solve(start.cell.array, disturbed.atoms.cell.array)
    assert np.abs(gradient - gradient.T).max() < 1e-12
    strain = gradient - np.eye(3)
    u = disturbed.atoms.positions - start.positions @ gradient

    def energy(t: float) -> float:
        atoms = start.copy()
        atoms.set_cell(start.cell.array @ (np.eye(3) + t * strain))
        atoms.positions = start.positions @ (np.eye(3) + t * strain) + t * u
        batch = prepare(LabeledFrame(atoms, None, None, None), model.cutoff)
        return evaluate(model, batch.system, batch.edges).energy.item()

    found, _ = rise_of(model, disturbed)
    h = 1e-4
    truth = (energy(1 + h) - energy(1 - h)) / (2 * h)
    assert abs(truth) > 1e-3
    assert found == pytest.approx(truth, abs=1e-6)
    # the same displacements without the strain that goes with them are another derivative
    bare = replace(disturbed.rise, strain=np.zeros(6))
    assert abs(rise_of(model, replace(disturbed, rise=bare))[0] - truth) > 1e-3


def test_the_bound_is_that_of_the_least_stiff_crystal() -> None:
    start = relaxed(silica())
    volume = start.atoms.get_volume()
    dense = 20.0 * len(start.atoms) / volume
    assert dense > 1.5
    bulk_modulus = 10 * units.GPa * dense ** (4 / 3)
    scaled = replace(STRONG, shear=0.0, displacement=0.0)
    found = []
    for seed in range(40):
        frame = scaled.disturb(start, "it", seed)
        delta = (frame.atoms.get_volume() / volume) ** (1 / 3) - 1
        assert -0.1 <= delta <= 0.15
        found.append(delta)
        steep = min(abs(delta), LINEAR)
        assert frame.rise.least == pytest.approx(
            9 * bulk_modulus * volume * abs(delta) * steep, rel=1e-10
        )
        # it is twice ½ K V (ΔV / V)² where that is harmonic
        if abs(delta) < LINEAR:
            assert frame.rise.least == pytest.approx(
                bulk_modulus * volume * (3 * delta) ** 2, rel=1e-10
            )
    assert min(found) < -0.05
    assert max(found) > 0.1
    moved = replace(STRONG, compression=0.0, expansion=0.0, shear=0.0).disturb(start, "it", 3)
    u = moved.atoms.positions - start.atoms.positions
    assert np.abs(u.mean(0)).max() < 1e-12
    assert moved.rise.least == pytest.approx(dense * np.sum(u**2))


@pytest.mark.parametrize(("seed", "too_soft"), [(2, True), (3, False)])
def test_turned_batches_rise_alike_and_stand_beside_labeled_frames(
    seed: int, too_soft: bool
) -> None:
    disturbed = prepare(STRONG.disturb(relaxed(silica()), "it", seed), 4.0)
    at_rest = prepare(relaxed(silica()), 4.0)
    batch = Batch.concatenate([at_rest, disturbed])
    assert torch.isnan(batch.rise.least).tolist() == [True, False]
    (moved,) = turned([batch], 1, 0)
    both = [pair_results(b) for b in (batch, moved)]
    first, second = (rises(r, b) for r, b in zip(both, (batch, moved), strict=True))
    assert first[0] == 0.0
    assert abs(first[1]) > 1e-3
    assert (first - second).abs().max() < 1e-10
    weights = LossConfig(energy=0.0, forces=0.0, rise=2.0)
    counts = LabelCounts.of([batch])
    assert counts.rise == 1
    short = max(0.0, (batch.rise.least - first)[1].item()) / 2
    assert loss(both[0], batch, weights, counts).item() == pytest.approx(2 * short**2)
    # what rises faster than the bound costs nothing
    assert (short > 0) == too_soft


def pair_results(batch: Batch) -> Results:
    """Of E = Σ exp(-r) over pairs within the cutoff, symmetric and of known derivatives."""
    vectors = edge_vectors(batch.system, batch.edges).requires_grad_()
    i, _ = batch.edges.edge_index
    energies = torch.exp(-vectors.norm(dim=1))
    owner = batch.system.system_index[i]
    (slope,) = torch.autograd.grad(energies.sum(), vectors)
    forces = torch.zeros_like(batch.forces)
    forces.index_add_(0, i, slope).index_add_(0, batch.edges.edge_index[1], -slope)
    virial = torch.zeros(batch.system.n_systems, 3, 3, dtype=torch.float64)
    virial.index_add_(0, owner, slope[:, :, None] * vectors.detach()[:, None, :])
    volume = torch.linalg.det(batch.system.cell).abs()
    energy = torch.zeros(batch.system.n_systems, dtype=torch.float64)
    return Results(
        energy=energy.index_add(0, owner, energies.detach()),
        energies=torch.zeros(len(forces)),
        forces=forces,
        stress=voigt_from_matrix(virial / volume[:, None, None]),
    )


@pytest.fixture
def folder(tmp_path, data_folder):
    (tmp_path / "train.extxyz").write_bytes((data_folder / "train.extxyz").read_bytes())
    ase.io.write(tmp_path / "relaxed.traj", [a.copy() for a in labeled_crystals(8, seed=9)])
    return tmp_path


def with_set(config_table, **options):
    sets = [{"file": "relaxed.traj", **options}]
    return TrainConfig.from_dict(config_table | {"data": {"train": ["train.extxyz"], "sets": sets}})


@pytest.mark.parametrize("beside", ["disturbed", "relaxed"])
def test_a_molecule_may_stand_beside_crystals(beside: str) -> None:
    """It has no stress, which must not make the gradient of the others' NaN."""
    model = rare_pet(elements=(8, 14))
    alone = LabeledFrame(Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]]), -1.0, np.zeros((2, 3)), None)
    crystal = relaxed(silica())
    if beside == "disturbed":
        crystal = STRONG.disturb(crystal, "it", 0)
    frames = [alone, crystal]
    batch = Batch.concatenate([prepare(f, model.cutoff) for f in frames])
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    results = evaluate(model, batch.system, batch.edges, create_graph=True)
    assert results.stress[0].isnan().all()
    value = loss(results, batch, LossConfig(stress=10.0, rise=1000.0))
    value.backward()
    assert value.isfinite()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def test_training_stiffens_what_is_too_soft(folder, config_table) -> None:
    """The shortfall shrinks with a weight on it, and does not without."""
    config_table["optimizer"] = {"name": "adam"}
    stiff = {"bulk_modulus": 100.0, "force_constant": 5.0}
    left = {}
    for weight in (0.0, 30.0):
        loss_ = {"energy": 0.0, "forces": 0.02, "stress": 0.0, "rise": weight}
        config_table["stages"] = [
            {"steps": 30, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 4, "loss": loss_}
        ]
        config = with_set(config_table, restoring=stiff)
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        data = load_data(config, folder)
        assert data.census["train"].found["rise"] == {"(restoring)": 8}
        frames = prepare_all(data.train, config)
        run = Run.start(config, data.train, frames)
        for _ in range(30):
            run.advance(frames, data.order)
        pairs = [rise_of(run.model, f) for f in data.train if f.rise is not None]
        left[weight] = np.mean([max(0.0, least - found) for found, least in pairs])
    assert 0 < left[30.0] < 0.7 * left[0.0]


def test_refusals(folder, config_table) -> None:
    for options, words in (
        ({"restoring": {"bulk": 3}}, "unknown option"),
        ({"restoring": {"bulk_modulus": -1.0}}, "not be negative"),
        ({"restoring": {"compression": 0.5}}, "at most 0.3"),
        ({"restoring": {}, "stationary": "cell"}, "not at rest"),
        ({"restoring": {}, "split": "validation"}, "for training"),
    ):
        with pytest.raises(ValueError, match=words):
            with_set(config_table, **options)
    config_table["stages"][0]["loss"] = {"energy": 1.0, "rise": 1.0}
    with pytest.raises(DatasetError, match="give a set `restoring`"):
        load_data(with_set(config_table), folder)
    ase.io.write(folder / "relaxed.traj", Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]]))
    with pytest.raises(DatasetError, match="three dimensions"):
        load_data(with_set(config_table, restoring={}), folder)
