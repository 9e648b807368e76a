"""Uncertainties: parity with published numbers, and what they have to obey."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from contracts.energy_model import Potential, forces_match_energy
from contracts.models import random_pet
from contracts.structures import dense_random, system, water_box

from pet_calc.errors import CheckpointError, IntegrityError, PotentialNotFoundError
from pet_calc.geometry import System, edge_vectors
from pet_calc.io.checkpoints import (
    convert_checkpoint,
    llpr_of,
    load_published,
    read_published,
)
from pet_calc.io.uncertainty import UNCERTAINTY, load_uncertainty
from pet_calc.models import evaluate
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR, EnsembleMember, evaluate_uncertainty, fit_llpr
from pet_calc.neighbors import neighbor_list

RELATIVE = 1e-8


def summed_features(model: PET, structure: System) -> torch.Tensor:
    edges = neighbor_list(structure, model.cutoff)
    species = model.species(structure.numbers)
    features = model.features(species, edges, edge_vectors(structure, edges).to(model.dtype))
    return model.last_layer_features(features).detach()


def test_published_uncertainties(reference_dir: Path) -> None:
    file = reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt"
    model = load_published(file, torch.float64)
    llpr = llpr_of(read_published(file))
    frames = ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")
    structures = {a.info["name"]: a for a in frames}
    with np.load(reference_dir / "pet" / "llpr.f64.results.npz") as archive:
        golden = dict(archive)
    names = sorted({key.split("/")[0] for key in golden})
    assert len(names) == 3
    for name in names:
        atoms = structures[name]
        s = system(atoms.positions, atoms.numbers, np.array(atoms.cell), atoms.pbc.tolist())
        found = evaluate_uncertainty(model, llpr, s, neighbor_list(s, model.cutoff))
        for value, key in (
            (found.energy_uncertainty, "system/energy_uncertainty"),
            (found.energies_uncertainty, "atom/energy_uncertainty"),
            (found.energy_ensemble, "system/energy_ensemble"),
            (found.energies_ensemble, "atom/energy_ensemble"),
            (summed_features(model, s).sum(0), "system/last_layer_features"),
        ):
            expected = golden[f"{name}/{key}"].reshape(value.shape)
            assert np.allclose(value.numpy(), expected, rtol=RELATIVE, atol=1e-12), (name, key)


def test_conversion_keeps_uncertainties(reference_dir: Path, tmp_path: Path) -> None:
    file = reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt"
    imported = convert_checkpoint(file, tmp_path)
    found = load_uncertainty(tmp_path)
    for name, value in llpr_of(imported).to_tensors().items():
        assert torch.equal(found.to_tensors()[name], value), name
    damaged = bytearray((tmp_path / UNCERTAINTY).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / UNCERTAINTY).write_bytes(damaged)
    with pytest.raises(IntegrityError, match="must have the SHA-256"):
        load_uncertainty(tmp_path)


def test_models_without_uncertainties_say_so(reference_dir: Path, tmp_path: Path) -> None:
    file = reference_dir / "pet" / "pet_legacy.ckpt"
    imported = convert_checkpoint(file, tmp_path)
    with pytest.raises(PotentialNotFoundError, match="has no uncertainties"):
        load_uncertainty(tmp_path)
    with pytest.raises(CheckpointError, match="must hold cholesky_energy_uncertainty"):
        llpr_of(imported)


@pytest.mark.parametrize("featurizer", ["feedforward", "residual"])
def test_energy_is_linear_in_the_last_layer_features(featurizer: str) -> None:
    model = random_pet(40, featurizer_type=featurizer)
    structure = dense_random()
    weights, bias = [], torch.zeros(structure.n_atoms, dtype=torch.float64)
    edges = neighbor_list(structure, model.cutoff)
    species = model.species(structure.numbers)
    features = model.features(species, edges, edge_vectors(structure, edges))
    for node, edge in model.readouts("energy"):
        weights += [node[-1].weight[0], edge[-1].weight[0]]
        bias = bias + features.per_atom(
            node[-1].bias.expand(structure.n_atoms),
            edge[-1].bias.expand(len(features.slot_weight)),
        )
    linear = model.last_layer_features(features) @ torch.cat(weights) + bias
    expected = model.predict("energy", features)[:, 0]
    assert torch.allclose(linear, expected, rtol=0, atol=1e-12)


@pytest.fixture
def fitted() -> tuple[PET, LLPR]:
    model = random_pet(41, d_head=4).requires_grad_(False)
    boxes = [water_box(seed=k) for k in range(30)]
    features = torch.stack([summed_features(model, box).sum(0) for box in boxes])
    counts = torch.tensor([box.n_atoms for box in boxes])
    errors = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    llpr = fit_llpr(features, counts, errors, members=400)
    ratio = errors / llpr.sigma(features)
    assert ratio.square().mean().item() == pytest.approx(1.0)
    return model, llpr


def test_ensemble_spreads_as_the_formula_says(fitted: tuple[PET, LLPR]) -> None:
    model, llpr = fitted
    box = water_box(seed=50)
    found = evaluate_uncertainty(model, llpr, box, neighbor_list(box, model.cutoff))
    spread = found.energy_ensemble.std(1)
    assert torch.allclose(spread, found.energy_uncertainty, rtol=0.15)
    energy = evaluate(model, box, neighbor_list(box, model.cutoff)).energy
    assert torch.allclose(found.energy_ensemble.mean(1), energy, rtol=0, atol=1e-9)


def test_members_have_forces_of_their_energies(fitted: tuple[PET, LLPR]) -> None:
    model, llpr = fitted
    few = LLPR(llpr.cholesky, llpr.multiplier, llpr.ensemble[:3])
    forces_match_energy(Potential(EnsembleMember(model, few, 1)), dense_random())
    box = dense_random()
    edges = neighbor_list(box, model.cutoff)
    found = evaluate_uncertainty(model, few, box, edges, derivatives=True)
    assert found.forces_ensemble is not None
    assert found.forces_uncertainty is not None
    plain = evaluate(model, box, edges).forces
    assert plain is not None
    assert torch.allclose(found.forces_ensemble.mean(0), plain, rtol=0, atol=1e-10)
    assert found.forces_uncertainty.shape == plain.shape
    one = LLPR(llpr.cholesky, llpr.multiplier, llpr.ensemble[:1])
    with pytest.raises(ValueError, match="at least two members, got 1"):
        evaluate_uncertainty(model, one, box, edges, derivatives=True)
