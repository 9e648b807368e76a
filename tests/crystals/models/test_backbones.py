"""Backbones against the published implementations, and against what must not matter."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from crystals.models.crystals import SMALL, STRUCTURES, equivalents, rutile, small_model

from pet_calc.crystals.io.cgcnn import import_cgcnn
from pet_calc.crystals.io.graphs import graph_of
from pet_calc.crystals.io.property_weights import save_property_model
from pet_calc.crystals.models import CrystalGraph, GraphConfig, Target
from pet_calc.crystals.models.backbone import WeightedBatchNorm
from pet_calc.crystals.models.crysformer import line_graph
from pet_calc.crystals.models.pet import reverse_edges
from pet_calc.crystals.properties.predictor import PropertyPredictor

BACKBONES = sorted(SMALL)


def reference_folder() -> Path:
    """Where the golden outputs of the public implementations are, beside a checkout."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "reference" / "crystal"
        if folder.is_dir():
            return folder
    pytest.skip("the golden outputs of the public CGCNN are not beside this checkout")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_description_of_a_crystal_does_not_matter(backbone, name):
    model, atoms = small_model(backbone), STRUCTURES[name]
    expected = float(model(graph_of(atoms, model.encoder.graph_config)))
    for change, same in equivalents(atoms).items():
        found = float(model(graph_of(same, model.encoder.graph_config)))
        assert found == pytest.approx(expected, rel=1e-5), change
    # what must not matter is told apart from what must
    strained = atoms.copy()
    strained.set_cell(atoms.cell * 1.02, scale_atoms=True)
    other = float(model(graph_of(strained, model.encoder.graph_config)))
    assert abs(other - expected) > 1e-5 * abs(expected)


def test_lists_cut_as_published_depend_on_the_order_of_atoms():
    # the positive control: 4 + 8 neighbors of two elements at one distance, of which 6 are kept
    layers = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[2.8, 2.8, 2.8 * 2**0.5])
    layers.pbc = True
    same = (layers, layers[::-1], layers.repeat((2, 1, 1)), layers.repeat((1, 2, 2))[::-1])

    def values(published):
        model = small_model("cgcnn", published=published, neighbors=6)
        config = model.encoder.graph_config
        return {round(float(model(graph_of(a, config))), 9) for a in same}

    assert len(values(published=False)) == 1
    assert len(values(published=True)) > 1


@pytest.mark.parametrize("backbone", ["cgcnn", "matformer"])
def test_a_merged_graph_gives_the_same(backbone):
    model, atoms = small_model(backbone), rutile().repeat((2, 1, 1))
    whole = graph_of(atoms, model.encoder.graph_config)
    merged = graph_of(atoms, model.encoder.graph_config, merge=True)
    assert len(merged.numbers) == 2
    assert len(merged.distances) < len(whole.distances) / 10
    assert float(model(merged)) == pytest.approx(float(model(whole)), rel=1e-9)
    # in training too, where the statistics count each atom and edge
    model.train()
    pair = [graph_of(STRUCTURES["NaCl"], model.encoder.graph_config)]
    a = model(CrystalGraph.concatenate([whole, *pair]))
    b = model(CrystalGraph.concatenate([merged, *pair]))
    assert torch.allclose(a, b, rtol=1e-8)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_is_its_crystals(backbone):
    model = small_model(backbone)
    graphs = [graph_of(a, model.encoder.graph_config) for a in STRUCTURES.values()]
    together = model(CrystalGraph.concatenate(graphs))
    apart = torch.cat([model(g) for g in graphs])
    assert torch.allclose(together, apart, rtol=1e-9)
    encoding = model.encode(CrystalGraph.concatenate(graphs))
    n = sum(len(a) for a in STRUCTURES.values())
    assert encoding.atoms.shape == (n, model.backbone.width)
    assert torch.allclose(encoding.pooled[0], encoding.atoms[:2].mean(0))


def test_matformer_has_the_published_edges_and_size():
    from pet_calc.crystals.models.matformer import Matformer, MatformerConfig

    model = Matformer(MatformerConfig(published=True), 92)
    golden = {"NaCl": (72, 60), "Si": (68, 60)}
    for name, (edges, own) in golden.items():
        g = graph_of(STRUCTURES[name], model.graph_config)
        center, neighbor = g.edge_index
        assert float(g.edge_multiplicity.sum()) == edges
        assert float(g.edge_multiplicity[center == neighbor].sum()) == own
    assert sum(p.numel() for p in model.layers[0].parameters()) == 544_256
    # the readout has 128 * 128 + 128 + 128 + 1, the linear map of 92 features one bias
    total = sum(p.numel() for p in model.parameters()) + 16_641 + 128
    assert total == 2_782_849
    assert model.gamma == 15.875


