"""Parts of PET beside the network: repulsion of nuclei, charge and spin, direct heads, cutoffs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.energy_model import Potential, batch_equals_single, forces_match_energy
from contracts.models import random_pet
from contracts.structures import dense_random, molecule, one_atom, slab, system, water_box

import pet_calc.models.pet.network as pet_model
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.kernels.cutoff_functions import bump, bump_slope, cosine
from pet_calc.models import evaluate
from pet_calc.models.pet.adaptive_cutoff import (
    Environment,
    adaptive_environment,
    grid_cutoffs,
    neighbor_count,
    solved_cutoffs,
)
from pet_calc.models.pet.direct import DirectHeads
from pet_calc.models.pet.zbl import ZBL, covalent_radius
from pet_calc.neighbors import neighbor_list

# --- cutoff functions --------------------------------------------------------------------------


def test_slope_of_the_bump_is_its_derivative() -> None:
    r = torch.linspace(3.8, 4.7, 181, dtype=torch.float64)
    cutoff = torch.full_like(r, 4.5).requires_grad_()
    (expected,) = torch.autograd.grad(bump(r, cutoff, 0.5).sum(), cutoff)
    assert torch.allclose(bump_slope(r, 4.5, 0.5), expected, rtol=1e-9, atol=1e-9)


def test_cosine_is_that_of_the_formula() -> None:
    r = torch.linspace(3.0, 6.0, 301, dtype=torch.float64)
    s = ((r - 4.3) / 0.2).clamp(0, 1)
    assert torch.allclose(cosine(r, 4.5, 0.2), 0.5 * (1 + torch.cos(np.pi * s)), atol=1e-15)


# --- adaptive cutoff ---------------------------------------------------------------------------


def environment(structure: System, cutoff: float) -> tuple[Edges, torch.Tensor, torch.Tensor]:
    edges = neighbor_list(structure, cutoff)
    vectors = edge_vectors(structure, edges)
    return edges, vectors, vectors.square().sum(-1).sqrt()


def test_solver_finds_the_asked_number_of_neighbors() -> None:
    edges, _, distances = environment(dense_random(), 5.0)
    arguments = {"max_cutoff": 5.0, "target": 12.0, "width": 1.0}
    radius = solved_cutoffs(distances, edges.edge_index[0], 12, **arguments)
    count = neighbor_count(distances, edges.edge_index[0], radius, 5.0, 12.0, 1.0)
    assert torch.allclose(count, torch.full_like(count, 12.0), rtol=0, atol=1e-9)
    assert radius.max() < 5.0


@pytest.mark.parametrize("find", [solved_cutoffs, grid_cutoffs])
def test_cutoff_has_the_right_gradient(find) -> None:
    edges, _, distances = environment(dense_random(), 4.0)

    def radii(d: torch.Tensor) -> torch.Tensor:
        return find(d, edges.edge_index[0], 12, max_cutoff=4.0, target=8.0, width=1.0)

    d = distances.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(radii(d)[3], d)
    direction = torch.randn(len(d), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = 1e-5
    numeric = (radii(distances + h * direction) - radii(distances - h * direction))[3] / (2 * h)
    assert numeric.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


def test_atom_without_neighbors_has_the_largest_cutoff() -> None:
    none = torch.zeros(0, dtype=torch.float64)
    center = torch.zeros(0, dtype=torch.int64)
    radius = solved_cutoffs(none, center, 1, max_cutoff=6.0, target=12.0, width=1.0)
    assert radius.item() == pytest.approx(6.0)


@pytest.mark.parametrize("method", ["solver", "grid"])
def test_kept_edges_come_in_pairs(method: str) -> None:
    config = random_pet(
        1, num_neighbors_adaptive=6.0, adaptive_cutoff_method=method, cutoff=4.0
    ).config
    edges, vectors, distances = environment(dense_random(), 4.0)
    kept = adaptive_environment(edges, vectors, distances, 12, config)
    i, j = kept.edges.edge_index
    reverse = kept.edges.reverse_edge
    assert 0 < kept.edges.n_edges < edges.n_edges
    assert torch.equal(kept.edges.edge_index[:, reverse], torch.stack([j, i]))
    assert torch.equal(kept.edges.cell_shifts[reverse], -kept.edges.cell_shifts)
    assert torch.equal(reverse[reverse], torch.arange(len(i)))
    assert torch.allclose(kept.cutoff[reverse], kept.cutoff)


def test_forces_need_the_gradient_of_the_cutoffs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: with cutoffs held fixed the forces are not those of the energy."""
    model = random_pet(5, num_neighbors_adaptive=6.0)
    forces_match_energy(Potential(model), dense_random())

    def frozen(*arguments: object) -> Environment:
        found = adaptive_environment(*arguments)  # type: ignore[arg-type]
        return replace(found, cutoff=found.cutoff.detach())

    monkeypatch.setattr(pet_model, "adaptive_environment", frozen)
    with pytest.raises(AssertionError):
        forces_match_energy(Potential(model), dense_random())


