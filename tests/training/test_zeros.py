"""Energies from several zeros, energies without forces, parts of files."""

import lzma
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from training.conftest import labeled_crystals

from pet_calc.errors import DatasetError
from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.training.potentials.config import TrainConfig
from pet_calc.training.potentials.energy_offsets import (
    METALS,
    columns,
    described,
    fit_zeros,
    on_zero_of_model,
)
from pet_calc.training.potentials.loop import load_data, train
from pet_calc.training.potentials.losses import LabelCounts
from pet_calc.training.potentials.run import Run
from pet_calc.training.potentials.splits import prepare_all

SHIFT = {11: -100.0, 17: 250.0}


def shifted(frames):
    """The same frames with energies that count from another zero."""
    moved = []
    for a in frames:
        b = a.copy()
        b.calc = a.calc
        b.calc.results["energy"] += sum(SHIFT[z] for z in a.numbers.tolist())
        moved.append(b)
    return moved


@pytest.fixture
def folder(tmp_path, data_folder):
    (tmp_path / "train.extxyz").write_bytes((data_folder / "train.extxyz").read_bytes())
    ase.io.write(tmp_path / "other.extxyz", shifted(labeled_crystals(12, seed=3)))
    return tmp_path


def config_with(config_table, *sets, **values):
    data = {"train": ["train.extxyz"], "validation_frames": 4, "sets": list(sets)}
    return TrainConfig.from_dict(config_table | {"data": data} | values)


def test_columns_count_elements_and_metals_under_u():
    iron_oxide, iron = np.array([26, 26, 8, 8, 8]), np.array([26, 26])
    elements = (8, 26)
    at = len(elements) + METALS.index(26)
    plain, plus_u = (columns(iron_oxide, elements, hubbard=h) for h in (False, True))
    assert plain.tolist() == [3, 2] + [0] * len(METALS)
    assert plus_u[at] == 2
    assert plus_u.sum() == 7
    assert columns(iron, elements, hubbard=True).sum() == 2


def test_a_zero_of_its_own_is_found(folder, config_table):
    own = config_with(config_table, {"file": "other.extxyz", "zero": "other"})
    data = load_data(own, folder)
    prepared = prepare_all(data.train, own)
    run = Run.start(own, data.train, prepared)
    run.align_energies(prepared)
    names = described(run.zeros, run.model.atomic_numbers)["other"]["elements"]
    # the model has learnt nothing yet: the two sets are not quite the same on average
    assert names == pytest.approx({"Na": -100.0, "Cl": 250.0}, abs=3.0)
    moved = on_zero_of_model(prepared, run.zeros, run.model.atomic_numbers)
    foreign = [k for k, f in enumerate(prepared) if f.zero is not None]
    assert foreign
    for k in foreign:
        assert moved[k].zero is None
        numbers = prepared[k].system.numbers.tolist()
        expected = prepared[k].energy - sum(SHIFT[z] for z in numbers)
        assert torch.allclose(moved[k].energy, expected, atol=3.0 * len(numbers))


def test_without_it_two_zeros_spoil_the_reference_energies(folder, config_table):
    """The control: what the option is for."""
    data = load_data(config_with(config_table, {"file": "other.extxyz"}), folder)
    config = config_with(config_table, {"file": "other.extxyz"})
    run = Run.start(config, data.train, prepare_all(data.train, config))
    references = run.model.head_constants()[0]
    assert (references - torch.tensor([-3.0, -5.0])).abs().max() > 20


def test_plus_u_is_told_from_composition(config_table):
    """Oxides are shifted by a constant for each metal atom, the metal and sulfides are not."""
    generator = np.random.default_rng(0)
    config = TrainConfig.from_dict(
        config_table | {"model": config_table["model"] | {"elements": [8, 16, 26, 30]}}
    )
    frames = []
    for symbols in ("Fe2", "FeO", "Fe2O3", "ZnO", "FeS", "ZnS", "Fe3Zn", "FeOS", "ZnOS", "Zn2"):
        atoms = Atoms(symbols, cell=[4, 4, 4], pbc=True)
        atoms.positions = 2.0 * np.arange(len(atoms))[:, None] * [0.9, 0.5, 0.2]
        atoms.positions += 0.05 * generator.standard_normal(atoms.positions.shape)
        energy = sum({8: -5.0, 16: -4.0, 26: -8.0, 30: -1.0}[z] for z in atoms.numbers.tolist())
        if "O" in symbols:
            energy += 2.7 * symbols.count("Fe") * int((atoms.numbers == 26).sum())
        frames.append(labeled(atoms, energy))
    model = Run.start(config, frames, prepare_all(frames, config)).model
    with torch.no_grad():  # nothing beyond the zeros
        model.head_constants()[1].zero_()
        model.head_constants()[0].zero_()
    for hubbard, close in ((True, True), (False, False)):
        of_set = prepare_all([mark(f, hubbard) for f in frames], config)
        found = described(fit_zeros(model, of_set), model.atomic_numbers)["set"]
        assert (abs(found["elements"]["Fe"] + 8.0) < 1e-6) == close
        if hubbard:
            assert found["hubbard"]["Fe"] == pytest.approx(2.7)
            assert found["hubbard"]["Ni"] == 0


