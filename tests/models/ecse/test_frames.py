"""Frames: the published numbers, what their weights guarantee, and the smooth primitives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.structures import STRUCTURES, system
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.io.foreign.calc_folder import load_calc_folder
from pet_calc.kernels.ecse_frames.reference import neighbor_pairs
from pet_calc.kernels.ecse_frames.switches import cutoff_step, onset, smooth_maximum, smooth_step
from pet_calc.models.derivatives import forces_from_gradient
from pet_calc.models.ecse import FrameConfig, FrameSet, local_frames
from pet_calc.models.ecse.ensemble import ranges, replicas
from pet_calc.models.interface import EnergyModel
from pet_calc.neighbors import neighbor_list

PUBLISHED = FrameConfig()
CUTOFF = 4.5


def pooled(structure: System, edges: Edges, vectors: Tensor) -> FrameSet:
    """Frames of all atoms together with the outer cutoff at the model's, as published."""
    group = torch.zeros(structure.n_atoms, dtype=torch.int64)
    center = edges.edge_index[0]
    return local_frames(
        center, vectors, structure.n_atoms, CUTOFF, PUBLISHED, group=group, n_groups=1
    )


@pytest.mark.parametrize("name", ["ethanol", "si_prim", "co2_collinear"])
def test_published_frames_weights_energies_and_forces(reference_dir: Path, name: str) -> None:
    folder = reference_dir / "pet_original"
    main = load_calc_folder(folder / "pet_main", torch.float64)
    auxiliary = load_calc_folder(folder / "pet_aux", torch.float64)
    for model in (main, auxiliary):
        model.reference_energies.zero_()  # the published numbers leave them out
        model.requires_grad_(False)
    with np.load(folder / "ecse.f64.results.npz") as golden:
        g = {k.split("/")[1]: golden[k] for k in golden.files if k.startswith(f"{name}/")}
    structure = system(g["positions"], g["numbers"], g["cell"], g["pbc"].tolist())
    edges = neighbor_list(structure, CUTOFF)
    vectors = edge_vectors(structure, edges).detach().requires_grad_()
    found = pooled(structure, edges, vectors)

    assert np.abs(found.inner_cutoffs.detach().numpy() - g["r_in"]).max() < 1e-10
    assert abs(found.frame_free.item() - g["waux"].item()) < 1e-10
    assert len(found.frames.weight) == len(g["weights"])
    energy = published_energy(main, auxiliary, structure, edges, vectors, found)
    assert abs(energy.item() - g["energy_no_self_contrib"].item()) < 1e-9
    (gradient,) = torch.autograd.grad(energy, vectors)
    forces = forces_from_gradient(gradient, edges, structure.n_atoms)
    assert np.abs(forces.numpy() - g["forces"]).max() < 1e-9
    for k, frame in enumerate(found.frames.matrix.detach().numpy()):
        gap = np.abs(g["frames"] - frame).max(axis=(1, 2))
        same = gap < 1e-10
        assert same.any()
        weight = found.frames.weight[k].item()
        assert np.abs(g["weights"][same] - weight).min() < 1e-10


