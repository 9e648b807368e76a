"""Exact symmetry, smoothness through every event, and memory of the ensembles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.energy_model import forces_match_energy, permuted
from contracts.models import GENTLE, KinkAtCutoff, lennard_jones, random_pet
from contracts.structures import STRUCTURES, system
from scipy.spatial.transform import Rotation
from torch import Tensor

from pet_calc.geometry import System
from pet_calc.models import Results, evaluate
from pet_calc.models.ecse.ensemble import Ensemble, portions
from pet_calc.models.ecse.orientations import AXIAL, FRAME, ISOTROPIC, drawn
from pet_calc.models.ecse.quadrature import rotations
from pet_calc.neighbors import neighbor_list

Evaluate = Callable[[System], Results]


def ensemble(model, mode: str, **options) -> Evaluate:
    def run(structure: System) -> Results:
        wrapped = Ensemble(model, mode, **options)
        return evaluate(wrapped, structure, neighbor_list(structure, model.cutoff))

    return run


def plain(model) -> Evaluate:
    return lambda structure: evaluate(model, structure, neighbor_list(structure, model.cutoff))


def local_pet(dtype=torch.float64, **options):
    return random_pet(
        3, dtype, num_gnn_layers=1, featurizer_type="residual", input_encoding="radial", **options
    )


def layerwise_pet(dtype=torch.float64, **options):
    return random_pet(5, dtype, ecse="layerwise", input_encoding="radial", **options)


def carbon_dioxide() -> System:
    return system([[0, 0, 0], [1.16, 0, 0], [-1.17, 0, 0]], [14, 8, 8])


def dimer(r: float = 1.16) -> System:
    return system([[0, 0, 0], [r, 0, 0]], [14, 8])


CASES = STRUCTURES | {"co2": carbon_dioxide, "dimer": dimer, "far": lambda: dimer(3.52)}
SMALL = sorted(set(CASES) - {"water-24", "dense-random-12", "slab-9"})


def symmetric(run: Evaluate, structure: System, energy: float, force: float) -> None:
    """Assert that a rotated, inverted and permuted copy has the same energy and turned forces."""
    generator = np.random.default_rng(0)
    first = run(structure)
    for sign in (1.0, -1.0):
        matrix = sign * torch.from_numpy(Rotation.random(random_state=1).as_matrix())
        order = torch.from_numpy(generator.permutation(structure.n_atoms))
        turned = replace(
            structure, positions=structure.positions @ matrix, cell=structure.cell @ matrix
        )
        second = run(permuted(turned, order))
        gap = (first.energy - second.energy).abs().item() / structure.n_atoms
        assert gap <= energy, f"energy differs by {gap:.1e} eV/atom"
        assert first.forces is not None
        assert second.forces is not None
        gap = ((first.forces @ matrix)[order] - second.forces).abs().max().item()
        assert gap <= force, f"forces differ by {gap:.1e} eV/Å"


@pytest.mark.parametrize("name", sorted(CASES))
def test_layerwise_is_exactly_symmetric(name: str) -> None:
    symmetric(plain(layerwise_pet()), CASES[name](), 1e-10, 1e-9)


@pytest.mark.parametrize("name", sorted(CASES))
def test_local_is_exactly_symmetric(name: str) -> None:
    symmetric(ensemble(local_pet(), "local"), CASES[name](), 1e-10, 1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_structure_is_exactly_symmetric(name: str) -> None:
    symmetric(ensemble(random_pet(4), "structure"), CASES[name](), 1e-10, 1e-9)


@pytest.mark.parametrize("name", sorted(CASES))
def test_single_precision_keeps_the_symmetry_to_its_rounding(name: str) -> None:
    """1e-5 of the energy of the network per atom and of the largest force."""
    model, structure = layerwise_pet(torch.float32), CASES[name]()
    found = plain(model)(structure)
    assert found.forces is not None
    model_scale = (
        found.energies - model.reference_energies[model.species(structure.numbers)]
    ).abs()
    force = max(float(found.forces.abs().max()), 0.1)
    symmetric(plain(model), structure, 1e-5 * max(float(model_scale.max()), 0.1), 1e-5 * force)


def test_the_plain_model_and_the_quadrature_fail() -> None:
    """Positive control."""
    for run in (plain(random_pet(4)), ensemble(random_pet(4), "quadrature", order=3)):
        with pytest.raises(AssertionError, match="energy differs"):
            symmetric(run, CASES["molecule-4"](), 1e-10, 1e-9)


def test_proper_rotations_alone_leave_the_inversion_broken() -> None:
    run = ensemble(local_pet(), "local", mirrored=False)
    chiral = CASES["molecule-4"]()
    with pytest.raises(AssertionError, match="energy differs"):
        symmetric(run, chiral, 1e-10, 1e-9)
    first, matrix = run(chiral), torch.from_numpy(Rotation.random(random_state=1).as_matrix())
    second = run(replace(chiral, positions=chiral.positions @ matrix))
    assert abs((first.energy - second.energy).item()) < 1e-10


@pytest.mark.parametrize("mode", ["local", "structure"])
@pytest.mark.parametrize("name", ["molecule-4", "co2", "silicon-2-strained"])
def test_forces_and_stress_are_derivatives(mode: str, name: str) -> None:
    model = local_pet() if mode == "local" else random_pet(4)
    structure = CASES[name]()
    run = ensemble(model, mode, frames=GENTLE)
    forces = run(structure).forces
    assert forces is not None
    direction = torch.randn(structure.positions.shape, generator=torch.Generator().manual_seed(0))
    direction = direction.double()
    errors = []
    for h in (4e-4, 2e-4, 1e-4, 5e-5):
        energies = [
            run(replace(structure, positions=structure.positions + s * h * direction)).energy
            for s in (1, -1)
        ]
        slope = (energies[0] - energies[1]).item() / (2 * h)
        errors.append(abs(slope + (direction * forces).sum().item()))
    assert errors[-1] < 1e-6
    assert errors[-1] < 0.5 * errors[0] or errors[0] < 1e-9


def test_layerwise_forces_are_derivatives() -> None:
    from contracts.energy_model import Potential

    forces_match_energy(Potential(layerwise_pet(frames=GENTLE)), CASES["molecule-4"]())


def path_jumps(
    run: Evaluate, path: Callable[[float], System], at: float, width: float
) -> tuple[float, float]:
    """Largest jump of energy, in eV, and of forces, in eV/Å, along `path` near `at`.

    A jump is what second differences do not make smaller as the step shrinks: around every point
    of a fine grid the three values at a tiny distance must lie on a line.
    """
    grid = np.linspace(at - width, at + width, 21)

    def second_differences(h: float) -> tuple[Tensor, Tensor]:
        batch = System.concatenate([path(x + s * h) for x in grid for s in (-1, 0, 1)])
        results = run(batch)
        assert results.forces is not None
        e = results.energy.reshape(-1, 3)
        f = results.forces.reshape(len(grid), 3, -1)
        return e[:, 0] - 2 * e[:, 1] + e[:, 2], f[:, 0] - 2 * f[:, 1] + f[:, 2]

    energies, _ = second_differences(1e-7)
    # forces bend more by orders of magnitude
    _, forces = second_differences(1e-9)
    return float(energies.abs().max()), float(forces.abs().max())


def bent(angle: float) -> System:
    """A triatomic molecule that is linear at 0."""
    return system(
        [[0, 0, 0], [1.16, 0, 0], [-1.2 * np.cos(angle), 1.2 * np.sin(angle), 0]], [14, 8, 8]
    )


def leaving(r: float) -> System:
    """A bent molecule whose third atom is at the distance r from the others."""
    return system([[0, 0, 0], [0.96, 0, 0], [-0.3, r, 0.1]], [8, 1, 1])


def entering(x: float) -> System:
    """A bent molecule that a fourth atom nears, at the distance x from the first."""
    return system(
        [[0, 0, 0], [0.96, 0, 0], [-0.3, 0.9, 0.1], [0.4 * x, 0, x * 0.84**0.5]], [8, 1, 1, 14]
    )


EVENTS = {
    "outer cutoff of frames": (entering, 3.45, 0.05),
    "cutoff of the model": (entering, 3.6, 0.05),
    "collinear": (bent, 0.0, 0.02),
    "frame born": (bent, float(np.arcsin(np.sqrt(0.05))), 0.05),
    "no second neighbor": (leaving, 3.3, 0.35),
    "no neighbor": (dimer, 3.4, 0.3),
}


@pytest.mark.parametrize("event", sorted(EVENTS))
@pytest.mark.parametrize("mode", ["layerwise", "local", "structure"])
def test_energy_and_forces_have_no_jump(mode: str, event: str) -> None:
    path, at, width = EVENTS[event]
    run = {
        "layerwise": lambda: plain(layerwise_pet()),
        "local": lambda: ensemble(local_pet(), "local"),
        "structure": lambda: ensemble(random_pet(4), "structure"),
    }[mode]()
    energy, force = path_jumps(run, path, at, width)
    assert energy < 1e-10
    assert force < 1e-10


def test_a_jump_would_be_seen() -> None:
    """Positive control: frames up to the very cutoff of the model, as published."""
    model = local_pet()
    from pet_calc.models.ecse import ensemble as module

    class Published(Ensemble):
        def views(self, system, edges, vectors):
            return module.orientations(
                edges.edge_index[0], vectors.double(), system.n_atoms,
                self.cutoff + self.frames.taper, self.frames,
            )  # fmt: skip

    def run(structure: System) -> Results:
        wrapped = Published(model, "local")
        return evaluate(wrapped, structure, neighbor_list(structure, model.cutoff))

    # the middle of a grid of 21 points is the place where the third atom leaves the cutoff
    gaps = [
        path_jumps(run, leaving, np.sqrt(model.cutoff**2 - across), 0.01)
        for across in (0.09 + 0.01, 1.26**2 + 0.01)
    ]
    assert max(energy for energy, _ in gaps) > 1e-6
    assert max(force for _, force in gaps) > 1e-6


def test_a_jump_of_forces_would_be_seen() -> None:
    """Positive control: a potential that reaches zero at its cutoff with a slope."""
    model = KinkAtCutoff()
    energy, force = path_jumps(plain(model), dimer, model.cutoff, 0.01)
    assert energy < 1e-6
    assert force > 1e-6


def test_a_linear_molecule_is_seen_as_it_is() -> None:
    """The axial views of a collinear environment are exact rotations of it."""
    model = local_pet()
    for structure in (carbon_dioxide(), dimer()):
        found = ensemble(model, "local")(structure).energies
        expected = plain(model)(structure).energies
        turned = replace(structure, positions=-structure.positions)
        back = plain(model)(turned).energies
        for k, energy in enumerate(found):
            between = sorted([expected[k].item(), back[k].item()])
            assert between[0] - 1e-9 <= energy <= between[1] + 1e-9


def test_views_say_which_limit_they_are() -> None:
    model = local_pet()

    def kinds(structure: System) -> set[int]:
        edges = neighbor_list(structure, model.cutoff)
        from pet_calc.geometry import edge_vectors

        views = Ensemble(model, "local").views(structure, edges, edge_vectors(structure, edges))
        totals = torch.zeros(structure.n_atoms).double().index_add(0, views.group, views.weight)
        assert torch.allclose(totals, torch.ones_like(totals), atol=1e-14)
        return set(views.kind.tolist())

    assert kinds(CASES["water-24"]()) == {FRAME}
    assert kinds(carbon_dioxide()) == {AXIAL}
    assert kinds(CASES["one-atom"]()) == {ISOTROPIC}


def test_portions_change_nothing() -> None:
    structure, model = CASES["molecule-4"](), random_pet(4)
    whole = ensemble(model, "structure")(structure)
    parts = ensemble(model, "structure", portion=1)(structure)
    assert torch.allclose(whole.energies, parts.energies, atol=1e-12)
    assert whole.forces is not None
    assert parts.forces is not None
    assert torch.allclose(whole.forces, parts.forces, atol=1e-12)
    assert [s.stop - s.start for s in portions(torch.tensor([3, 3, 9, 1, 1]), 6)] == [2, 1, 2]


def test_energies_without_derivatives_and_in_a_batch() -> None:
    model = random_pet(4)
    parts = [CASES["molecule-4"](), carbon_dioxide(), CASES["one-atom"]()]
    batch = System.concatenate(parts)
    together = ensemble(model, "structure")(batch)
    alone = torch.cat([ensemble(model, "structure")(p).energy for p in parts])
    assert torch.allclose(together.energy, alone, atol=1e-12)
    wrapped = Ensemble(model, "structure")
    edges = neighbor_list(batch, model.cutoff)
    only = evaluate(wrapped, batch, edges, forces=False, stress=False).energy
    assert torch.allclose(only, alone, atol=1e-12)


def test_local_refuses_a_model_that_sees_further() -> None:
    with pytest.raises(ValueError, match="its neighbors alone"):
        Ensemble(random_pet(4), "local")


def test_an_invariant_backbone_is_left_as_it_is() -> None:
    model = lennard_jones()
    structure = CASES["molecule-4"]()
    found = ensemble(model, "structure")(structure)
    assert torch.allclose(found.energy, plain(model)(structure).energy, atol=1e-12)


def test_quadrature_integrates_polynomials_of_the_rotation() -> None:
    for order in (3, 5):
        matrix, weight = rotations(order)
        assert len(weight) == {3: 6, 5: 14}[order] * (2 * order + 1)
        assert torch.allclose(weight.sum(), torch.tensor(1.0).double())
        x = torch.randn(3, generator=torch.Generator().manual_seed(1)).double()
        turned = x @ matrix  # (n, 3)
        mean = (weight[:, None, None] * turned[:, :, None] * turned[:, None, :]).sum(0)
        assert torch.allclose(mean, torch.eye(3).double() * x.square().sum() / 3, atol=1e-12)
        assert (weight @ turned.prod(dim=1)).abs() < 1e-12
    with pytest.raises(ValueError, match="odd"):
        rotations(4)


def test_drawn_frames_have_the_probabilities_of_their_weights() -> None:
    structure, model = CASES["water-24"](), local_pet()
    from pet_calc.geometry import edge_vectors

    edges = neighbor_list(structure, model.cutoff)
    views = Ensemble(model, "local").views(structure, edges, edge_vectors(structure, edges))
    generator = torch.Generator().manual_seed(0)
    n = 1000
    counts: Tensor = torch.zeros_like(views.weight)
    for _ in range(n):
        chosen = drawn(views, torch.rand(structure.n_atoms, generator=generator))
        assert chosen.group.tolist() == list(range(structure.n_atoms))
        same = (chosen.matrix[views.group] == views.matrix).all(dim=(1, 2))
        counts += (same & (chosen.sign[views.group] == views.sign)).double()
    expected = views.weight.detach()
    error = (expected * (1 - expected) / n).sqrt()
    assert ((counts / n - expected).abs() < 5 * error + 1e-12).all()


def test_training_on_drawn_frames_costs_one_view_and_needs_layerwise() -> None:
    structure, model = CASES["water-24"](), layerwise_pet()
    edges = neighbor_list(structure, model.cutoff)
    draw = torch.rand(structure.n_atoms, generator=torch.Generator().manual_seed(0))
    drawn_frames = replace(structure, frame_draw=draw)
    once = evaluate(model, drawn_frames, edges)
    again = evaluate(model, drawn_frames, edges)
    assert torch.equal(once.energy, again.energy)
    other = evaluate(model, replace(structure, frame_draw=1.0 - draw), edges)
    assert abs((once.energy - other.energy).item()) > 1e-6
    with pytest.raises(ValueError, match="no frames to draw"):
        evaluate(random_pet(), drawn_frames, edges)
