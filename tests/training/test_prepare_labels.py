"""Labels made before a training: energies on one zero, and disturbed copies of minima."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from calculators.small_potentials import rare_pet
from training.conftest import labeled_crystals

from pet_calc.errors import DatasetError
from pet_calc.geometry import edge_vectors
from pet_calc.geometry.cell import voigt_from_matrix
from pet_calc.io.data.datasets import LabeledFrame, least_rise, read_frames
from pet_calc.io.models.weights import save_model
from pet_calc.models import Results, evaluate
from pet_calc.training.potentials.config import LossConfig, TrainConfig
from pet_calc.training.potentials.data import Batch, prepare, turned
from pet_calc.training.potentials.loop import load_data
from pet_calc.training.potentials.losses import LabelCounts, loss, rises
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not part of this installation")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("prepare_labels")


@pytest.fixture
def strong(script):
    return script.Disturbance(compression=0.1, expansion=0.15, shear=0.05, displacement=0.1)


def frame_of(atoms: Atoms) -> LabeledFrame:
    """As it is read from a file."""
    return LabeledFrame(
        atoms, None, None, None, rise=least_rise(atoms.info["least_rise"], atoms, "it")
    )


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
def test_the_rise_is_the_derivative_on_the_way(strong, seed: int) -> None:
    """E(t) by the path that the module states, differentiated numerically."""
    model = rare_pet(elements=(8, 14))
    start = silica()
    disturbed = frame_of(strong.disturb(start, seed))
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


def test_the_bound_is_that_of_the_least_stiff_crystal(script, strong) -> None:
    start = silica()
    volume = start.get_volume()
    dense = 20.0 * len(start) / volume
    assert dense > 1.5
    bulk_modulus = 10 * units.GPa * dense ** (4 / 3)
    scaled = replace(strong, shear=0.0, displacement=0.0)
    found = []
    for seed in range(40):
        frame = frame_of(scaled.disturb(start, seed))
        delta = (frame.atoms.get_volume() / volume) ** (1 / 3) - 1
        assert -0.1 <= delta <= 0.15
        found.append(delta)
        steep = min(abs(delta), script.LINEAR)
        assert frame.rise.least == pytest.approx(
            9 * bulk_modulus * volume * abs(delta) * steep, rel=1e-10
        )
        # it is twice ½ K V (ΔV / V)² where that is harmonic
        if abs(delta) < script.LINEAR:
            assert frame.rise.least == pytest.approx(
                bulk_modulus * volume * (3 * delta) ** 2, rel=1e-10
            )
    assert min(found) < -0.05
    assert max(found) > 0.1
    still = replace(strong, compression=0.0, expansion=0.0, shear=0.0)
    moved = frame_of(still.disturb(start, 3))
    u = moved.atoms.positions - start.positions
    assert np.abs(u.mean(0)).max() < 1e-12
    assert moved.rise.least == pytest.approx(dense * np.sum(u**2))


@pytest.mark.parametrize(("seed", "too_soft"), [(2, True), (3, False)])
def test_turned_batches_rise_alike_and_stand_beside_labeled_frames(
    strong, seed: int, too_soft: bool
) -> None:
    disturbed = prepare(frame_of(strong.disturb(silica(), seed)), 4.0)
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


@pytest.mark.parametrize("beside", ["disturbed", "relaxed"])
def test_a_molecule_may_stand_beside_crystals(strong, beside: str) -> None:
    """It has no stress, which must not make the gradient of the others' NaN."""
    model = rare_pet(elements=(8, 14))
    alone = LabeledFrame(Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]]), -1.0, np.zeros((2, 3)), None)
    crystal = relaxed(silica())
    if beside == "disturbed":
        crystal = frame_of(strong.disturb(silica(), 0))
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


def test_training_stiffens_what_is_too_soft(script, tmp_path, data_folder, config_table) -> None:
    """The shortfall shrinks with a weight on it, and does not without."""
    config_table["optimizer"] = {"name": "adam"}
    ase.io.write(tmp_path / "relaxed.traj", [a.copy() for a in labeled_crystals(8, seed=9)])
    rattled = tmp_path / "prepared" / "rattled.extxyz.xz"
    script.main(["rattle", str(tmp_path / "relaxed.traj"), "--out", str(rattled),
                 "--bulk-modulus", "100", "--force-constant", "5"])  # fmt: skip
    sets = [{"file": str(rattled)}]
    left = {}
    for weight in (0.0, 30.0):
        loss_ = {"energy": 0.0, "forces": 0.02, "stress": 0.0, "rise": weight}
        config_table["stages"] = [
            {"steps": 30, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 4, "loss": loss_}
        ]
        config = TrainConfig.from_dict(
            config_table | {"data": {"train": ["train.extxyz"], "sets": sets}}
        )
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        data = load_data(config, data_folder)
        assert data.census["train"].found["least_rise"] == {"least_rise": 8}
        frames = prepare_all(data.train, config)
        run = Run.start(config, data.train, frames)
        for _ in range(30):
            run.advance(frames, data.order)
        pairs = [rise_of(run.model, f) for f in data.train if f.rise is not None]
        left[weight] = np.mean([max(0.0, least - found) for found, least in pairs])
    assert 0 < left[30.0] < 0.7 * left[0.0]