def labeled(atoms, energy):
    return LabeledFrame(atoms, energy, np.zeros((len(atoms), 3)), None)


def mark(frame, hubbard):
    return replace(frame, zero="set", hubbard=hubbard)


def test_a_run_learns_through_two_zeros_and_goes_on_exactly(folder, config_table, tmp_path):
    own = config_with(config_table, {"file": "other.extxyz", "zero": "other"})
    data = load_data(own, folder)
    table = train(own, tmp_path / "whole", data)
    assert table["train"].energy.mae < 2000  # meV/atom; 150,000 with the zeros mixed up
    train(own, tmp_path / "parts", data, stop_after=own.total_steps - 3)
    assert train(own, tmp_path / "parts", data) == table
    text = (tmp_path / "whole" / "model" / "config.json").read_text()
    assert '"zeros"' in text


def test_energies_alone_cost_no_derivatives_and_change_nothing(folder, config_table):
    """Frames without forces are computed apart; loss and gradients are those of all at once."""
    bare = shifted(labeled_crystals(6, seed=5))
    for a in bare:
        a.calc.results = {"energy": a.calc.results["energy"]}
    ase.io.write(folder / "bare.extxyz", bare)
    config = config_with(config_table, {"file": "bare.extxyz", "zero": "other"})
    data = load_data(config, folder)
    prepared = prepare_all(data.train, config)
    gradients = {}
    for apart in (True, False):
        run = Run.start(config, data.train, prepared)
        run.align_energies(prepared)
        frames = run.on_zero([prepared[0], prepared[-1], prepared[1], prepared[-2]])
        stage = replace(config.stages[0], batch_size=4)
        groups = run.batches(stage, frames) if apart else [(frames, None)]
        assert len(groups) == (2 if apart else 1)
        counts = LabelCounts.of(frames)
        for part, draw in groups:
            run.backward(part, draw, stage.loss, counts)
        gradients[apart] = torch.cat([
            p.grad.flatten() for p in run.model.parameters() if p.grad is not None
        ])  # fmt: skip
    scale = gradients[False].abs().max()
    assert (gradients[True] - gradients[False]).abs().max() < 1e-5 * scale


def test_parts_of_a_file(folder, config_table):
    small = {"file": "other.extxyz", "zero": "other", "frames": "2:9:2", "max_atoms": 7}
    data = load_data(config_with(config_table, small), folder)
    chosen = [a for a in labeled_crystals(12, seed=3)[2:9:2] if len(a) <= 7]
    assert sum(f.zero == "other" for f in [*data.train, *data.validation]) == len(chosen)
    strongest = max(np.linalg.norm(f.forces, axis=1).max() for f in data.train)
    weak = {"file": "other.extxyz", "max_force": 0.5 * strongest}
    fewer = load_data(config_with(config_table, weak), folder)
    assert len(fewer.train) < 28
    none = {"file": "other.extxyz", "max_force": 1e-9}
    with pytest.raises(DatasetError, match=r"no frame of .* is left"):
        load_data(config_with(config_table, none), folder)
    for wrong, message in (
        ({"frames": "3"}, "a slice"),
        ({"max_atoms": 0}, "max_atoms"),
        ({"max_force": -1.0}, "max_force"),
        ({"hubbard": True}, "needs `zero`"),
    ):
        with pytest.raises(ValueError, match=message):
            config_with(config_table, {"file": "other.extxyz"} | wrong)


def test_structures_of_other_elements_are_refused_or_left_out(folder, config_table):
    frames = labeled_crystals(6, seed=4)
    strange = frames[2].copy()
    strange.numbers[0] = 10
    strange.calc = SinglePointCalculator(strange, energy=-1.0)
    ase.io.write(folder / "strange.extxyz", [*frames, strange])
    source = {"file": "strange.extxyz"}
    with pytest.raises(DatasetError, match=r"`model\.elements` must cover .* has Ne too"):
        load_data(config_with(config_table, source), folder)
    without = load_data(config_with(config_table, {**source, "file": "other.extxyz"}), folder)
    more = load_data(config_with(config_table, source | {"covered_only": True}), folder)
    n, n_more = (len(d.train) + len(d.validation) for d in (without, more))
    assert n_more == n - 12 + 6


def test_a_table_of_crystals_is_a_data_set(folder, config_table):
    table = {
        "n_atoms": np.array([2, 1]), "numbers": np.array([11, 17, 11]),
        "frac": np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0.0]]),
        "cellpar": np.array([[3.3, 3.3, 3.3, 90, 90, 90], [4.0, 4, 4, 90, 90, 90]]),
        "formation_energy": np.array([-2.0, 0.1]),
    }  # fmt: skip
    np.savez(folder / "table.npz", **table)
    (folder / "table.npz.xz").write_bytes(lzma.compress((folder / "table.npz").read_bytes()))
    keys = {"energy_per_atom": "formation_energy"}
    for name in ("table.npz", "table.npz.xz"):
        data = load_data(config_with(config_table, {"file": name, "keys": keys}), folder)
        found = [f for f in [*data.train, *data.validation] if f.forces is None]
        assert sorted(f.energy for f in found) == pytest.approx([-4.0, 0.1])
        assert data.census["train"].found["energy"] == {"energy": 20, "formation_energy": 2}