# --- repulsion of nuclei -----------------------------------------------------------------------


def zbl_energy(z: tuple[int, int], r: torch.Tensor) -> torch.Tensor:
    """Of a dimer, straight from the formula without its switch."""
    a = 0.46850 / (z[0] ** 0.23 + z[1] ** 0.23)
    x = r / a
    phi = sum(
        c * torch.exp(-d * x)
        for c, d in (
            (0.02817, 0.20162),
            (0.28022, 0.40290),
            (0.50986, 0.94229),
            (0.18175, 3.19980),
        )
    )
    return 14.399645478425668 * z[0] * z[1] / r * phi


def dimer(r: float) -> tuple[torch.Tensor, Edges]:
    pair = system([[0.0, 0, 0], [0, 0, r]], [8, 14])
    return pair.numbers, neighbor_list(pair, 5.0)


def test_zbl_is_coulomb_like_inside_and_flat_at_its_end() -> None:
    zbl = ZBL((8, 14))
    species = torch.tensor([0, 1])
    end = covalent_radius(8) + covalent_radius(14)

    def energy(r: torch.Tensor) -> torch.Tensor:
        _, edges = dimer(1.0)
        return zbl(species, edges, r.expand(2)).sum()

    for r in (0.05, 0.2):
        close = torch.tensor(r, dtype=torch.float64)
        assert energy(close).item() == pytest.approx(zbl_energy((8, 14), close).item(), rel=0.02)
    r = torch.tensor(end * (1 - 1e-7), dtype=torch.float64, requires_grad=True)
    value = energy(r)
    (first,) = torch.autograd.grad(value, r, create_graph=True)
    (second,) = torch.autograd.grad(first, r)
    assert max(abs(value.item()), abs(first.item()), abs(second.item())) < 1e-4
    assert energy(torch.tensor(end, dtype=torch.float64)).item() == 0.0


def test_zbl_reaches_beyond_a_short_cutoff() -> None:
    model = random_pet(3, cutoff=1.5, cutoff_width=0.5, zbl=True)
    assert model.cutoff == pytest.approx(2 * covalent_radius(14))
    forces_match_energy(Potential(model), dense_random())
    pair = system([[0.0, 0, 0], [0, 0, 2.0]], [14, 14])
    apart = system([[0.0, 0, 0], [0, 0, 4.0]], [14, 14])
    gap = Potential(model)(pair).energy - Potential(model)(apart).energy
    assert gap.item() > 1e-3


def test_radii_are_those_of_ase() -> None:
    from ase.data import covalent_radii

    assert [covalent_radius(z) for z in range(1, 97)] == covalent_radii[1:97].tolist()


# --- charge and spin ---------------------------------------------------------------------------


def charged(system: System, charge: int, spin_multiplicity: int = 1) -> System:
    return replace(
        system, charge=torch.tensor([charge]), spin_multiplicity=torch.tensor([spin_multiplicity])
    )


def test_charge_and_spin_change_the_energy() -> None:
    model = random_pet(6, system_conditioning=True)
    pair = molecule()
    energies = []
    for charge, spin in ((0, 1), (1, 1), (-1, 1), (0, 3)):
        energies.append(Potential(model)(charged(pair, charge, spin)).energy.item())
    assert energies[0] == Potential(model)(pair).energy.item()
    assert len({round(e, 6) for e in energies}) == 4
    forces_match_energy(
        Potential(random_pet(6, system_conditioning=True, featurizer_type="residual")), pair
    )


def test_conditions_belong_to_the_atoms_of_their_system() -> None:
    model = random_pet(6, system_conditioning=True)
    parts = [molecule(), charged(molecule(), 2)]
    found = Potential(model)(System.concatenate(parts)).energy
    for energy, part in zip(found, parts, strict=True):
        assert energy.item() == pytest.approx(Potential(model)(part).energy.item(), abs=1e-11)
    assert abs(found[0] - found[1]) > 1e-6


