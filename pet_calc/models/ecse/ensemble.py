r"""Exact symmetry of a trained backbone: its energies averaged over rotated copies of its input.

.. math:: E_i = \sum_k \hat w_k \, E_i(x Q_k)

with the views of `pet_calc.models.ecse.orientations`. In the mode "local" every atom has views of
its own and the copies are stars, an atom and its neighbors: exact for a backbone whose energy of
an atom depends on the vectors to its neighbors alone. In the mode "structure" all atoms of a
system share its views and each copy is the whole of it: exact for any backbone; views that are
equal by a symmetry of the structure are evaluated once (`pet_calc.models.ecse.operations`) where
derivatives are taken term by term. "quadrature" is the
fixed grid of rotations that other programs use, for comparison: not exact.

The weights are known before the backbone runs, so that copies are evaluated, differentiated and
forgotten in portions (see `pet_calc.models.derivatives`): memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.models.derivatives import (
    edge_variables,
    forces_from_gradient,
    gradient_of_sum,
    results_of,
    stress_from_gradient,
)
from pet_calc.models.ecse.frames import FrameConfig
from pet_calc.models.ecse.operations import Operations, averaged, merged
from pet_calc.models.ecse.orientations import Orientations, orientations, oriented
from pet_calc.models.ecse.quadrature import quadrature
from pet_calc.models.interface import DerivedModel, EnergyModel, Results

Mode = Literal["local", "structure", "quadrature"]

#: Edges of one portion of copies.
PORTION = 32_768


@dataclass(frozen=True, eq=False)
class Copies:
    """Rotated copies of parts of a batch, as input of the backbone.

    Attributes
    ----------
    atom : Tensor, shape (n_copied_atoms,)
        Atom of the batch that each copied one stands for.
    edges : Edges
        Between copied atoms.
    edge, view : Tensor, shape (n_copied_edges,)
        Edge of the batch, and view (from 0 in this portion), of each copied edge.
    row : Tensor, shape (n_rows,)
        Copied atoms whose energies count.
    row_view : Tensor, shape (n_rows,)
        Their views.
    """

    atom: Tensor
    edges: Edges
    edge: Tensor
    view: Tensor
    row: Tensor
    row_view: Tensor

    def system(self, batch: System) -> System:
        """The copied atoms with the state of the systems that they come from.

        Their positions are NaN: a backbone depends on the vectors alone.
        """
        draw = batch.frame_draw
        return replace(
            batch,
            positions=torch.full_like(batch.positions[:1], torch.nan).expand(len(self.atom), 3),
            numbers=batch.numbers[self.atom],
            system_index=batch.system_index[self.atom],
            frame_draw=None if draw is None else draw[self.atom],
        )


class Ensemble(DerivedModel):
    """A backbone made symmetric.

    Parameters
    ----------
    model : EnergyModel
        The backbone, whose energies depend on positions through the edge vectors alone.
    mode : {"local", "structure", "quadrature"}
    frames : FrameConfig
    mirrored : bool
        O(3) rather than SO(3).
    order : int
        Of the quadrature.
    portion : int
        Edges of one portion of copies.
    find_operations : callable, optional
        Gives the symmetry operations of each system of a batch, for the mode "structure": views
        that they make equal are evaluated once.

    Raises
    ------
    ValueError
        For "local" with a backbone that sees beyond an atom's neighbors, and for operations in
        another mode than "structure".
    """

    def __init__(
        self,
        model: EnergyModel,
        mode: Mode,
        *,
        frames: FrameConfig | None = None,
        mirrored: bool = True,
        order: int = 3,
        portion: int = PORTION,
        find_operations: Callable[[System], Sequence[Operations]] | None = None,
    ) -> None:
        if find_operations is not None and mode != "structure":
            raise ValueError(
                f"`find_operations` merges views in the mode 'structure' alone, got {mode!r}"
            )
        if mode == "local" and not is_strictly_local(model):
            raise ValueError(
                "`mode` 'local' needs a model whose energy of an atom depends on its neighbors "
                "alone (one message-passing layer, residual featurizer, no adaptive cutoff), and "
                "this one sees further; use 'structure'"
            )
        super().__init__(model)
        self.mode: Mode = mode
        self.frames = frames or FrameConfig()
        self.mirrored = mirrored
        self.order = order
        self.portion = portion
        self.find_operations = find_operations

    def energies(self, system: System, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        # every view for itself: the derivatives of this sum are those of the energies as they are
        oriented_copies = OrientedCopies(self, system, edges, self.views(system, edges, vectors))
        total = torch.zeros(system.n_atoms, dtype=torch.float64, device=vectors.device)
        for term in oriented_copies.terms(vectors, oriented_copies.shared):
            total = total + term
        return total

    def evaluate(
        self, system: System, edges: Edges, *, forces: bool = True, stress: bool = True
    ) -> Results:
        """As `pet_calc.models.evaluate`, view by view, so that memory does not grow with them."""
        if not (forces or stress):
            with torch.no_grad():
                vectors = edge_vectors(system, edges).to(self.dtype)
                return results_of(self.energies(system, edges, vectors), system)
        operations = self.operations(system)
        with torch.enable_grad():
            exact, vectors = edge_variables(system, edges, self.dtype)
            views = self.views(system, edges, vectors)
            if operations is not None:
                views = merged(views, operations)
            copies = OrientedCopies(self, system, edges, views)
            energies, gradient = gradient_of_sum(
                copies.terms, vectors, copies.shared, system.n_atoms
            )
        gradient = gradient.to(exact.dtype)
        results = results_of(
            energies,
            system,
            forces_from_gradient(gradient, edges, system.n_atoms) if forces else None,
            stress_from_gradient(gradient, exact, edges, system) if stress else None,
        )
        return results if operations is None else averaged(results, system, operations)

    def operations(self, system: System) -> Sequence[Operations] | None:
        """The symmetry of each system by which views are merged; None if they are not."""
        if self.find_operations is None:
            return None
        found = self.find_operations(system)
        return found if self.mirrored else [o.proper for o in found]

    def views(self, system: System, edges: Edges, vectors: Tensor) -> Orientations:
        """Views of all groups, sorted by group."""
        if self.mode == "quadrature":
            return quadrature(self.order, system.n_systems, vectors.device, mirrored=self.mirrored)
        whole = self.mode == "structure"
        return orientations(
            edges.edge_index[0],
            vectors.double(),
            system.n_atoms,
            self.cutoff,
            self.frames,
            group=system.system_index if whole else None,
            n_groups=system.n_systems if whole else 0,
            mirrored=self.mirrored,
        )


@dataclass(frozen=True, eq=False)
class OrientedCopies:
    """Views of a batch; their energies come in terms that can be differentiated one by one."""

    ensemble: Ensemble
    system: System
    edges: Edges
    views: Orientations

    @property
    def shared(self) -> tuple[Tensor, ...]:
        """What the terms share and depend on, beside the vectors."""
        return self.views.weight, self.views.matrix

    def terms(self, vectors: Tensor, shared: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Weighted energies (n_atoms,) of portions of the views, which add up to the energies."""
        weight, matrix = shared
        views = self.views
        for part in self.portions():
            copies = self.copies(views.group[part])
            view = copies.view
            local = oriented(
                vectors.double()[copies.edge],
                matrix[part][view],
                views.sign[part][view],
                views.kind[part][view],
            )
            found = self.ensemble.model.energies(
                copies.system(self.system), copies.edges, local.to(vectors.dtype)
            )
            weighted = weight[part][copies.row_view] * found[copies.row]
            yield torch.zeros(
                self.system.n_atoms, dtype=weighted.dtype, device=weighted.device
            ).index_add(0, copies.atom[copies.row], weighted)

    def portions(self) -> list[slice]:
        """Runs of consecutive views that are evaluated at once."""
        return portions(self.sizes(), self.ensemble.portion)

    def copies(self, group: Tensor) -> Copies:
        """Copies for views of the given groups (n_views,)."""
        system = self.system
        center = self.edges.edge_index[0]
        if self.ensemble.mode == "local":
            return stars(self.edges, group, ranges(center, system.n_atoms))
        index, n = system.system_index, system.n_systems
        return replicas(self.edges, group, ranges(index, n), ranges(index[center], n))

    def sizes(self) -> Tensor:
        """Edges of each view's copy, plus its atoms."""
        system = self.system
        center = self.edges.edge_index[0]
        if self.ensemble.mode == "local":
            per_group = 1 + torch.bincount(center, minlength=system.n_atoms)
        else:
            index = system.system_index
            per_group = torch.bincount(index, minlength=system.n_systems) + torch.bincount(
                index[center], minlength=system.n_systems
            )
        return per_group[self.views.group]