def published_energy(
    main: EnergyModel, auxiliary: EnergyModel, structure: System, edges: Edges, vectors: Tensor,
    found: FrameSet,
) -> Tensor:  # fmt: skip
    """(Σ w E(A Q) + w_aux E_aux) / (Σ w + w_aux) over the frames of the whole structure."""
    frames = found.frames
    n = len(frames.weight)
    invariant = auxiliary.energies(structure, edges, vectors).sum()
    total = found.frame_free[0] * invariant
    norm = found.frame_free[0] + frames.weight.sum()
    if n:
        zero = torch.zeros(n, dtype=torch.int64)
        index = structure.system_index
        copies = replicas(edges, zero, ranges(index, 1), ranges(index[edges.edge_index[0]], 1))
        turned = torch.einsum("na,nab->nb", vectors[copies.edge], frames.matrix[copies.view])
        energies = main.energies(copies.system(structure), copies.edges, turned)
        per_copy = torch.zeros(n, dtype=torch.float64).index_add(0, copies.row_view, energies)
        total = total + (frames.weight * per_copy).sum()
    return total / norm


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_frames_are_right_handed_and_follow_their_neighbors(name: str) -> None:
    structure = STRUCTURES[name]()
    edges = neighbor_list(structure, CUTOFF)
    vectors = edge_vectors(structure, edges)
    center = edges.edge_index[0]
    frames = local_frames(center, vectors, structure.n_atoms, CUTOFF - 0.15, PUBLISHED).frames
    one = torch.eye(3, dtype=torch.float64).expand(len(frames.weight), 3, 3)
    assert torch.allclose(frames.matrix.transpose(1, 2) @ frames.matrix, one, atol=1e-12)
    assert torch.allclose(torch.linalg.det(frames.matrix), one[:, 0, 0], atol=1e-12)
    first, second = vectors[frames.first], vectors[frames.second]
    assert torch.equal(center[frames.first], frames.atom)
    assert torch.equal(center[frames.second], frames.atom)
    local = torch.einsum("na,nab->nb", first, frames.matrix)
    assert torch.allclose(local, local[:, :1] * torch.tensor([1.0, 0, 0]).double(), atol=1e-12)
    other = torch.einsum("na,nab->nb", second, frames.matrix)
    assert torch.allclose(other[:, 1], torch.zeros_like(other[:, 1]), atol=1e-12)
    # e1 × (e1 × u) points away from u
    assert bool((other[:, 2] < 0).all()), "the second neighbor lies on the side of -e3"
    assert bool((frames.weight > 0).all())


def test_pairs_are_those_of_a_double_loop() -> None:
    center = torch.tensor([0, 0, 0, 2, 3, 3, 5, 5, 5, 5])
    a, b = neighbor_pairs(center)
    expected = [(i, j) for i in range(10) for j in range(i + 1, 10) if center[i] == center[j]]
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == expected


def test_steps_are_flat_beyond_their_ends_and_meet_the_published_form() -> None:
    x = torch.linspace(-0.99, 0.99, 199, dtype=torch.float64)
    literal = 0.5 * torch.tanh(1 / (x + 1) + 1 / (x - 1)) + 0.5
    assert torch.allclose(smooth_step(x), literal, rtol=0, atol=1e-15)
    ends = torch.tensor([-5.0, -1.0, 1.0, 5.0], dtype=torch.float64, requires_grad=True)
    value = smooth_step(ends)
    assert value.tolist() == [1.0, 1.0, 0.0, 0.0]
    (slope,) = torch.autograd.grad(value.sum(), ends)
    assert slope.abs().max() == 0.0
    r = torch.tensor([2.0, 2.84, 3.0, 3.5], dtype=torch.float64)
    assert cutoff_step(r, 3.0, 0.15)[[0, 1, 2, 3]].tolist() == [1.0, 1.0, 0.0, 0.0]
    z = torch.tensor([0.2, 0.275, 0.35], dtype=torch.float64)
    assert torch.allclose(onset(z, 0.2, 0.15), torch.tensor([0.0, 0.5, 1.0]).double())


def test_smooth_maximum_lies_between_mean_and_maximum() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 7.0], dtype=torch.float64)
    segment = torch.tensor([0, 0, 0, 2])
    one = torch.ones_like(values)
    found = smooth_maximum(values, one, segment, 3, 1.0)
    assert 7 / 3 < found[0] < 4.0
    assert found[1:].tolist() == [0.0, 7.0]
    assert smooth_maximum(values, one, segment, 3, 50.0)[0] == pytest.approx(4.0)
    assert smooth_maximum(values, one, segment, 3, -50.0)[0] == pytest.approx(1.0)


def test_constants_are_read_by_name() -> None:
    assert FrameConfig.from_dict({"beta": 4.0}).beta == 4.0
    with pytest.raises(ValueError, match="unknown frame constant"):
        FrameConfig.from_dict({"betta": 4.0})
