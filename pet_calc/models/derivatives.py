r"""Energy, forces and stress of any `EnergyModel` from one backward pass.

Most models depend on positions and cell through the edge vectors alone, so that one gradient
g_e = ∂E/∂r_e serves both derivatives:

.. math::

   F_i = \sum_{e:\,i(e)=i} g_e - \sum_{e:\,j(e)=i} g_e, \qquad
   \frac{\partial E}{\partial \varepsilon_{ab}} = \sum_e r_{e,a}\, g_{e,b}

A model that depends on positions and cell beyond that, such as by a sum in reciprocal space, adds
its gradients by the positions and by a strain of positions and cell.

This is the only module that calls ``torch.autograd.grad`` for a model's derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.geometry.cell import stress_from_virial
from pet_calc.models.interface import DerivedModel, EnergyModel, Results


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
    if isinstance(model, DerivedModel) and not create_graph:
        return model.evaluate(system, edges, forces=forces, stress=stress)
    if not (forces or stress):
        with torch.set_grad_enabled(create_graph):
            vectors = edge_vectors(system, edges).detach().to(model.dtype)
            energies = model.energies(system, edges, vectors)
            return results_of(energies, system)
    with torch.enable_grad():
        exact, vectors = edge_variables(system, edges, model.dtype)
        positions = system.positions.detach().clone().requires_grad_()
        strain = torch.zeros_like(system.cell).requires_grad_()
        moved = replace(
            system,
            positions=positions
            + torch.einsum("nab,nb->na", strain[system.system_index], positions.detach()),
            cell=system.cell.detach() + system.cell.detach() @ strain.transpose(1, 2),
        )
        energies = model.energies(moved, edges, vectors)
        # every per-atom energy belongs to one system, so one sum gives all gradients
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            energies.sum(),
            (vectors, positions, strain),
            create_graph=create_graph,
            allow_unused=True,
        )
        by_edge, by_position, virial = found
        gradient = torch.zeros_like(exact) if by_edge is None else by_edge.to(exact.dtype)
        results = results_of(
            energies if create_graph else energies.detach(),
            system,
            forces_from_gradient(gradient, edges, system.n_atoms) if forces else None,
            stress_from_gradient(gradient, exact, edges, system) if stress else None,
        )
    if by_position is None or virial is None:
        return results
    return replace(
        results,
        forces=None if results.forces is None else results.forces - by_position,
        stress=None
        if results.stress is None
        else results.stress + stress_from_virial(virial, system.cell),
    )


def edge_variables(system: System, edges: Edges, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Edge vectors (n_edges, 3) in Å, and the same as variables of a model in `dtype`."""
    exact = edge_vectors(system, edges).detach()
    # a tensor of its own, so that `exact` stays out of the graph in float64 too
    return exact, exact.to(dtype).detach().requires_grad_()


def results_of(
    energies: Tensor, system: System, forces: Tensor | None = None, stress: Tensor | None = None
) -> Results:
    """Results from per-atom energies (n_atoms,) and derivatives."""
    return Results(sum_per_system(energies, system), energies, forces, stress)


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
    stress = defined_stress(stress_from_virial(virial, system.cell), system)
    return results_of(energies.detach(), system, forces, stress)


def gradient_of_sum(
    terms: Callable[[Tensor, tuple[Tensor, ...]], Iterator[Tensor]],
    vectors: Tensor,
    shared: tuple[Tensor, ...],
    n_atoms: int,
) -> tuple[Tensor, Tensor]:
    """Per-atom energies (n_atoms,) and their sum's gradient (n_edges, 3), term by term.

    The graph of each term is freed before the next one is built, so that memory is that of the
    largest term. What the terms share is differentiated once, at the end.

    Parameters
    ----------
    terms : callable
        From the vectors and the shared tensors to one term's energies (n_atoms,) after the other.
    vectors : Tensor, shape (n_edges, 3)
        Variables.
    shared : tuple of Tensor
        Functions of the vectors.
    n_atoms : int
    """
    leaves = tuple(t.detach().requires_grad_(t.requires_grad) for t in shared)
    inputs = (vectors, *(t for t in leaves if t.requires_grad))
    total: list[Tensor] = [torch.zeros_like(t) for t in inputs]
    energies = torch.zeros(n_atoms, dtype=torch.float64, device=vectors.device)
    for term in terms(vectors, leaves):
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


def gradients_of_members(energies: Tensor, vectors: Tensor) -> Iterator[Tensor]:
    """Gradient (n_edges, 3) of the summed energies of each member, from (n_atoms, n_members)."""
    for total in energies.sum(0).unbind():
        (gradient,) = torch.autograd.grad(total, vectors, retain_graph=True)
        yield gradient


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
