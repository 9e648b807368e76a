"""The contracts of an energy model: named checks, each a function of a potential and a system.

A check raises AssertionError with the number that is wrong. `test_energy_models.py` shows every
check red on at least one broken potential.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pet_calc.geometry import System, edge_vectors
from pet_calc.geometry.cell import VOIGT_PAIRS, volume
from pet_calc.models import EnergyModel, Results, evaluate
from pet_calc.neighbors import neighbor_list

MAX_FORCE_ERROR = 1e-6
"""Best error of a force against central differences, eV/Å."""
MAX_STRESS_ERROR = 1e-7
"""Best error of a stress against central differences, eV/Å³."""
MAX_ENERGY_JUMP = 1e-10
"""Where a neighbor enters or leaves, eV."""


@dataclass(frozen=True)
class Potential:
    """An energy model with its neighbor list, and how exactly it is to obey the contracts.

    Attributes
    ----------
    model : EnergyModel
        The model under test.
    tolerance : float
        For energies (eV) and forces (eV/Å) of descriptions that are equivalent, relative to the
        largest one if that exceeds 1.
    """

    model: EnergyModel
    tolerance: float = 1e-10

    def __call__(self, system: System) -> Results:
        """Everything that `evaluate` computes."""
        return evaluate(self.model, system, neighbor_list(system, self.model.cutoff))

    def energy(self, system: System) -> Tensor:
        """Energies alone (n_systems,)."""
        edges = neighbor_list(system, self.model.cutoff)
        return evaluate(self.model, system, edges, forces=False, stress=False).energy


Check = Callable[[Potential, System], None]


def same(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Assert that tensors agree to a tolerance relative to the larger of 1 and their maximum."""
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    assert torch.equal(torch.isnan(found), torch.isnan(expected)), f"{what}: NaN differs"
    gap = (found - expected).nan_to_num().abs().max().item() if found.numel() else 0.0
    scale = max(1.0, expected.nan_to_num().abs().max().item() if found.numel() else 0.0)
    assert gap <= tolerance * scale, (
        f"{what}: differs by {gap:.3e}, allowed {tolerance * scale:.1e}"
    )


def moved(system: System, displacement: Tensor) -> System:
    """The system with displaced atoms."""
    return replace(system, positions=system.positions + displacement)


def strained(system: System, strain: Tensor) -> System:
    """The system with positions and cell mapped by 1 + strain."""
    deformation = torch.eye(3, dtype=strain.dtype) + strain
    return replace(
        system, positions=system.positions @ deformation.T, cell=system.cell @ deformation.T
    )


def permuted(system: System, order: Tensor) -> System:
    """The atoms `order` of a single structure: all in another order, or some of them."""
    return replace(
        system,
        positions=system.positions[order],
        numbers=system.numbers[order],
        system_index=system.system_index[order],
    )


def repeated(system: System, counts: tuple[int, int, int]) -> System:
    """A supercell, whose atom order is that of the cell, over and over."""
    shifts = torch.tensor(list(np.ndindex(*counts)), dtype=torch.float64) @ system.cell[0]
    n = len(shifts)
    return System.single(
        (shifts[:, None] + system.positions).reshape(-1, 3),
        system.numbers.repeat(n),
        system.cell[0] * torch.tensor(counts, dtype=torch.float64)[:, None],
        system.pbc[0],
    )


# --- derivatives -------------------------------------------------------------------------------


