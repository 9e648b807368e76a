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

from pet_calc.errors import IntegrityError
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.io.foreign.checkpoints import (
    convert_checkpoint,
    load_published,
    read_published,
    uncertainties_of,
)
from pet_calc.io.models.uncertainty import UNCERTAINTY, find_uncertainty, write_uncertainty
from pet_calc.io.models.weights import load_model, read_config, save_model
from pet_calc.models import Results, evaluate
from pet_calc.models.interface import Uncertainties
from pet_calc.models.pet import PET
from pet_calc.models.pet.published.checkpoints import in_electronvolts
from pet_calc.models.pet.published.migrations import Target
from pet_calc.models.pet.uncertainty import (
    CALIBRATIONS,
    LLPR,
    Calibration,
    LastLayerEnsemble,
    calibration_factor,
    fit_llpr,
)
from pet_calc.neighbors import neighbor_list

RELATIVE = 1e-8


class Member(LastLayerEnsemble):
    """One member of a last-layer ensemble as an energy model, differentiated by itself."""

    def __init__(self, model: PET, llpr: LLPR, index: int) -> None:
        super().__init__(model, llpr)
        self.index = index

    def energies(self, system: System, edges: Edges, vectors: torch.Tensor) -> torch.Tensor:
        energies, features = self.energies_and_features(system, edges, vectors)
        return energies + self.llpr.deviations(features)[:, self.index]

    def evaluate(self, system: System, edges: Edges, **_: bool) -> Results:
        found = evaluate(self, system, edges, create_graph=True)
        return Results(
            *(t.detach() for t in (found.energy, found.energies, found.forces, found.stress))
        )


def uncertainties(model: LastLayerEnsemble, structure: System) -> Uncertainties:
    found = evaluate(model, structure, neighbor_list(structure, model.cutoff)).uncertainties
    assert found is not None
    return found


def summed_features(model: PET, structure: System) -> torch.Tensor:
    edges = neighbor_list(structure, model.cutoff)
    features = model.features(structure, edges, edge_vectors(structure, edges).to(model.dtype))
    return model.last_layer_features(features).detach()


def test_published_uncertainties(reference_dir: Path) -> None:
    file = reference_dir / "pet" / "llpr_pet_adaptive_solver.ckpt"
    model = load_published(file, torch.float64)
    llpr = uncertainties_of(read_published(file))["energy"]
    frames = ase.io.read(reference_dir / "pet" / "structures.extxyz", ":")
    structures = {a.info["name"]: a for a in frames}
    with np.load(reference_dir / "pet" / "llpr.f64.results.npz") as archive:
        golden = dict(archive)
    names = sorted({key.split("/")[0] for key in golden})
    assert len(names) == 3
    for name in names:
        atoms = structures[name]
        s = system(atoms.positions, atoms.numbers, np.array(atoms.cell), atoms.pbc.tolist())
        found = uncertainties(LastLayerEnsemble(model, llpr), s)
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
    found = find_uncertainty(tmp_path)
    assert found is not None
    for name, value in uncertainties_of(imported)["energy"].to_tensors().items():
        assert torch.equal(found.to_tensors()[name], value), name
    damaged = bytearray((tmp_path / UNCERTAINTY).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / UNCERTAINTY).write_bytes(damaged)
    with pytest.raises(IntegrityError, match="must have the SHA-256"):
        find_uncertainty(tmp_path)


def test_models_without_uncertainties_have_none(reference_dir: Path, tmp_path: Path) -> None:
    file = reference_dir / "pet" / "pet_legacy.ckpt"
    imported = convert_checkpoint(file, tmp_path)
    assert find_uncertainty(tmp_path) is None
    assert not uncertainties_of(imported)


@pytest.mark.parametrize("featurizer", ["feedforward", "residual"])
def test_energy_is_linear_in_the_last_layer_features(featurizer: str) -> None:
    model = random_pet(40, featurizer_type=featurizer)
    structure = dense_random()
    weights, bias = [], torch.zeros(structure.n_atoms, dtype=torch.float64)
    edges = neighbor_list(structure, model.cutoff)
    features = model.features(structure, edges, edge_vectors(structure, edges))
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
    llpr = fit_llpr(
        features, counts, features, errors, calibration="squared_residuals", members=400
    )
    ratio = errors / llpr.sigma(features)
    assert ratio.square().mean().item() == pytest.approx(1.0)
    return model, llpr


def test_ensemble_spreads_as_the_formula_says(fitted: tuple[PET, LLPR]) -> None:
    model, llpr = fitted
    box = water_box(seed=50)
    found = uncertainties(LastLayerEnsemble(model, llpr), box)
    spread = found.energy_ensemble.std(1)
    assert torch.allclose(spread, found.energy_uncertainty, rtol=0.15)
    energy = evaluate(model, box, neighbor_list(box, model.cutoff)).energy
    assert torch.allclose(found.energy_ensemble.mean(1), energy, rtol=0, atol=1e-9)


