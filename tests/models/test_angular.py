"""Attention that sees angles: the equation, what it tells apart, and exact symmetry."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.energy_model import Potential, rotation_invariant
from contracts.models import ANGULAR, random_pet
from contracts.structures import STRUCTURES, system
from numpy.polynomial import Legendre

from pet_calc import PETCalculator
from pet_calc.geometry import System, spherical_harmonics
from pet_calc.io.structures.atoms import atoms_from_system
from pet_calc.models.pet import PETConfig
from pet_calc.models.pet.layers import AngularAttention
from pet_calc.models.pet.normalization import NO_NORM

DEGREE, HEADS, WIDTH = 3, 2, 6


def attention() -> AngularAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AngularAttention(WIDTH, HEADS, 1.3, DEGREE).double()


def literal(
    layer: AngularAttention, tokens: np.ndarray, unit: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """The equations of `AngularAttention` for one atom, with Legendre polynomials of angles."""
    n, e = len(tokens), WIDTH // HEADS
    made = tokens @ layer.input_linear.weight.detach().numpy().T
    made = made + layer.input_linear.bias.detach().numpy()
    q, k, v = made[:, : 3 * WIDTH].reshape(n, 3, HEADS, e).transpose(1, 2, 0, 3)
    a, b, c = made[:, 3 * WIDTH :].reshape(n, 3, HEADS, DEGREE).transpose(1, 2, 0, 3)
    # the node, token 0, has no direction
    cosine = unit @ unit.T
    polynomials = np.zeros((DEGREE, n, n))
    for l in range(1, DEGREE + 1):
        polynomials[l - 1, 1:, 1:] = Legendre.basis(l)(cosine[1:, 1:])
    s = 1 / (math.sqrt(e) * 1.3)
    attended, first, second = [], [], []
    for h in range(HEADS):
        angular = np.einsum("jl,kl,ljk->jk", a[h], b[h], polynomials)
        logits = s * (q[h] @ k[h].T + angular) + np.log(weight)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        attended.append(p @ v[h])
        first.append(np.einsum("jk,kl,ljk->jl", p, c[h], polynomials))
        # sum over m of A² is a double sum over neighbors of angles between them
        second.append(np.einsum("ja,al,jb,bl,lab->jl", p, c[h], p, c[h], polynomials))
    invariants = np.concatenate([*first, *second], axis=1)
    out = np.concatenate(attended, axis=1) @ layer.output_linear.weight.detach().numpy().T
    out = out + layer.output_linear.bias.detach().numpy()
    return out + invariants @ layer.invariant_linear.weight.detach().numpy().T


def test_it_is_the_attention_of_the_equations() -> None:
    layer = attention()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 5, WIDTH, dtype=torch.float64, generator=generator)
    unit = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    unit = unit / unit.norm(dim=-1, keepdim=True)
    weight = torch.rand(2, 5, dtype=torch.float64, generator=generator)
    harmonics = spherical_harmonics(unit, DEGREE)
    harmonics[:, 0] = 0.0
    found = layer(tokens, NO_NORM, weight.log(), harmonics).detach().numpy()
    for k in range(2):
        expected = literal(layer, tokens[k].numpy(), unit[k].numpy(), weight[k].numpy())
        np.testing.assert_allclose(found[k], expected, atol=1e-12)
    # without harmonics it is another function, so that the agreement says something
    blind = layer(tokens, NO_NORM, weight.log(), torch.zeros_like(harmonics)).detach().numpy()
    assert np.abs(blind - found).max() > 1e-2


def bent(angle: float) -> System:
    """An oxygen atom with two neighbors at 2 Å that do not see each other."""
    x, y = math.cos(angle), math.sin(angle)
    return system([[0.0, 0, 0], [2.0, 0, 0], [2.0 * x, 2.0 * y, 0]], [8, 1, 1])


def energy(angle: float, **options: object) -> float:
    changes: dict[str, object] = {"num_gnn_layers": 1, "num_attention_layers": 1, "cutoff": 2.3}
    model = random_pet(5, input_encoding="distance", **(changes | options))
    return float(Potential(model)(bent(angle)).energies[0])


def test_one_layer_tells_angles_apart_that_distances_do_not() -> None:
    narrow, wide = 1.4, 2.2  # the two neighbors are 2.6 and 3.6 Å apart, beyond the cutoff
    assert energy(narrow) == energy(wide)
    assert abs(energy(narrow, angular_degree=1) - energy(wide, angular_degree=1)) > 1e-4


@pytest.mark.parametrize("options", [{"featurizer_type": "residual"}, {"d_node": 16},
                                     {"transformer_type": "PostLN"},
                                     {"num_neighbors_adaptive": 6.0}])  # fmt: skip
def test_variants_are_exactly_symmetric(options: dict[str, object]) -> None:
    rotation_invariant(Potential(random_pet(6, **ANGULAR, **options)), STRUCTURES["water-24"]())


def test_unit_vectors_in_the_tokens_break_the_symmetry() -> None:
    """Positive control: angles in the attention do not make a network symmetric by themselves."""
    model = random_pet(6, **(ANGULAR | {"input_encoding": "radial"}))
    assert not model.config.invariant
    with pytest.raises(AssertionError, match="energy: differs"):
        rotation_invariant(Potential(model), STRUCTURES["water-24"]())


def test_calculator_needs_no_ensemble() -> None:
    """ "auto" makes a potential exact, which this one is: one evaluation, the same numbers."""
    atoms = atoms_from_system(STRUCTURES["water-24"]())[0]
    model = random_pet(6, **ANGULAR)
    found = {}
    for ecse in (None, False, "auto", "structure"):
        atoms.calc = PETCalculator(model, ecse=ecse)
        found[ecse] = atoms.get_potential_energy(), atoms.get_forces()
    for other in (False, "auto", "structure"):
        assert found[other][0] == found[None][0]
        assert np.array_equal(found[other][1], found[None][1])
    with pytest.raises(ValueError, match="only for a potential that was trained so"):
        PETCalculator(model, ecse="layerwise")


def test_configuration_goes_through_plain_values() -> None:
    config = random_pet(0, **ANGULAR).config
    assert config.to_dict()["angular_degree"] == 3
    assert PETConfig.from_dict(config.to_dict()) == config
    # nothing new is written for models that do not have it
    assert "angular_degree" not in replace(config, angular_degree=0).to_dict()
