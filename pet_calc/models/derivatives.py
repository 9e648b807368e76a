r"""Energy, forces and stress of any `EnergyModel` from one backward pass.

The energy depends on positions and cell through the edge vectors only, so one gradient
g_e = ∂E/∂r_e serves both derivatives:

.. math::

   F_i = \sum_{e:\,i(e)=i} g_e - \sum_{e:\,j(e)=i} g_e, \qquad
   \frac{\partial E}{\partial \varepsilon_{ab}} = \sum_e r_{e,a}\, g_{e,b}

Models that depend on more than the edges (`SystemEnergyModel`) are differentiated by positions
and by a strain of positions and cell.

This is the only module that calls ``torch.autograd.grad``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.geometry.cell import stress_from_virial
from pet_calc.models.interface import EnergyModel, SummedModel, SystemEnergyModel


@dataclass(frozen=True, eq=False)
class Results:
    """Output of `evaluate`; what was not asked for is None.

    Attributes
    ----------
    energy : Tensor, shape (n_systems,), float64
        Potential energy in eV.
    energies : Tensor, shape (n_atoms,), float64
        Per-atom energies in eV.
    forces : Tensor or None, shape (n_atoms, 3), float64
        In eV/Å.
    stress : Tensor or None, shape (n_systems, 6), float64
        In eV/Å³, Voigt order xx, yy, zz, yz, xz, xy, tension positive. NaN for a system that is
        not periodic in three dimensions: its stress is not defined.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    stress: Tensor | None


def evaluate(
    model: EnergyModel,
    system: System,
    edges: Edges,
    *,
    forces: bool = True,
    stress: bool = True,
    create_graph: bool = False,
) -> Results:
    """Energy and its derivatives for a batch of systems.

    Parameters
    ----------
    model : EnergyModel
        The potential.
    system : System
        Structures; geometry is handled in their dtype (float64) whatever the model's.
    edges : Edges
        Neighbor list of `system` at ``model.cutoff``.
    forces, stress : bool
        Which derivatives to compute.
    create_graph : bool
        Keep the graph, so that a loss on forces or stress can be differentiated (training).

    Returns
    -------
    Results
    """
    if isinstance(model, SystemEnergyModel) and model.needs_system:
        return evaluate_system(
            model, system, edges, forces=forces, stress=stress, create_graph=create_graph
        )
    derivatives = forces or stress
    with torch.set_grad_enabled(derivatives or create_graph):
        exact = edge_vectors(system, edges).detach()
        # a tensor of its own, so that `exact` stays out of the graph in float64 too
        vectors = exact.to(model.dtype).detach().requires_grad_(derivatives)
        gradient = None
        if isinstance(model, SummedModel) and derivatives and not create_graph:
            energies, gradient = gradient_of_sum(model, system.numbers, edges, vectors)
        else:
            energies = model.energies(system.numbers, edges, vectors)
        energy = sum_per_system(energies, system)
        f = s = None
        if derivatives:
            if gradient is None:
                # every per-atom energy belongs to one system, so one sum gives all gradients
                (gradient,) = torch.autograd.grad(
                    energies.sum(), vectors, create_graph=create_graph
                )
            gradient = gradient.to(exact.dtype)
            if forces:
                f = forces_from_gradient(gradient, edges, system.n_atoms)
            if stress:
                s = stress_from_gradient(gradient, exact, edges, system)
    if not create_graph:
        energy, energies = energy.detach(), energies.detach()
    results = Results(energy=energy, energies=energies, forces=f, stress=s)
    if isinstance(model, SummedModel) and derivatives and not create_graph:
        results = model.complete(results)
    return results


def evaluate_system(
    model: SystemEnergyModel,
    system: System,
    edges: Edges,
    *,
    forces: bool = True,
    stress: bool = True,
    create_graph: bool = False,
) -> Results:
    """As `evaluate`, by the gradients on positions and on a strain of each system."""
    derivatives = forces or stress
    with torch.set_grad_enabled(derivatives or create_graph):
        positions = system.positions.detach().clone().requires_grad_(derivatives)
        strain = torch.zeros_like(system.cell).requires_grad_(derivatives)
        here = strain[system.system_index]
        moved = replace(
            system,
            positions=positions + torch.einsum("nab,nb->na", here, positions.detach()),
            cell=system.cell.detach() + system.cell.detach() @ strain.transpose(1, 2),
        )
        vectors = edge_vectors(moved, edges).to(model.dtype)
        energies = model.system_energies(moved, edges, vectors)
        energy = sum_per_system(energies, system)
        f = s = None
        if derivatives:
            by_position, virial = torch.autograd.grad(
                energies.sum(), (positions, strain), create_graph=create_graph
            )
            f = -by_position if forces else None
            if stress:
                s = defined_stress(stress_from_virial(virial, system.cell), system)
    if not create_graph:
        energy, energies = energy.detach(), energies.detach()
    return Results(energy=energy, energies=energies, forces=f, stress=s)


