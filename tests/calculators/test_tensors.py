"""Heads for vectors and tensors: a charge model with known answer, covariance, derivatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from calculators.small_potentials import liquid, rare_pet, small_pet
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from pet_calc.calculators.tensors import fit_tensor_head, tensor_property
from pet_calc.errors import CheckpointError, InvalidStructureError, OutputError
from pet_calc.geometry import edge_vectors
from pet_calc.io.models.tensor_heads import load_tensor_head, save_tensor_head
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models.ecse.representations import (
    from_cartesian,
    harmonics,
    irreducible,
    to_cartesian,
    wigner,
)
from pet_calc.models.ecse.tensors import TensorEnsemble, TensorHead, head_shapes
from pet_calc.models.pet import PET
from pet_calc.neighbors import neighbor_list as neighbors

TURN = Rotation.random(random_state=4).as_matrix()


def local_pet(d_head: int = 24) -> PET:
    return rare_pet(
        num_gnn_layers=1, featurizer_type="residual", input_encoding="radial", num_radial=8,
        d_pet=16, d_node=24, d_head=d_head, d_feedforward=24, num_heads=4,
    )  # fmt: skip


def charge_transfer(atoms: Atoms) -> np.ndarray:
    """Dipole in e Å: each O–H contact within 2 Å moves a charge that falls smoothly with r."""
    i, j, r, vector = neighbor_list("ijdD", atoms, 2.0)
    donor = (atoms.numbers[i] == 1) & (atoms.numbers[j] == 8)
    moved = 0.4 * np.cos(0.5 * np.pi * np.clip((r - 0.9) / 1.1, 0.0, 1.0)) ** 4
    # +q stays on H, -q goes to O
    return -(moved * donor) @ vector


def molecules(n: int, seed: int) -> list[Atoms]:
    generator = np.random.default_rng(seed)
    found = []
    for k in range(n):
        atoms = molecule(("H2O", "H2O2")[k % 2])
        atoms.positions += 0.08 * generator.standard_normal(atoms.positions.shape)
        atoms.positions = atoms.positions @ np.linalg.qr(generator.standard_normal((3, 3)))[0]
        found.append(atoms)
    return found


def relative_error(model: PET, head: TensorHead, structures: list[Atoms]) -> float:
    truth = np.array([charge_transfer(a) for a in structures])
    found = np.array([tensor_property(model, head, a).total for a in structures])
    return float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)))


def test_a_fitted_dipole_is_that_of_the_charge_model() -> None:
    model = local_pet()
    train, test = molecules(120, 0), molecules(16, 1)
    targets = [charge_transfer(a) for a in train]
    head = fit_tensor_head(model, train, targets, quantity="dipole", unit="e Å")
    error = relative_error(model, head, test)
    assert error < 0.05
    # the strength that cross-validation chose is no worse than others, by much
    for ridge in (1e-10, 1e-6, 1e-2):
        other = fit_tensor_head(model, train, targets, ridge=ridge)
        assert error < 1.3 * relative_error(model, other, test)
    assert error < 0.5 * relative_error(model, other, test)
    # positive controls: a shuffled set teaches nothing, and a constant is far off
    wrong = fit_tensor_head(model, train, targets[2:] + targets[:2], ridge=1e-8)
    assert relative_error(model, wrong, test) > 0.5
    # nor do atomic polar tensors of the fit fall far from those of the charge model
    squares, gaps = 0.0, 0.0
    for atoms in test[:6]:
        found = tensor_property(model, head, atoms, derivative=True).derivative
        assert found is not None
        truth = finite_differences(atoms, charge_transfer)
        squares += float(np.sum(truth**2))
        gaps += float(np.sum((found - truth) ** 2))
    assert (gaps / squares) ** 0.5 < 0.3


def test_edges_carry_a_dipole_where_features_do_not_depend_on_the_view() -> None:
    """As of potentials that were trained on turned structures; here they are exactly invariant."""
    model = rare_pet(
        num_gnn_layers=1, input_encoding="radial", num_radial=8, d_pet=16, d_node=24, d_head=24,
        d_feedforward=24, num_heads=4, ecse="layerwise",
    )  # fmt: skip
    train, test = molecules(120, 0), molecules(16, 1)
    targets = [charge_transfer(a) for a in train]
    head = fit_tensor_head(model, train, targets)
    assert relative_error(model, head, test) < 0.05
    # all of it is from edges
    assert float(head.weight.abs().max()) < 1e-12 < float(head.edge_weight.abs().max())
    without = TensorHead(head.irreps, head.weight, torch.zeros_like(head.edge_weight))
    assert relative_error(model, without, test) > 0.99


def test_harmonics_turn_by_their_representation() -> None:
    matrix = torch.from_numpy(TURN)
    unit = torch.nn.functional.normalize(
        torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=1
    )
    for degree in range(1, 6):
        found = harmonics(degree, unit)
        assert (found.norm(dim=1) - 1.0).abs().max() < 1e-13
        turned = harmonics(degree, unit @ matrix.T)
        assert (turned - found @ wigner(degree, matrix).T).abs().max() < 1e-13
        # those of two directions are as orthogonal as Legendre's polynomial says
        cosine = unit @ unit.T
        legendre = torch.from_numpy(eval_legendre(degree, cosine.numpy()))
        assert (found @ found.T - legendre).abs().max() < 1e-12


def test_a_dipole_of_liquids() -> None:
    model = local_pet(12)
    train = [*molecules(60, 2), *(liquid(8, seed=k, length=6.2) for k in range(4))]
    head = fit_tensor_head(model, train, [charge_transfer(a) for a in train], ridge=1e-4)
    assert relative_error(model, head, [liquid(8, seed=9, length=6.2)]) < 0.1


def finite_differences(atoms: Atoms, function, h: float = 1e-5) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(n_atoms, 3, ...)"""
    rows = []
    for k in range(3 * len(atoms)):
        pair = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.reshape(-1)[k] += sign * h
            pair.append(function(moved))
        rows.append((pair[0] - pair[1]) / (2 * h))
    return np.array(rows).reshape(len(atoms), 3, *rows[0].shape)


