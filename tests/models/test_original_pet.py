"""The first public PET: parity with its code in float64, and the contracts."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from contracts.energy_model import Potential, forces_match_energy, rotation_invariant
from contracts.structures import dense_random, system, water_box

from pet_calc.errors import CheckpointError, PotentialNotFoundError, UnsupportedElementError
from pet_calc.geometry import System
from pet_calc.io.foreign.calc_folder import config_of, load_calc_folder, read_hypers
from pet_calc.models import EnergyModel, evaluate
from pet_calc.models.pet.published.original import OriginalPET, OriginalPETConfig
from pet_calc.neighbors import neighbor_list

ENERGY, FORCES = 1e-9, 1e-10


def to_system(atoms: ase.Atoms) -> System:
    return system(atoms.positions, atoms.numbers, np.array(atoms.cell), atoms.pbc.tolist())


@pytest.mark.parametrize("name", ["pet_main", "pet_preln", "pet_aux"])
def test_numbers_of_the_original_code(reference_dir: Path, name: str) -> None:
    folder = reference_dir / "pet_original"
    model = load_calc_folder(folder / name, torch.float64)
    frames = ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")
    structures = {atoms.info["name"]: atoms for atoms in frames}
    checked = 0
    with np.load(folder / "pet.f64.results.npz") as golden:
        for key in golden.files:
            prefix, structure, quantity = key.split("/")
            if prefix != name or quantity != "energy":
                continue
            atoms = to_system(structures[structure])
            found = evaluate(model, atoms, neighbor_list(atoms, model.cutoff))
            assert found.forces is not None
            assert abs(found.energy.item() - golden[key].item()) < ENERGY
            forces = golden[f"{name}/{structure}/forces"]
            assert np.abs(found.forces.numpy() - forces).max() < FORCES
            checked += 1
    assert checked == 3


def random_model(**options: object) -> OriginalPET:
    config = OriginalPETConfig(
        elements=(1, 8, 14), cutoff=3.76, cutoff_width=0.765, d_model=16, d_feedforward=24,
        d_head=8, num_attention_layers=2, num_gnn_layers=2, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return OriginalPET(config, dtype=torch.float64)


OPTIONS = [
    {},
    {"transformer_type": "PreLN", "blend_neighbor_species": True},
    {"geometry": "vector", "embedding_activation": True},
    {"bond_energies": False, "residual_factor": 0.4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_forces_match_energy(options: dict[str, object]) -> None:
    model = random_model(**options)
    assert isinstance(model, EnergyModel)
    forces_match_energy(Potential(model), dense_random())


def test_form_that_sees_lengths_alone_is_invariant() -> None:
    rotation_invariant(Potential(random_model(geometry="length")), water_box())
    with pytest.raises(AssertionError, match="energy: differs"):
        rotation_invariant(Potential(random_model()), water_box())


def test_unknown_element_is_refused() -> None:
    with pytest.raises(UnsupportedElementError, match=r"contains \[79\]"):
        Potential(random_model())(system([[0.0, 0, 0]], [79]))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PotentialNotFoundError, match=r"must hold hypers_used\.yaml"):
        load_calc_folder(tmp_path)


def test_hypers_are_read_from_their_section_alone() -> None:
    text = "A: 1\nARCHITECTURAL_HYPERS:\n  R_CUT: 4.5\n  K_CUT: null\n  X: 'a'\nB:\n  R_CUT: 3\n"
    assert read_hypers(text) == {"R_CUT": 4.5, "K_CUT": None, "X": "a"}


def test_unknown_option_is_refused() -> None:
    with pytest.raises(CheckpointError, match="USE_LONG_RANGE must be False, got True"):
        config_of({"USE_LONG_RANGE": True}, (1, 8))