def error_ladder(
    potential: Potential,
    at: Callable[[float], System],
    derivative: float,
    *,
    unit: float,
    limit: float,
    what: str,
) -> None:
    """Assert that dE/dh of `at(h)` at 0 is `derivative`, by central differences of falling step.

    Their error has to fall fourfold when the step is halved, until rounding takes over. Two
    successive ones make a difference of fourth order (Richardson), which reaches further where the
    energy is stiff; the lowest error of both kinds, times `unit`, has to stay under `limit`.
    """
    steps = [0.064 * 0.5**k for k in range(13)]  # 6e-2 to 1.6e-5
    batch = System.concatenate([at(sign * h) for h in steps for sign in (1, -1)])
    energies = potential.energy(batch).reshape(-1, 2).numpy()
    h = np.array(steps)
    differences = (energies[:, 0] - energies[:, 1]) / (2 * h)
    errors = unit * np.abs(differences - derivative)
    extrapolated = (4.0 * differences[1:] - differences[:-1]) / 3.0
    best = min(errors.min(), unit * np.abs(extrapolated - derivative).min())
    table = ", ".join(f"{s:.1e}: {e:.1e}" for s, e in zip(steps, errors, strict=True))
    assert best < limit, f"{what}: best error {best:.2e} >= {limit}; {table}"
    rounding = unit * 1e-15 * max(1.0, np.abs(energies).max()) / h
    if errors.max() < 100 * rounding.max():
        return  # nothing but rounding: the energy does not depend on h beyond second order
    measurable = errors[1:] > 30 * rounding[1:]
    halving = errors[:-1] / np.maximum(errors[1:], 1e-300)
    second_order = measurable & (np.abs(np.log2(halving) - 2) < 0.2)
    longest = max(len(list(g)) if ok else 0 for ok, g in itertools.groupby(second_order))
    assert longest >= 2, f"{what}: the error does not fall fourfold per halving; {table}"


def forces_match_energy(potential: Potential, system: System) -> None:
    """Forces are -dE/dx: an error ladder along random directions, then every component."""
    forces = potential(system).forces
    assert forces is not None
    generator = torch.Generator().manual_seed(5)
    for k in range(2):
        d = torch.randn(system.n_atoms, 3, dtype=torch.float64, generator=generator)
        d = d / d.norm(dim=1).max()
        error_ladder(
            potential,
            lambda h, d=d: moved(system, h * d),
            -float((forces * d).sum()),
            unit=1.0,
            limit=MAX_FORCE_ERROR,
            what=f"force along random direction {k}",
        )
    if system.n_atoms > 24:
        return
    h = 1e-4  # fourth-order differences: truncation below 1e-6 where weights of frames are stiff
    for atom in range(system.n_atoms):
        batch = []
        for axis, step in itertools.product(range(3), (1, -1, 2, -2)):
            d = torch.zeros(system.n_atoms, 3, dtype=torch.float64)
            d[atom, axis] = step * h
            batch.append(moved(system, d))
        e = potential.energy(System.concatenate(batch)).reshape(3, 4)
        numeric = -(8 * (e[:, 0] - e[:, 1]) - (e[:, 2] - e[:, 3])) / (12 * h)
        gap = (numeric - forces[atom]).abs().max().item()
        assert gap < MAX_FORCE_ERROR, f"force on atom {atom} is wrong by {gap:.2e} eV/Å"


def stress_matches_energy(potential: Potential, system: System) -> None:
    """Stress is dE/dε / V for all six strains, in Voigt order, tension positive."""
    stress = potential(system).stress
    assert stress is not None
    v = volume(system.cell)[0].item()
    for k, (a, b) in enumerate(VOIGT_PAIRS):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        error_ladder(
            potential,
            lambda h, strain=strain: strained(system, h * strain),
            stress[0, k].item() * v,
            unit=1 / v,
            limit=MAX_STRESS_ERROR,
            what=f"stress component {k}",
        )


# --- symmetries --------------------------------------------------------------------------------


def permutation_invariant(potential: Potential, system: System) -> None:
    """Renaming the atoms renames their energies and forces, and changes nothing else."""
    order = torch.randperm(system.n_atoms, generator=torch.Generator().manual_seed(6))
    old, new = potential(system), potential(permuted(system, order))
    assert old.forces is not None
    assert new.forces is not None
    same(new.energy, old.energy, potential.tolerance, "energy")
    same(new.energies, old.energies[order], potential.tolerance, "energies")
    same(new.forces, old.forces[order], potential.tolerance, "forces")


def translation_invariant(potential: Potential, system: System) -> None:
    """A common shift of all atoms changes nothing, and the forces sum to zero."""
    shift = torch.tensor([1.37, -20.3, 0.71], dtype=torch.float64)
    old, new = potential(system), potential(moved(system, shift))
    assert old.forces is not None
    assert new.forces is not None
    same(new.energy, old.energy, potential.tolerance, "energy")
    same(new.forces, old.forces, potential.tolerance, "forces")
    same(old.forces.sum(0), torch.zeros(3).double(), potential.tolerance, "sum of forces")