def test_refusals(script, tmp_path, data_folder, config_table) -> None:
    for options, words in (
        ({"bulk_modulus": -1.0}, "not be negative"),
        ({"compression": 0.5}, r"at most 0\.3"),
    ):
        with pytest.raises(ValueError, match=words):
            script.Disturbance(**options)
    molecule = Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.4]])
    with pytest.raises(DatasetError, match="three dimensions"):
        script.Disturbance().disturb(molecule, 0)
    # a bound without its direction, or on a molecule
    with pytest.raises(DatasetError, match="rise_displacement of shape"):
        least_rise(1.0, silica(), "it")
    with pytest.raises(DatasetError, match="three dimensions"):
        least_rise(1.0, molecule, "it")
    config_table["stages"][0]["loss"] = {"energy": 1.0, "rise": 1.0}
    config = TrainConfig.from_dict(config_table | {"data": {"train": ["train.extxyz"]}})
    with pytest.raises(DatasetError, match="loss asks for rise"):
        load_data(config, data_folder)


def test_columns_count_elements_and_metals_under_u(script):
    iron_oxide, iron = np.array([26, 26, 8, 8, 8]), np.array([26, 26])
    elements = (8, 26)
    at = len(elements) + script.METALS.index(26)
    plain, plus_u = (script.columns(iron_oxide, elements, hubbard=h) for h in (False, True))
    assert plain.tolist() == [3, 2] + [0] * len(script.METALS)
    assert plus_u[at] == 2
    assert plus_u.sum() == 7
    assert script.columns(iron, elements, hubbard=True).sum() == 2


def test_plus_u_is_told_from_composition(script):
    """Oxides are shifted by a constant for each metal atom, the metal and sulfides are not."""
    generator = np.random.default_rng(0)
    model = rare_pet(elements=(8, 16, 26, 30))
    frames, bare = [], []
    for symbols in ("Fe2", "FeO", "Fe2O3", "ZnO", "FeS", "ZnS", "Fe3Zn", "FeOS", "ZnOS", "Zn2"):
        atoms = Atoms(symbols, cell=[4, 4, 4], pbc=True)
        atoms.positions = 2.0 * np.arange(len(atoms))[:, None] * [0.9, 0.5, 0.2]
        atoms.positions += 0.05 * generator.standard_normal(atoms.positions.shape)
        batch = prepare(LabeledFrame(atoms, None, None, None), model.cutoff)
        energy = evaluate(model, batch.system, batch.edges).energy.item()
        bare.append(energy)
        energy += sum({8: -5.0, 16: -4.0, 26: -8.0, 30: -1.0}[z] for z in atoms.numbers.tolist())
        if "O" in symbols:
            energy += 2.7 * int((atoms.numbers == 26).sum())
        frames.append(LabeledFrame(atoms, energy, np.zeros((len(atoms), 3)), None))
    offsets = script.fit(model, frames, hubbard=True)
    assert offsets["elements"]["Fe"] == pytest.approx(-8.0, abs=1e-5)
    assert offsets["hubbard"]["Fe"] == pytest.approx(2.7, abs=1e-5)
    assert offsets["hubbard"]["Ni"] == 0
    moved = [script.without_offsets(f, offsets) for f in frames]
    assert [a.get_potential_energy() for a in moved] == pytest.approx(bare, abs=1e-4)
    assert np.array_equal(moved[2].get_forces(), frames[2].forces)
    # the control: without +U the oxides do not fit
    plain = script.fit(model, frames, hubbard=False)
    assert abs(plain["elements"]["Fe"] + 8.0) > 1e-3
    strange = LabeledFrame(Atoms("Ne", cell=[4, 4, 4], pbc=True), 1.0, None, None)
    with pytest.raises(DatasetError, match="no offset of \\['Ne'\\]"):
        script.without_offsets(strange, offsets)


def test_offsets_are_fitted_and_taken_off_by_command(script, tmp_path, data_folder):
    """Two files of different zeros end on that of the potential."""
    model = rare_pet(elements=(11, 17))
    save_model(tmp_path / "model", model, training={})
    frames, _ = read_frames([data_folder / "train.extxyz"])
    shift = {11: -100.0, 17: 250.0}
    other = []
    for f in frames:
        atoms = f.atoms.copy()
        energy = f.energy + sum(shift[z] for z in atoms.numbers.tolist())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=f.forces)
        other.append(atoms)
    ase.io.write(tmp_path / "other.extxyz", other)
    offsets = str(tmp_path / "offsets.json")
    for name, path in (
        ("first", data_folder / "train.extxyz"),
        ("other", tmp_path / "other.extxyz"),
    ):
        script.main(["fit", str(path), "--name", name, "--offsets", offsets,
                     "--model", str(tmp_path / "model")])  # fmt: skip
        script.main(["offsets", str(path), "--name", name, "--offsets", offsets,
                     "--out", str(tmp_path / f"{name}-prepared.extxyz.xz")])  # fmt: skip
    a, b = (read_frames([tmp_path / f"{n}-prepared.extxyz.xz"])[0] for n in ("first", "other"))
    assert [f.energy for f in b] == pytest.approx([f.energy for f in a], abs=1e-6)
    found = json.loads((tmp_path / "offsets.json").read_text())
    difference = found["other"]["elements"]["Na"] - found["first"]["elements"]["Na"]
    assert difference == pytest.approx(-100.0)