def random_head(model: PET, irreps: str, seed: int = 0) -> TensorHead:
    generator = torch.Generator().manual_seed(seed)
    weights = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in head_shapes(model, irreps)
    )
    return TensorHead(irreps, *weights)


STRUCTURES = {
    "bent": lambda: molecule("H2O"),
    "chiral": lambda: molecules(2, 3)[1],
    # one bond only, and a molecule between two kinds of views
    "dimer": lambda: Atoms("OH", [[0, 0, 0], [0.3, 0.5, 0.8]]),
    "linear": lambda: Atoms("OHH", [[0, 0, 0], [0, 0, 1.0], [0, 0, -1.1]]),
    "nearly linear": lambda: Atoms("OHH", [[0, 0, 0], [0, 0, 1.0], [0.3, 0, -1.1]]),
    "atom": lambda: Atoms("O"),
    "far": lambda: Atoms("OH", [[0, 0, 0], [0, 1.2, 2.5]]),
    "liquid": lambda: liquid(1, length=4.0),
}
MODELS = {
    "local": local_pet,
    "structure": small_pet,
    # reaches further than its network sees, for the repulsion, and drops edges
    "adaptive": lambda: rare_pet(
        elements=(1, 8, 55),
        zbl=True,
        num_neighbors_adaptive=3.0,
        input_encoding="radial",
        num_radial=8,
    ),
    "layerwise": lambda: rare_pet(ecse="layerwise", input_encoding="radial", num_radial=8),
}


