"""PET: configuration, padding, the folded embedding, quirks of the published architecture."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts.energy_model import Potential, forces_match_energy
from contracts.models import pet_config, random_pet
from contracts.structures import dense_random, left_handed_cell, molecule, system, water_box
from torch.nn import functional

import pet_calc.models.pet.network as pet_model
from pet_calc.errors import UnsupportedElementError
from pet_calc.geometry import Edges, NodeEdgeLayout, node_edge_layout
from pet_calc.models.pet import PETConfig, tokens
from pet_calc.models.pet.layers import RMSNorm
from pet_calc.neighbors import neighbor_list

# --- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": ()}, "`elements` must be ascending and unique"),
        ({"elements": (8, 1)}, "`elements` must be ascending and unique"),
        ({"elements": (1, 1)}, "`elements` must be ascending and unique"),
        ({"elements": (0, 1)}, "`elements` must be atomic numbers 1..118"),
        ({"elements": (1, 119)}, "`elements` must be atomic numbers 1..118"),
        ({"cutoff_width": 0.0}, r"`cutoff_width` must lie in \(0, cutoff\], got 0.0"),
        ({"cutoff_width": 9.0}, "`cutoff_width` must lie in"),
        ({"num_heads": 5}, "`d_pet` must be a multiple of `num_heads`, got 16 and 5"),
        ({"d_node": 0}, "`d_node` must be at least 1, got 0"),
        ({"num_gnn_layers": 0}, "`num_gnn_layers` must be at least 1"),
        ({"input_encoding": "polar"}, "`input_encoding` must be 'cartesian' or 'radial' or"),
        ({"angular_degree": -1}, "`angular_degree` must not be negative, got -1"),
        ({"angular_degree": 2, "ecse": "layerwise"}, "need no frames, leave out `ecse`"),
        ({"input_encoding": "distance", "ecse": "layerwise"}, "need no frames"),
        ({"input_encoding": "distance", "direct_forces": True}, "leave out the direct heads"),
        ({"attention_temperature": 0.0}, "`attention_temperature`"),
    ],
)
def test_bad_configuration_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pet_config(**change)


def test_configuration_survives_plain_values() -> None:
    config = pet_config(input_encoding="radial")
    assert PETConfig.from_dict(config.to_dict()) == config
    assert isinstance(config.to_dict()["elements"], list)
    with pytest.raises(ValueError, match=r"unknown PET option\(s\) \['dpet'\]; known are"):
        PETConfig.from_dict(config.to_dict() | {"dpet": 3})


# --- elements ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 79, 118, 0, -1, 300])
def test_unknown_element_is_refused(number: int) -> None:
    strange = system([[0.0, 0, 0], [0, 0, 1.5]], [8, number])
    with pytest.raises(UnsupportedElementError, match=rf"\[1, 8, 14\].* contains \[{number}\]"):
        Potential(random_pet())(strange)


def test_reference_energies_shift_every_atom() -> None:
    model, water = random_pet(), water_box()
    before = Potential(model)(water)
    shift = torch.tensor([1.5, -7.25, 100.0], dtype=torch.float64)
    model.reference_energies += shift
    after = Potential(model)(water)
    expected = before.energies + shift[model.species(water.numbers)]
    assert torch.allclose(after.energies, expected, rtol=0, atol=1e-12)
    assert before.forces is not None
    assert after.forces is not None
    assert torch.equal(before.forces, after.forces)


def test_scale_multiplies_the_network_alone() -> None:
    model, water = random_pet(), water_box()
    references = model.reference_energies[model.species(water.numbers)]
    once = Potential(model)(water)
    model.energy_scale *= 2
    twice = Potential(model)(water)
    found = twice.energies - references
    assert torch.allclose(found, 2 * (once.energies - references), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [1, 8, 14])
def test_free_atom_is_reference_plus_node_readout(number: int) -> None:
    model = random_pet()
    energy = Potential(model)(system([[0.0, 0, 0]], [number])).energy
    species = model.species(torch.tensor([number]))
    node = model.node_embedders[0](species)
    for layer in model.gnn_layers:
        node, _ = layer.trans(node, torch.zeros(1, 0, 16).double(), torch.zeros(1, 1).double())
    expected = model.reference_energies[species] + 0.3 * model.node_head(node)[:, 0]
    assert energy.item() == pytest.approx(expected.item(), abs=1e-13)


# --- padding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "options",
    [
        {"input_encoding": "cartesian"},
        {"input_encoding": "radial"},
        {"input_encoding": "radial", "num_neighbors_adaptive": 6.0},
        {"input_encoding": "distance", "angular_degree": 3},
        {"input_encoding": "radial", "ecse": "layerwise"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_padding_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], dtype: torch.dtype
) -> None:
    potential = Potential(random_pet(6, dtype, **options))
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    structure = dense_random()
    found, padding = [], []

    for max_padding in (0.0, 0.05, 1.0):

        def layout(
            edges: Edges, n_atoms: int, *, bucket_cost: int, bound: float = max_padding
        ) -> NodeEdgeLayout:
            chosen = node_edge_layout(edges, n_atoms, max_padding=bound, bucket_cost=0)
            padding.append(chosen.padding_fraction)
            return chosen

        monkeypatch.setattr(pet_model, "node_edge_layout", layout)
        found.append(potential(structure))
    assert padding[0] == 0.0
    assert padding[2] > 0.05
    for other in found[1:]:
        assert torch.allclose(other.energies, found[0].energies, rtol=0, atol=tolerance)
        assert other.forces is not None
        assert found[0].forces is not None
        assert torch.allclose(other.forces, found[0].forces, rtol=0, atol=tolerance)


def test_padding_takes_part_if_it_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control of the test above: padding of weight 1e-3 would be seen."""
    potential = Potential(random_pet(6))
    monkeypatch.setattr(
        pet_model,
        "node_edge_layout",
        lambda e, n, bucket_cost: node_edge_layout(e, n, max_padding=1.0),
    )
    hidden = potential(dense_random()).energy
    monkeypatch.setattr(tokens, "_HIDDEN", -7.0)
    shown = potential(dense_random()).energy
    assert (hidden - shown).abs().item() > 1e-6


