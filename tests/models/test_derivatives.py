"""evaluate: what it returns, and that losses on forces and stress can be differentiated."""

import pytest
import torch
from contracts.energy_model import Potential
from contracts.models import lennard_jones, random_pet
from contracts.structures import dense_random, left_handed_cell, slab, water_box

from pet_calc.geometry import System, edge_vectors
from pet_calc.models import EnergyModel, evaluate
from pet_calc.neighbors import neighbor_list


@pytest.mark.parametrize(("forces", "stress"), [(True, False), (False, True), (False, False)])
def test_only_what_was_asked_for(forces: bool, stress: bool) -> None:
    water, model = water_box(), lennard_jones()
    edges = neighbor_list(water, model.cutoff)
    everything = evaluate(model, water, edges)
    result = evaluate(model, water, edges, forces=forces, stress=stress)
    assert torch.equal(result.energies, everything.energies)
    for name, asked in (("forces", forces), ("stress", stress)):
        value = getattr(result, name)
        assert (value is not None) == asked
        if asked:
            assert torch.equal(value, getattr(everything, name))


def test_gradient_mode_of_the_caller_does_not_matter() -> None:
    potential = Potential(random_pet())
    expected = potential(water_box())
    with torch.no_grad():
        found = potential(water_box())
        assert not torch.is_grad_enabled()
    assert expected.forces is not None
    assert found.forces is not None
    assert torch.equal(found.forces, expected.forces)


def test_stress_is_not_a_number_where_it_is_not_defined() -> None:
    stress = Potential(lennard_jones())(System.concatenate([slab(), water_box()])).stress
    assert stress is not None
    assert torch.isnan(stress[0]).all()
    assert torch.isfinite(stress[1]).all()


def test_virial_does_not_need_symmetrizing_for_rotation_invariant_models() -> None:
    """Torque-free: Σ r ⊗ ∂E/∂r is symmetric for Lennard-Jones, and is not for plain PET."""
    crystal = dense_random()
    asymmetry = []
    for model in (lennard_jones(), random_pet()):
        edges = neighbor_list(crystal, model.cutoff)
        vectors = edge_vectors(crystal, edges).requires_grad_()
        energy = model.energies(crystal, edges, vectors).sum()
        (g,) = torch.autograd.grad(energy, vectors)
        virial = vectors.detach().T @ g
        asymmetry.append((virial - virial.T).abs().max().item())
    assert asymmetry[0] < 1e-12 < 1e-6 < asymmetry[1]


@pytest.mark.parametrize("model", [random_pet(), lennard_jones()], ids=["pet", "lj"])
def test_create_graph_changes_no_number(model: EnergyModel) -> None:
    crystal = left_handed_cell()
    edges = neighbor_list(crystal, model.cutoff)
    a, b = (evaluate(model, crystal, edges, create_graph=c) for c in (False, True))
    for name in ("energy", "energies", "forces", "stress"):
        found = getattr(b, name).detach()  # autograd sums in another order
        assert torch.allclose(found, getattr(a, name), rtol=1e-13, atol=1e-14)
        assert not getattr(a, name).requires_grad


def test_force_loss_has_the_right_gradient_on_the_weights() -> None:
    """d loss(E, F, σ) / d weight against central differences, on a few weights of every kind."""
    model = random_pet(5, input_encoding="radial")
    batch = System.concatenate([left_handed_cell(), dense_random()])
    edges = neighbor_list(batch, model.cutoff)

    def loss(create_graph: bool) -> torch.Tensor:
        r = evaluate(model, batch, edges, create_graph=create_graph)
        assert r.forces is not None
        assert r.stress is not None
        return r.energy.square().sum() + r.forces.square().mean() + 100 * r.stress.square().sum()

    loss(create_graph=True).backward()
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if p.numel() == 0:
            continue
        assert p.grad is not None, name
        k = int(torch.randint(p.numel(), (1,), generator=generator))
        values, old = p.data.view(-1), float(p.data.view(-1)[k])
        found = []
        for h in (1e-4, -1e-4):
            values[k] = old + h
            found.append(loss(create_graph=False).item())
        values[k] = old
        numeric = (found[0] - found[1]) / 2e-4
        assert p.grad.view(-1)[k].item() == pytest.approx(numeric, rel=2e-5, abs=1e-6), name