@pytest.mark.parametrize("name", sorted(STRUCTURES))
@pytest.mark.parametrize("mode", sorted(MODELS))
def test_vectors_and_tensors_turn_with_the_structure(mode: str, name: str) -> None:
    model = MODELS[mode]()
    atoms = STRUCTURES[name]()
    # of a pseudovector the edges know nothing, and invariant features no more
    parts = "0e + 2e" if mode == "layerwise" else "0e + 1e + 2e"
    vector, tensor = random_head(model, "1o"), random_head(model, parts)
    scalar = random_head(model, "0e + 2e")
    first = tensor_property(model, vector, atoms, derivative=True)
    assert first.derivative is not None
    # the whole may be moved at no change
    assert np.abs(first.derivative.sum(0)).max() < 1e-10
    for sign in (1.0, -1.0):
        matrix = sign * TURN
        turned = atoms.copy()
        turned.set_cell(np.array(atoms.cell) @ matrix)
        turned.positions = atoms.positions @ matrix
        second = tensor_property(model, vector, turned, derivative=True)
        assert np.abs(second.total - first.total @ matrix).max() < 1e-10
        assert np.abs(second.atomic - first.atomic @ matrix).max() < 1e-10
        assert second.derivative is not None
        expected = np.einsum("iab,ac,bd->icd", first.derivative, matrix, matrix)
        assert np.abs(second.derivative - expected).max() < 1e-9
        for head in (tensor, scalar):
            whole = tensor_property(model, head, atoms).total
            found = tensor_property(model, head, turned).total
            assert np.abs(found - matrix.T @ whole @ matrix).max() < 1e-10
    if name == "dimer":
        across = np.cross(first.total, atoms.positions[1])
        assert np.abs(across).max() < 1e-10 < np.abs(first.total).max()
    if name == "atom":
        assert np.abs(first.total).max() < 1e-12
        alone = tensor_property(model, scalar, atoms).total
        assert np.abs(alone - alone[0, 0] * np.eye(3)).max() < 1e-10 < abs(alone[0, 0])


@pytest.mark.parametrize("mode", ["local", "layerwise"])
@pytest.mark.parametrize("name", ["chiral", "nearly linear", "dimer"])
def test_derivatives(name: str, mode: str) -> None:
    model = MODELS[mode]()
    atoms = STRUCTURES[name]()
    for irreps in ("1o", "0e + 2e"):
        head = random_head(model, irreps)
        found = tensor_property(model, head, atoms, derivative=True).derivative
        assert found is not None
        truth = finite_differences(
            atoms,
            lambda moved, head=head: tensor_property(model, head, moved).total,  # type: ignore[misc]
        )
        assert np.abs(truth).max() > 1e-2
        assert np.abs(found - truth).max() < 1e-6 * np.abs(truth).max()


def test_edges_that_the_network_sees_are_those_of_the_harmonics() -> None:
    model = MODELS["adaptive"]()
    system = system_from_atoms(liquid(1, length=4.0))
    edges = neighbors(system, model.cutoff)
    vectors = edge_vectors(system, edges)
    seen = model.environment(edges, vectors, system.n_atoms)
    assert seen.kept is not None
    assert torch.equal(vectors[seen.kept], seen.vectors)
    # both the radius of the network and the adaptive one leave edges out
    within = vectors.norm(dim=1) <= model.config.cutoff
    assert int(seen.kept.sum()) < int(within.sum()) < len(vectors)
    assert model.environment(edges, vectors, system.n_atoms).edges.edge_index.equal(
        edges.edge_index[:, seen.kept]
    )


def test_crystals_with_inversion_have_no_dipole() -> None:
    model = rare_pet(elements=(8, 14))
    salt = bulk("SiO", "rocksalt", a=4.2)
    found = tensor_property(model, random_head(model, "1o"), salt, derivative=True)
    assert np.abs(found.total).max() < 1e-10
    # cubic sites: Born charges are isotropic, and opposite for the two
    assert found.derivative is not None
    charge = found.derivative[:, 0, 0]
    assert np.abs(found.derivative - charge[:, None, None] * np.eye(3)).max() < 1e-9
    assert abs(charge.sum()) < 1e-10 < abs(charge[0])