def test_members_have_forces_of_their_energies(fitted: tuple[PET, LLPR]) -> None:
    model, llpr = fitted
    few = LLPR(llpr.cholesky, llpr.multiplier, llpr.ensemble[:3])
    forces_match_energy(Potential(Member(model, few, 1)), dense_random())
    box = dense_random()
    edges = neighbor_list(box, model.cutoff)
    found = uncertainties(LastLayerEnsemble(model, few, derivatives=True), box)
    assert found.forces_ensemble is not None
    assert found.forces_uncertainty is not None
    plain = evaluate(model, box, edges).forces
    assert plain is not None
    assert torch.allclose(found.forces_ensemble.mean(0), plain, rtol=0, atol=1e-10)
    assert found.forces_uncertainty.shape == plain.shape
    for k in range(3):  # one forward pass for all members, and one for each, are the same
        alone = evaluate(Member(model, few, k), box, edges)
        assert alone.forces is not None
        assert alone.stress is not None
        assert found.stress_ensemble is not None
        assert torch.allclose(found.forces_ensemble[k], alone.forces, rtol=0, atol=1e-11)
        assert torch.allclose(found.stress_ensemble[k], alone.stress, rtol=0, atol=1e-12)
    one = LLPR(llpr.cholesky, llpr.multiplier, llpr.ensemble[:1])
    with pytest.raises(ValueError, match="at least two members, got 1"):
        LastLayerEnsemble(model, one, derivatives=True)


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_calibration_recovers_a_known_factor(method: Calibration) -> None:
    generator = torch.Generator().manual_seed(2)
    sigma = torch.rand(20_000, dtype=torch.float64, generator=generator) + 0.1
    errors = 2.5 * sigma * torch.randn(20_000, dtype=torch.float64, generator=generator)
    assert calibration_factor(errors, sigma, method).item() == pytest.approx(2.5, rel=0.02)
    # positive control: errors of another distribution tell the methods apart
    uniform = sigma * (2 * torch.rand(20_000, dtype=torch.float64, generator=generator) - 1)
    assert calibration_factor(uniform, sigma, method).item() == pytest.approx(
        {
            "absolute_residuals": np.sqrt(np.pi / 2) / 2,
            "squared_residuals": np.sqrt(1 / 3),
            "crps": 0.640,  # α (2 Φ(1 / α) - 1) = 1 / sqrt(π)
        }[method],
        rel=0.02,
    )


def test_crps_calibration_minimizes_the_score() -> None:
    generator = torch.Generator().manual_seed(3)
    sigma = torch.rand(50, dtype=torch.float64, generator=generator) + 0.1
    errors = torch.randn(50, dtype=torch.float64, generator=generator)

    def score(alpha: torch.Tensor) -> float:
        normal = torch.distributions.Normal(0.0, 1.0)
        s = alpha * sigma
        z = errors / s
        density = normal.log_prob(z).exp()
        return (s * (z * (2 * normal.cdf(z) - 1) + 2 * density - np.pi**-0.5)).mean().item()

    best = calibration_factor(errors, sigma, "crps")
    for factor in (0.99, 1.01):
        assert score(best) < score(factor * best)


def test_calibration_refuses_what_sets_no_scale() -> None:
    one = torch.ones(1)
    for errors in (torch.zeros(3), torch.full((3,), torch.nan), torch.zeros(0)):
        with pytest.raises(ValueError, match="`errors` must be finite and not all zero"):
            calibration_factor(errors, torch.ones(len(errors)))
    with pytest.raises(ValueError, match="`method` must be one of"):
        calibration_factor(one, one, "nll")  # type: ignore[arg-type]


def test_uncertainties_of_energies_in_another_unit_are_in_electronvolt() -> None:
    wrapper = {
        "cholesky_energy_uncertainty": torch.eye(2),
        "multiplier_energy_uncertainty": torch.ones(1),
        "llpr_ensemble_layers.energy.weight": torch.ones(3, 2),
    }
    for unit, value in (("eV", 1.0), ("kcal/mol", 0.0433641153087705)):
        found = in_electronvolts(wrapper, {"energy": Target("energy", unit, scalar=True)})
        assert found["multiplier_energy_uncertainty"].item() == pytest.approx(value)
        assert found["llpr_ensemble_layers.energy.weight"][0, 0].item() == pytest.approx(value)
        assert torch.equal(found["cholesky_energy_uncertainty"], torch.eye(2))


def test_every_head_keeps_its_own_uncertainty(tmp_path: Path) -> None:
    model = random_pet(42, energy_heads=("energy", "energy/b", "energy/c"), d_head=2)
    eye = torch.eye(4, dtype=torch.float64)
    models = {
        head: LLPR(k * eye, torch.tensor(1.0).double(), eye[:2] / k)
        for k, head in ((1, "energy"), (2, "energy/b"))
    }
    save_model(tmp_path, model, {"steps": 3, **write_uncertainty(tmp_path, models)})
    for head, llpr in models.items():
        assert torch.equal(find_uncertainty(tmp_path, head).cholesky, llpr.cholesky)
    assert find_uncertainty(tmp_path, "energy/c") is None
    training = read_config(tmp_path)["training"]
    assert set(training) == {"steps", "uncertainty_sha256"}
    assert load_model(tmp_path).config == model.config
    # a file that the configuration does not record belongs to another model
    save_model(tmp_path, model)
    assert find_uncertainty(tmp_path) is None