def is_strictly_local(model: EnergyModel) -> bool:
    """Whether an atom's energy depends on the vectors to its neighbors alone."""
    return bool(getattr(model, "strictly_local", False))


def portions(sizes: Tensor, largest: int) -> list[slice]:
    """Runs of consecutive views whose sizes add up to at most `largest`, or single views."""
    ends = torch.cumsum(sizes, 0).tolist()
    parts, begin, done = [], 0, 0
    for k, end in enumerate(ends):
        if end - done > largest and k > begin:
            parts.append(slice(begin, k))
            begin, done = k, ends[k - 1]
    parts.append(slice(begin, len(ends)))
    return parts


def ranges(sorted_index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """First position and number of each value 0..n-1 in an ascending index."""
    count = torch.bincount(sorted_index, minlength=n)
    return torch.cumsum(count, 0) - count, count


def expanded(begin: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions begin, begin + 1, ... of ranges one after the other.

    Returns
    -------
    position, owner : Tensor, shape (sum of count,)
        Position, and the range that it belongs to.
    offset : Tensor, shape (n_ranges,)
        Where each range starts in the result.
    """
    owner = torch.arange(len(count), device=count.device).repeat_interleave(count)
    offset = torch.cumsum(count, 0) - count
    within = torch.arange(len(owner), device=count.device) - offset[owner]
    return begin[owner] + within, owner, offset


def stars(edges: Edges, atoms: Tensor, of_atom: tuple[Tensor, Tensor]) -> Copies:
    """Each of `atoms` (n_views,) with its own edges; the neighbors are shared and have none."""
    begin, count = of_atom
    n_views, n_atoms = len(atoms), len(count)
    edge, view, _ = expanded(begin[atoms], count[atoms])
    device = atoms.device
    return Copies(
        atom=torch.cat([atoms, torch.arange(n_atoms, device=device)]),
        edges=Edges(
            edge_index=torch.stack([view, n_views + edges.edge_index[1][edge]]),
            cell_shifts=edges.cell_shifts[edge],
            # nothing travels back along the edge of a star
            reverse_edge=torch.arange(len(edge), device=device),
        ),
        edge=edge,
        view=view,
        row=torch.arange(n_views, device=device),
        row_view=torch.arange(n_views, device=device),
    )


def replicas(
    edges: Edges, systems: Tensor, atoms_of: tuple[Tensor, Tensor], edges_of: tuple[Tensor, Tensor]
) -> Copies:
    """The whole of each of `systems` (n_views,)."""
    atom, row_view, atom_offset = expanded(atoms_of[0][systems], atoms_of[1][systems])
    edge, view, edge_offset = expanded(edges_of[0][systems], edges_of[1][systems])
    shift = (atom_offset - atoms_of[0][systems])[view]
    return Copies(
        atom=atom,
        edges=Edges(
            edge_index=edges.edge_index[:, edge] + shift,
            cell_shifts=edges.cell_shifts[edge],
            reverse_edge=edges.reverse_edge[edge] + (edge_offset - edges_of[0][systems])[view],
        ),
        edge=edge,
        view=view,
        row=torch.arange(len(atom), device=atom.device),
        row_view=row_view,
    )