def test_images_are_counted_once():
    ours = graph_of(STRUCTURES["NaCl"], small_model("matformer").encoder.graph_config)
    # per atom 6 + 12 neighbors, and three diagonals of faces in both directions
    assert float(ours.edge_multiplicity.sum()) == 2 * (6 + 12 + 6)


@pytest.mark.filterwarnings("ignore:crystal system")  # of ASE's reader of CIF files
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("formation-energy-per-atom", "linear"),
        ("band-gap", "linear"),
        ("bulk-moduli", "linear"),
        ("semi-metal-classification", "class"),
    ],
)
def test_published_cgcnn_gives_the_golden_predictions(file, kind, tmp_path):
    folder = reference_folder()
    golden = json.loads((folder / "cgcnn.json").read_text())[file]
    imported = import_cgcnn(
        folder / "cgcnn" / f"{file}.pth.tar",
        folder / "cgcnn" / "atom_init.json",
        Target(file, kind=kind),
    ).double()
    (model,) = imported.networks
    save_property_model(tmp_path, imported, {})
    assert np.isfinite(PropertyPredictor(file, tmp_path)(STRUCTURES["NaCl"]).value)
    compared = 0  # the golden outputs are of float32
    for path in sorted((folder / "cgcnn").glob("*.cif")):
        atoms = read(path)
        features = model.last_features(graph_of(atoms, model.encoder.graph_config))
        found = float(model.read_out(features))
        if kind == "class":
            found = 1 / (1 + math.exp(-found))
        assert found == pytest.approx(golden["pred"][path.stem], abs=1e-4), path.stem
        compared += 1
    assert compared == 7
    # the counted tensors hold the linear map of 92 features once per element instead
    embedding = sum(p.numel() for p in model.backbone.embedding.parameters())
    total = sum(p.numel() for p in model.parameters()) - embedding + 92 * 64 + 64
    # of two published logits one is left
    assert total == golden["params"] - (33 if kind == "class" else 0)


def test_angles_are_those_of_bonds_at_one_atom():
    pairs, cosines = line_graph(graph_of(STRUCTURES["Si"], GraphConfig(4, merge=False)))
    assert pairs.shape == (2, 2 * 4 * 3)
    assert torch.allclose(cosines, torch.full_like(cosines, -1 / 3), atol=1e-9)


def test_weighted_statistics_are_those_of_repeated_samples():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, generator=rng)
    weight = torch.tensor([1.0, 2.0, 1.0, 4.0, 3.0], dtype=torch.float64)
    ours, theirs = WeightedBatchNorm(3).double(), torch.nn.BatchNorm1d(3).double()
    rows = torch.repeat_interleave(torch.arange(5), weight.long())
    assert torch.allclose(ours(x, weight)[rows], theirs(x[rows]))
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_var, theirs.running_var)
    assert torch.allclose(ours.eval()(x)[rows], theirs.eval()(x[rows]))


def test_neighbors_are_those_of_brute_force():
    atoms = rutile()
    atoms.rattle(0.1, seed=1)
    g = graph_of(atoms, GraphConfig(7, keep_ties=False, merge=False))
    large = atoms.repeat((5, 5, 5))
    middle = 62 * len(atoms)
    for i in range(len(atoms)):
        d = np.linalg.norm(large.positions - large.positions[middle + i], axis=1)
        nearest = np.sort(d)[1:8]
        assert np.allclose(np.sort(g.distances[g.edge_index[0] == i].numpy()), nearest)


def test_edges_of_pet_know_their_reverse():
    graph = graph_of(STRUCTURES["TiO2"], small_model("pet").encoder.graph_config)
    reverse = reverse_edges(graph.edge_index, graph.vectors)
    assert torch.equal(graph.edge_index.flip(0)[:, reverse], graph.edge_index)
    assert torch.equal(graph.vectors[reverse], -graph.vectors)
    assert len(set(reverse.tolist())) == len(reverse)


def test_without_frames_or_angles_pet_sees_how_a_crystal_is_turned():
    atoms = rutile()
    turned = equivalents(atoms)["rotated"]
    difference = {}
    kinds = {
        "plain": {"angular_degree": 0},
        "frames": {"angular_degree": 0, "ecse": "layerwise"},
        "angles": {"angular_degree": 2},
    }
    for kind, options in kinds.items():
        model = small_model("pet", **options)
        a, b = (float(model(graph_of(x, model.encoder.graph_config))) for x in (atoms, turned))
        difference[kind] = abs(a - b) / abs(a)
    assert difference["frames"] < 1e-9
    assert difference["angles"] < 1e-9
    assert difference["plain"] > 1e-6