def test_representations_of_any_degree() -> None:
    first, second = (torch.from_numpy(r.as_matrix()) for r in Rotation.random(2, random_state=0))
    for degree in range(6):
        product = wigner(degree, first) @ wigner(degree, second)
        assert (wigner(degree, first @ second) - product).abs().max() < 1e-13
        assert (product @ product.T - torch.eye(2 * degree + 1)).abs().max() < 1e-13
    # and totals of any degree and parity turn by them
    model = local_pet()
    atoms = molecules(2, 3)[1]
    head = random_head(model, "1e + 2x3o + 4e")
    from pet_calc.calculators.tensors import ensemble_of
    from pet_calc.models.ecse.representations import turned_back
    from pet_calc.models.ecse.tensors import evaluate_tensor

    totals = []
    for matrix in (np.eye(3), -TURN):
        turned = atoms.copy()
        turned.positions = atoms.positions @ matrix.T
        ensemble, edges = ensemble_of(model, turned, "auto")
        totals.append(evaluate_tensor(ensemble, head, edges).total)
    expected = turned_back(totals[0], torch.from_numpy(-TURN)[None], head.parts)
    assert (totals[1] - expected).abs().max() < 1e-10 < totals[0].abs().min()


def test_cartesian_forms() -> None:
    matrix = torch.randn(5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    again = to_cartesian(from_cartesian(matrix, "0e + 1e + 2e"), "0e + 1e + 2e")
    assert (again - matrix).abs().max() < 1e-13
    symmetric = to_cartesian(from_cartesian(matrix, "0e + 2e"), "0e + 2e")
    assert (symmetric - 0.5 * (matrix + matrix.transpose(1, 2))).abs().max() < 1e-13


def test_a_head_is_saved_and_loaded(tmp_path: Path) -> None:
    model = local_pet()
    train = molecules(20, 0)
    targets = [charge_transfer(a) for a in train]
    head = fit_tensor_head(model, train, targets, quantity="dipole", unit="e Å")
    path = tmp_path / "dipole.safetensors"
    save_tensor_head(path, head, model)
    again = load_tensor_head(path, model)
    assert (again.irreps, again.quantity, again.unit) == ("1o", "dipole", "e Å")
    assert torch.equal(again.weight, head.weight)
    assert torch.equal(again.edge_weight, head.edge_weight)
    with pytest.raises(OutputError, match="never overwritten"):
        save_tensor_head(path, head, model)
    other = local_pet()
    with torch.no_grad():
        other.edge_embedder.weight += 0.1
    with pytest.raises(CheckpointError, match="fitted to the model"):
        load_tensor_head(path, other)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="save_tensor_head"):
        load_tensor_head(path, model)


def test_refusals() -> None:
    model, atoms = local_pet(), molecule("H2O")
    layerwise = rare_pet(ecse="layerwise")
    for irreps in ("1e", "0o", "0e + 1e + 2e"):
        with pytest.raises(ValueError, match="exactly symmetric by itself are invariant"):
            TensorEnsemble(layerwise, system_from_atoms(atoms)).require_readable(
                irreducible(irreps)
            )
    with pytest.raises(ValueError, match="exactly symmetric by itself are invariant"):
        tensor_property(layerwise, random_head(layerwise, "0e + 1e + 2e"), atoms)
    with pytest.raises(ValueError, match="shape"):
        fit_tensor_head(model, [atoms], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="positive"):
        fit_tensor_head(model, [atoms], np.zeros((1, 3)), ridge=0.0)
    with pytest.raises(ValueError, match="e3nn's notation"):
        random_head(model, "vector")
    with pytest.raises(ValueError, match="Cartesian form"):
        tensor_property(model, random_head(model, "3o"), atoms)
    with pytest.raises(ValueError, match="another model"):
        tensor_property(model, random_head(small_pet(), "1o"), atoms)
    ion = molecule("H2O")
    ion.info["charge"] = 1
    with pytest.raises(InvalidStructureError, match="does not support charged systems"):
        tensor_property(model, random_head(model, "1o"), ion)