# --- layers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("encoding", ["cartesian", "radial"])
def test_folded_embedding_is_the_concatenation(first: bool, encoding: str) -> None:
    model = random_pet(7, input_encoding=encoding)
    layer = model.gnn_layers[0 if first else 1]
    g = torch.Generator().manual_seed(8)
    n, width = 11, 4 if encoding == "cartesian" else 15
    geometry = torch.randn(n, width, dtype=torch.float64, generator=g)
    species = torch.randint(3, (n,), generator=g)
    message = torch.randn(n, 16, dtype=torch.float64, generator=g)
    if first:
        literal = torch.cat([layer.edge_embedder(geometry), model.edge_embedder(species)], dim=1)
        found = layer.compressed(layer.embed(geometry, species, model.edge_embedder.weight))
    else:
        literal = torch.cat(
            [layer.edge_embedder(geometry), layer.neighbor_embedder(species), message], dim=1
        )
        found = layer.compressed(layer.embed(geometry, species, message))
    assert torch.allclose(found, layer.compress(literal), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rms_norm_is_that_of_torch(dtype: torch.dtype) -> None:
    norm = RMSNorm(6).to(dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(9))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(10)).to(dtype)
    for scale in (1.0, 1e-5):
        expected = functional.rms_norm(scale * x, (6,), norm.weight)
        assert torch.allclose(norm(scale * x), expected, rtol=1e-5)


def test_equal_widths_of_node_and_edge_work() -> None:
    """As published, the node token then has neither residual nor MLP of its own."""
    model = random_pet(11, d_node=16)
    assert not any("center" in name for name, _ in model.named_parameters())
    forces_match_energy(Potential(model), molecule())


@pytest.mark.parametrize("layers", [1, 3])
def test_depth(layers: int) -> None:
    model = random_pet(12, num_gnn_layers=layers, num_attention_layers=1)
    forces_match_energy(Potential(model), left_handed_cell())


@pytest.mark.parametrize("encoding", ["cartesian", "radial"])
def test_reach_is_one_cutoff_per_layer_and_one_more(encoding: str) -> None:
    """Two layers on a chain: atom 0 feels three atoms, for its edges read what the reverse ones
    know after the last layer; it feels nothing of the fourth.
    """
    model = random_pet(13, input_encoding=encoding, cutoff=3.0)
    chain = system([[0.0, 0, 2.5 * k] for k in range(5)], [1, 8, 14, 8, 1])
    before = Potential(model)(chain).energies
    changes = []
    for k in range(1, 5):
        positions = chain.positions.clone()
        positions[k, 0] += 0.2
        after = Potential(model)(replace(chain, positions=positions)).energies
        changes.append((after - before)[0].abs().item())
    assert changes[0] > 1e-6
    assert changes[1] > changes[2] > 1e-9
    assert changes[3] == 0.0


@pytest.mark.parametrize(("encoding", "degree"), [("cartesian", 0), ("radial", 0), ("distance", 3)])
def test_second_derivatives(encoding: str, degree: int) -> None:
    options: dict[str, object] = {"d_pet": 4, "d_node": 6, "d_head": 3, "d_feedforward": 4}
    options |= {"num_heads": 2, "num_radial": 4, "angular_degree": degree}
    model = random_pet(14, input_encoding=encoding, **options)
    model.requires_grad_(False)
    crystal = molecule()
    edges = neighbor_list(crystal, model.cutoff)
    vectors = torch.stack([
        crystal.positions[j] - crystal.positions[i] for i, j in edges.edge_index.T.tolist()
    ]).requires_grad_()  # fmt: skip

    def energies(v: torch.Tensor) -> torch.Tensor:
        return model.energies(crystal, edges, v)

    assert torch.autograd.gradcheck(energies, (vectors,), atol=1e-7)
    ones = torch.ones(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(energies, (vectors,), (ones,), atol=1e-6)


def test_twins_are_equal_and_seeds_differ() -> None:
    a, b, c = (Potential(random_pet(s))(water_box()).energy.item() for s in (0, 0, 1))
    assert a == b != c