def wrap_invariant(potential: Potential, system: System) -> None:
    """Atoms may be moved by lattice vectors along periodic directions, each on its own."""
    generator = torch.Generator().manual_seed(7)
    whole = torch.randint(-3, 4, (system.n_atoms, 3), generator=generator) * system.pbc[0]
    old = potential(system)
    new = potential(moved(system, whole.double() @ system.cell[0]))
    assert old.forces is not None
    assert new.forces is not None
    same(new.energy, old.energy, potential.tolerance, "energy")
    same(new.forces, old.forces, potential.tolerance, "forces")


def rotation_invariant(potential: Potential, system: System) -> None:
    """Energy is invariant and forces turn with the structure, mirror images included.

    For models that declare it; plain PET learns this symmetry only approximately.
    """
    from contracts.structures import random_rotation

    proper = torch.from_numpy(random_rotation(np.random.default_rng(8)))
    old = potential(system)
    assert old.forces is not None
    for rotation in (proper, -proper):
        new = potential(
            replace(system, positions=system.positions @ rotation, cell=system.cell @ rotation)
        )
        assert new.forces is not None
        same(new.energy, old.energy, potential.tolerance, "energy")
        same(new.forces, old.forces @ rotation, potential.tolerance, "forces")


def handedness_is_immaterial(potential: Potential, system: System) -> None:
    """The same crystal with two lattice vectors exchanged has the same energy, forces, stress."""
    swap = torch.tensor([1, 0, 2])
    old = potential(system)
    new = potential(replace(system, cell=system.cell[:, swap], pbc=system.pbc[:, swap]))
    assert old.forces is not None
    assert new.forces is not None
    assert old.stress is not None
    assert new.stress is not None
    same(new.energy, old.energy, potential.tolerance, "energy")
    same(new.forces, old.forces, potential.tolerance, "forces")
    same(new.stress, old.stress, potential.tolerance, "stress")


def choice_of_cell_is_immaterial(potential: Potential, system: System) -> None:
    """The same crystal in a skewed cell, b → b + 3 a and c → c - 2 b - a, is the same."""
    skew = torch.tensor([[1.0, 0, 0], [3, 1, 0], [-1, -2, 1]], dtype=torch.float64)
    periodic = system.pbc[0].double()
    # vectors of directions that are not periodic take no part
    skew = torch.eye(3).double() + (skew - torch.eye(3)) * periodic[:, None] * periodic[None, :]
    old, new = potential(system), potential(replace(system, cell=skew @ system.cell))
    assert old.forces is not None
    assert new.forces is not None
    assert old.stress is not None
    assert new.stress is not None
    same(new.energies, old.energies, potential.tolerance, "energies")
    same(new.forces, old.forces, potential.tolerance, "forces")
    same(new.stress, old.stress, potential.tolerance, "stress")


# --- extensivity and locality ------------------------------------------------------------------


def supercell_extensive(potential: Potential, system: System) -> None:
    """A supercell has the energies, forces and stress of its cell, image by image.

    On a cell smaller than the cutoff this is also the test that all images are counted: its
    supercell of 3 x 2 x 4 sees most of them as atoms.
    """
    counts = tuple(n if p else 1 for n, p in zip((3, 2, 4), system.pbc[0].tolist(), strict=True))
    n = int(np.prod(counts))
    old, new = potential(system), potential(repeated(system, (counts[0], counts[1], counts[2])))
    assert old.forces is not None
    assert new.forces is not None
    assert old.stress is not None
    assert new.stress is not None
    same(new.energy, n * old.energy, potential.tolerance, "energy")
    same(new.energies, old.energies.repeat(n), potential.tolerance, "energies")
    same(new.forces, old.forces.repeat(n, 1), potential.tolerance, "forces")
    same(new.stress, old.stress, potential.tolerance, "stress")