def test_untrained_conditioning_changes_nothing() -> None:
    model = random_pet(6, system_conditioning=True)
    torch.nn.init.zeros_(model.conditioning.project[2].weight)
    torch.nn.init.zeros_(model.conditioning.project[2].bias)
    neutral, ion = molecule(), charged(molecule(), 1)
    assert Potential(model)(ion).energy == Potential(model)(neutral).energy


@pytest.mark.parametrize(
    ("charge", "spin", "message"),
    [
        (11, 1, "`charge` must lie between -10 and 10"),
        (0, 0, "`spin_multiplicity` must lie between 1 and 10"),
        (0, 11, "`spin_multiplicity` must lie between 1 and 10"),
    ],
)
def test_unknown_charge_and_spin_are_refused(charge: int, spin: int, message: str) -> None:
    model = random_pet(6, system_conditioning=True)
    with pytest.raises(ValueError, match=message):
        Potential(model)(charged(molecule(), charge, spin))


# --- direct heads ------------------------------------------------------------------------------


def test_direct_forces_have_no_net_force_in_any_system() -> None:
    model = random_pet(7, direct_forces=True, direct_stress=True)
    batch = System.concatenate([water_box(), slab(), dense_random()])
    edges = neighbor_list(batch, model.cutoff)
    found = evaluate(DirectHeads(model), batch, edges)
    plain = Potential(model)(batch)
    assert found.forces is not None
    assert found.stress is not None
    assert torch.equal(found.energy, plain.energy)
    assert (found.forces - plain.forces).abs().max() > 1e-3
    for k in range(3):
        assert found.forces[batch.system_index == k].sum(0).abs().max() < 1e-12
    assert torch.isfinite(found.stress).all(dim=1).tolist() == [True, False, True]


def test_one_of_the_two_may_be_direct() -> None:
    model = random_pet(7, direct_forces=True)
    box = water_box()
    edges = neighbor_list(box, model.cutoff)
    found = evaluate(DirectHeads(model, stress=False), box, edges)
    plain = Potential(model)(box)
    assert found.stress is not None
    assert torch.equal(found.stress, plain.stress)
    with pytest.raises(ValueError, match="`stress` cannot be direct: this PET model has no head"):
        DirectHeads(model)


# --- energy heads ------------------------------------------------------------------------------


def test_heads_have_their_own_references_and_scales() -> None:
    model = random_pet(8, energy_heads=("energy", "energy/b"), energy_head="energy/b")
    box = water_box()
    before = Potential(model)(box)
    model.variant_reference_energies += 1.0
    model.reference_energies += 100.0  # of the other head
    after = Potential(model)(box)
    assert torch.allclose(after.energies, before.energies + 1.0, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"`name` must be a head .*'energy/b'.* got 'energy/c'"):
        model.readouts("energy/c")


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_neighbors_adaptive": 6.0}, {"zbl": True}])
def test_free_atom_and_pair(options: dict[str, object]) -> None:
    model = random_pet(9, **options)
    found = Potential(model)(one_atom())
    assert found.forces is not None
    assert found.forces.tolist() == [[0, 0, 0]]
    assert bool(torch.isfinite(found.energy).all())
    batch_equals_single(Potential(model), one_atom())


def test_more_than_65535_atoms() -> None:
    """Widths of 4 keep this fast; the number of atoms is what matters."""
    model = random_pet(
        10, torch.float32, cutoff=1.5, cutoff_width=0.5, d_pet=4, d_node=4, d_head=4,
        d_feedforward=4, num_heads=2, num_gnn_layers=1, num_attention_layers=1,
    )  # fmt: skip
    sites = 5.0 * torch.tensor(list(np.ndindex(33, 33, 33)), dtype=torch.float64)
    shift = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    positions = torch.stack([sites, sites + shift], dim=1).reshape(-1, 3)
    n = len(positions)
    assert n > 65_535
    pairs = System.single(positions, torch.tensor([1, 8]).repeat(n // 2))
    found = Potential(model)(pairs)
    pair = Potential(model)(
        replace(
            pairs,
            positions=positions[:2],
            numbers=pairs.numbers[:2],
            system_index=pairs.system_index[:2],
        )
    )
    assert found.forces is not None
    assert torch.allclose(found.energies[-2:], pair.energies, atol=1e-5)
    assert torch.allclose(found.forces[-2:], pair.forces, atol=1e-4)