def evaluate_slots(
    energies_of: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    system: System,
    edges: Edges,
    exact: Tensor,
    inside: Tensor,
    *,
    beyond: float,
) -> Results:
    """As `evaluate`, for rows of equally many edges of which some do not count.

    No shape depends on which edges count, and the host never waits for the device.

    Parameters
    ----------
    energies_of : callable
        From vectors (n_edges, 3) in `dtype` to per-atom energies (n_atoms,) in eV, float64.
    dtype : torch.dtype
    system : System
    edges : Edges
        Sorted by center, equally many of each.
    exact : Tensor, shape (n_edges, 3), float64
        Vectors in Å.
    inside : Tensor, shape (n_edges,), bool
        Edges that count, an edge and its reverse edge alike.
    beyond : float
        The others are put at this distance at least in Å, where no energy depends on them.
    """
    hidden = ~inside[:, None]
    vectors = exact.detach().masked_fill(hidden, beyond).to(dtype).requires_grad_()
    with torch.enable_grad():
        energies = energies_of(vectors)
        (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    gradient = gradient.to(exact.dtype).masked_fill(hidden, 0.0)
    rows = (system.n_atoms, len(exact) // max(1, system.n_atoms), 3)
    # the edges that end at an atom are the reverse edges of those that begin there
    forces = (gradient - gradient.index_select(0, edges.reverse_edge)).view(rows).sum(1)
    pulls = torch.einsum("nma,nmb->nab", exact.view(rows), gradient.view(rows))
    virial = sum_per_system(pulls, system)
    energies = energies.detach()
    return Results(
        energy=sum_per_system(energies, system),
        energies=energies,
        forces=forces,
        stress=defined_stress(stress_from_virial(virial, system.cell), system),
    )


def gradient_of_sum(
    model: SummedModel, numbers: Tensor, edges: Edges, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Per-atom energies (n_atoms,) and their sum's gradient (n_edges, 3), term by term.

    The graph of each term is freed before the next one is built, so that memory is that of the
    largest term. What the terms share is differentiated once, at the end.
    """
    prepared = model.prepare(numbers, edges, vectors)
    shared = prepared.tensors
    leaves = tuple(t.detach().requires_grad_(t.requires_grad) for t in shared)
    inputs = (vectors, *(t for t in leaves if t.requires_grad))
    total: list[Tensor] = [torch.zeros_like(t) for t in inputs]
    energies = torch.zeros(len(numbers), dtype=torch.float64, device=numbers.device)
    for term in prepared.terms(vectors, leaves):
        gradients = torch.autograd.grad(term.sum(), inputs, allow_unused=True)
        energies += term.detach()
        for kept, part in zip(total, gradients, strict=True):
            if part is not None:
                kept += part
    outputs = [t for t in shared if t.requires_grad]
    if outputs:
        (through,) = torch.autograd.grad(outputs, vectors, total[1:], allow_unused=True)
        if through is not None:
            total[0] += through
    return energies, total[0]


def member_derivatives(
    member_energies: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    system: System,
    edges: Edges,
) -> tuple[Tensor, Tensor]:
    """Forces and stress of every member of an ensemble that shares its forward pass.

    One forward pass, and one backward pass for each member.

    Parameters
    ----------
    member_energies : callable
        From edge vectors (n_edges, 3) to per-atom energies (n_atoms, n_members) in eV.
    dtype : torch.dtype
        Of the vectors that it takes.
    system : System
    edges : Edges

    Returns
    -------
    forces : Tensor, shape (n_members, n_atoms, 3), float64
        In eV/Å.
    stress : Tensor, shape (n_members, n_systems, 6), float64
        In eV/Å³; NaN where it is not defined.
    """
    exact = edge_vectors(system, edges).detach()
    vectors = exact.to(dtype).detach().requires_grad_()
    forces, stress = [], []
    with torch.enable_grad():
        totals = member_energies(vectors).sum(0)
        for total in totals.unbind():
            (gradient,) = torch.autograd.grad(total, vectors, retain_graph=True)
            gradient = gradient.to(exact.dtype)
            forces.append(forces_from_gradient(gradient, edges, system.n_atoms))
            stress.append(stress_from_gradient(gradient, exact, edges, system))
    return torch.stack(forces), torch.stack(stress)


def sum_per_system(values: Tensor, system: System) -> Tensor:
    """Sum per-atom values (n_atoms, ...) over each system."""
    total = torch.zeros(
        system.n_systems, *values.shape[1:], dtype=values.dtype, device=values.device
    )
    return total.index_add(0, system.system_index, values)


def forces_from_gradient(gradient: Tensor, edges: Edges, n_atoms: int) -> Tensor:
    """Forces (n_atoms, 3) in eV/Å from dE/dr_e (n_edges, 3)."""
    zero = torch.zeros(n_atoms, 3, dtype=gradient.dtype, device=gradient.device)
    return zero.index_add(0, edges.edge_index[0], gradient).index_add(
        0, edges.edge_index[1], gradient, alpha=-1
    )


def stress_from_gradient(gradient: Tensor, vectors: Tensor, edges: Edges, system: System) -> Tensor:
    """Stress (n_systems, 6) in eV/Å³ from dE/dr_e and r_e; NaN where it is not defined."""
    per_atom = torch.zeros(
        system.n_atoms, 3, 3, dtype=gradient.dtype, device=gradient.device
    ).index_add(0, edges.edge_index[0], vectors[:, :, None] * gradient[:, None, :])
    return defined_stress(stress_from_virial(sum_per_system(per_atom, system), system.cell), system)


def defined_stress(stress: Tensor, system: System) -> Tensor:
    """Stress (n_systems, 6) with NaN for systems that are not periodic in three dimensions."""
    periodic = system.pbc.all(dim=1, keepdim=True)
    return torch.where(periodic, stress, torch.full_like(stress, torch.nan))