def fragments_additive(potential: Potential, system: System) -> None:
    """Two fragments out of each other's reach have the sum of their energies."""
    free = replace(system, cell=torch.zeros_like(system.cell), pbc=torch.zeros_like(system.pbc))
    other = permuted(free, torch.arange(max(1, free.n_atoms // 2)))
    reach = float(torch.cdist(free.positions, free.positions).max()) + 2 * potential.model.cutoff
    far = moved(other, torch.tensor([0.0, 0.0, 3 * reach], dtype=torch.float64))
    both = System.single(
        torch.cat([free.positions, far.positions]), torch.cat([free.numbers, far.numbers])
    )
    a, b, ab = potential(free), potential(other), potential(both)
    assert a.forces is not None
    assert b.forces is not None
    assert ab.forces is not None
    same(ab.energy, a.energy + b.energy, potential.tolerance, "energy")
    same(ab.forces, torch.cat([a.forces, b.forces]), potential.tolerance, "forces")


def smooth_through_cutoff(potential: Potential, system: System) -> None:
    """Where a pair enters or leaves the cutoff, neither energy nor forces jump.

    One atom is moved along a line until the number of edges changes; the place is bisected to
    1e-12 Å, and both sides are compared.
    """
    cutoff = potential.model.cutoff
    generator = torch.Generator().manual_seed(9)
    crossings = 0
    for atom in range(min(3, system.n_atoms)):
        line = torch.zeros(system.n_atoms, 3, dtype=torch.float64)
        direction = torch.randn(3, dtype=torch.float64, generator=generator)
        line[atom] = direction / direction.norm()

        def edges(t: float, line: Tensor = line) -> int:
            return neighbor_list(moved(system, t * line), cutoff).n_edges

        low, start = 0.0, edges(0.0)
        reach = np.linspace(0.02, 3 * cutoff, 200)
        high = next((float(t) for t in reach if edges(float(t)) != start), None)
        if high is None:
            continue
        crossings += 1
        while high - low > 1e-12:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            if edges(middle) == start:
                low = middle
            else:
                high = middle
        a, b = potential(moved(system, low * line)), potential(moved(system, high * line))
        assert a.forces is not None
        assert b.forces is not None
        jump = (a.energy - b.energy).abs().item()
        allowed = max(MAX_ENERGY_JUMP, potential.tolerance)
        assert jump <= allowed, f"the energy jumps by {jump:.2e} eV at the cutoff"
        jump = (a.forces - b.forces).abs().max().item()
        allowed = 100 * potential.tolerance
        assert jump <= allowed, f"the forces jump by {jump:.2e} eV/Å at the cutoff"
    assert crossings or system.n_atoms == 1, "no pair crossed the cutoff: nothing was tested"


def blind_beyond_cutoff(potential: Potential, system: System) -> None:
    """Pairs beyond the cutoff feel exactly no force, and energies are those of free atoms."""
    cutoff = potential.model.cutoff
    pair = System.single(
        torch.tensor([[0.0, 0, 0], [0, 0, cutoff + 1e-9]], dtype=torch.float64),
        system.numbers[[0, -1]],
    )
    result = potential(pair)
    assert result.forces is not None
    assert torch.equal(result.forces, torch.zeros(2, 3, dtype=torch.float64)), result.forces
    free = [
        potential(System.single(torch.zeros(1, 3, dtype=torch.float64), pair.numbers[[k]])).energy
        for k in range(2)
    ]
    same(result.energies, torch.cat(free), potential.tolerance, "energies of two free atoms")


# --- batches -----------------------------------------------------------------------------------


def batch_equals_single(potential: Potential, system: System) -> None:
    """A system in a batch, at any place, has the results that it has alone."""
    parts = companions(system)
    singles = [potential(part) for part in parts]
    for order in ((0, 1, 2), (2, 0, 1)):
        batch = potential(System.concatenate([parts[k] for k in order]))
        for name in ("energy", "energies", "forces", "stress"):
            same(
                getattr(batch, name),
                torch.cat([getattr(singles[k], name) for k in order]),
                potential.tolerance,
                f"{name} in batch order {order}",
            )


def no_cross_talk(potential: Potential, system: System) -> None:
    """The energy of one system of a batch has exactly no gradient on the edges of the others."""
    batch = System.concatenate(companions(system))
    edges = neighbor_list(batch, potential.model.cutoff)
    vectors = edge_vectors(batch, edges).to(potential.model.dtype).requires_grad_()
    energies = potential.model.energies(batch, edges, vectors)
    owner = batch.system_index[edges.edge_index[0]]
    for k in range(batch.n_systems):
        mine = energies[batch.system_index == k].sum()
        if not mine.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(mine, vectors, retain_graph=True, allow_unused=True)
        leak = 0.0 if gradient is None else gradient[owner != k].abs().sum().item()
        assert leak == 0.0, f"the energy of system {k} depends on other systems: {leak:.2e}"


def companions(system: System) -> list[System]:
    """The system with one of fewer atoms, squeezed, and one of a single atom, all of its kind."""
    squeezed = permuted(system, torch.arange(max(1, system.n_atoms - 1)))
    squeezed = strained(squeezed, -0.05 * torch.eye(3, dtype=torch.float64))
    return [system, squeezed, permuted(system, torch.tensor([0]))]


# --- form --------------------------------------------------------------------------------------


def results_well_formed(potential: Potential, system: System) -> None:
    """Shapes, float64, finite; energy is the sum of energies; stress only if 3-D periodic."""
    result = potential(system)
    n = system.n_atoms
    expected = {"energy": (1,), "energies": (n,), "forces": (n, 3), "stress": (1, 6)}
    for name, shape in expected.items():
        value = getattr(result, name)
        assert tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}, not {shape}"
        assert value.dtype == torch.float64, f"{name} is {value.dtype}, not float64"
        assert not value.requires_grad, f"{name} still carries a graph"
        defined = name != "stress" or bool(system.pbc.all())
        finite = bool(torch.isfinite(value).all())
        assert finite == defined, f"{name} is {value.tolist()}, it should be finite: {defined}"
    gap = (result.energies.sum() - result.energy[0]).abs().item()
    assert gap <= 1e-12 * max(1.0, result.energy.abs().item()), f"sum(energies) is off by {gap}"


def inputs_untouched(potential: Potential, system: System) -> None:
    """An evaluation leaves the system as it was, and asks no gradient of it."""
    names = ("positions", "cell", "numbers", "pbc", "system_index")
    before = {name: getattr(system, name).clone() for name in names}
    potential(system)
    for name in names:
        now = getattr(system, name)
        assert torch.equal(now, before[name]), f"`{name}` was changed in place"
        assert not now.requires_grad, f"`{name}` now requires gradients"


def repeatable(potential: Potential, system: System) -> None:
    """The same system gives the same numbers to the last bit, whatever was computed before."""
    first = potential(system)
    potential(moved(system, 0.05 * torch.ones_like(system.positions[:1])))
    potential(permuted(system, torch.arange(max(1, system.n_atoms - 1))))
    again = potential(system)
    for name in ("energy", "energies", "forces", "stress"):
        a, b = getattr(first, name), getattr(again, name)
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), f"{name} changed on repetition"


def serializable(potential: Potential, twin: EnergyModel, system: System) -> None:
    """`twin`, another model of the same kind, becomes the model by taking its state dict."""
    assert isinstance(potential.model, torch.nn.Module)
    assert isinstance(twin, torch.nn.Module)
    twin.load_state_dict(potential.model.state_dict())
    ours, theirs = potential(system), replace(potential, model=twin)(system)
    for name in ("energies", "forces"):
        equal = torch.equal(getattr(ours, name), getattr(theirs, name))
        assert equal, f"{name} are lost on the way through the state dict"


def named(checks: Iterable[Check]) -> dict[str, Check]:
    """Checks by their names."""
    return {check.__name__: check for check in checks}


CHECKS = named([
    forces_match_energy,
    permutation_invariant,
    translation_invariant,
    wrap_invariant,
    fragments_additive,
    smooth_through_cutoff,
    blind_beyond_cutoff,
    batch_equals_single,
    no_cross_talk,
    results_well_formed,
    inputs_untouched,
    repeatable,
])  # fmt: skip
"""Contracts of every model on every structure."""

PERIODIC_CHECKS = named([
    stress_matches_energy,
    supercell_extensive,
    handedness_is_immaterial,
    choice_of_cell_is_immaterial,
])  # fmt: skip
"""Contracts on crystals."""
