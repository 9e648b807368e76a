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
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System
from pet_calc.models.derivatives import Results
from pet_calc.models.ecse.frames import FrameConfig
from pet_calc.models.ecse.operations import Operations, averaged, merged
from pet_calc.models.ecse.orientations import Orientations, orientations, oriented
from pet_calc.models.ecse.quadrature import quadrature
from pet_calc.models.interface import EnergyModel

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


class Ensemble:
    """A backbone made symmetric, as an `EnergyModel` of one batch of systems.

    Parameters
    ----------
    model : EnergyModel
        The backbone.
    system : System
        The batch that will be evaluated.
    mode : {"local", "structure", "quadrature"}
    frames : FrameConfig
    mirrored : bool
        O(3) rather than SO(3).
    order : int
        Of the quadrature.
    backbone_for : callable, optional
        Gives the backbone for copied atoms from their indices in the batch, where it depends on
        the system that an atom belongs to (charge, spin).
    operations : sequence of Operations, optional
        Symmetry of each system of the batch, for the mode "structure": views that it makes equal
        are evaluated once.

    Raises
    ------
    ValueError
        For "local" with a backbone that sees beyond an atom's neighbors.
    """

    def __init__(
        self,
        model: EnergyModel,
        system: System,
        mode: Mode,
        *,
        frames: FrameConfig | None = None,
        mirrored: bool = True,
        order: int = 3,
        portion: int = PORTION,
        backbone_for: Callable[[Tensor], EnergyModel] | None = None,
        operations: Sequence[Operations] | None = None,
    ) -> None:
        if operations is not None and (mode != "structure" or len(operations) != system.n_systems):
            raise ValueError(
                f"`operations` must be given for each system, and in the mode 'structure' alone, "
                f"got {len(operations)} for {system.n_systems} system(s) and {mode!r}"
            )
        if mode == "local" and not is_strictly_local(model):
            raise ValueError(
                "`mode` 'local' needs a model whose energy of an atom depends on its neighbors "
                "alone (one message-passing layer, residual featurizer, no adaptive cutoff), and "
                "this one sees further; use 'structure'"
            )
        self.model = model
        self.system = system
        self.mode = mode
        self.frames = frames or FrameConfig()
        self.mirrored = mirrored
        self.order = order
        self.portion = portion
        self.backbone_for = backbone_for or (lambda atoms: model)
        self.operations = operations
        if operations is not None and not mirrored:
            self.operations = [o.proper for o in operations]

    @property
    def cutoff(self) -> float:
        """Radius in Å within which neighbors matter."""
        return self.model.cutoff

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.model.atomic_numbers

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the computation."""
        return self.model.dtype

    def energies(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> Tensor:
        """Per-atom energies (n_atoms,) in eV, float64; see `EnergyModel.energies`."""
        # every view for itself: the derivatives of this sum are those of the energies as they are
        prepared = PreparedEnsemble(self, numbers, edges, self.views(edges, vectors))
        total = torch.zeros(len(numbers), dtype=torch.float64, device=numbers.device)
        for term in prepared.terms(vectors, prepared.tensors):
            total = total + term
        return total

    def prepare(self, numbers: Tensor, edges: Edges, vectors: Tensor) -> PreparedEnsemble:
        """Views and weights of the batch, merged where its symmetry makes them equal.

        Derivatives of the terms are complete after `complete`.
        """
        views = self.views(edges, vectors)
        if self.operations is not None:
            views = merged(views, self.operations)
        return PreparedEnsemble(self, numbers, edges, views)

    def complete(self, results: Results) -> Results:
        """Results of the terms of `prepare`, averaged over the symmetry of each system."""
        if self.operations is None:
            return results
        return averaged(results, self.system, self.operations)

    def views(self, edges: Edges, vectors: Tensor) -> Orientations:
        """Views of all groups, sorted by group."""
        system = self.system
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

    def copies(self, edges: Edges, group: Tensor) -> Copies:
        """Copies for views of the given groups (n_views,)."""
        center = edges.edge_index[0]
        if self.mode == "local":
            return stars(edges, group, ranges(center, self.system.n_atoms))
        n = self.system.n_systems
        index = self.system.system_index
        return replicas(edges, group, ranges(index, n), ranges(index[center], n))


@dataclass(frozen=True, eq=False)
class PreparedEnsemble:
    """Views of a batch; their energies come in terms that can be differentiated one by one."""

    ensemble: Ensemble
    numbers: Tensor
    edges: Edges
    views: Orientations

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the terms share and depend on, beside the vectors."""
        return self.views.weight, self.views.matrix

    def terms(self, vectors: Tensor, tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Weighted energies (n_atoms,) of portions of the views, which add up to the energies."""
        weight, matrix = tensors
        ensemble, views = self.ensemble, self.views
        sizes = self.sizes()
        for part in portions(sizes, ensemble.portion):
            copies = ensemble.copies(self.edges, views.group[part])
            view = copies.view
            local = oriented(
                vectors.double()[copies.edge],
                matrix[part][view],
                views.sign[part][view],
                views.kind[part][view],
            )
            model = ensemble.backbone_for(copies.atom)
            found = model.energies(self.numbers[copies.atom], copies.edges, local.to(vectors.dtype))
            weighted = weight[part][copies.row_view] * found[copies.row]
            yield torch.zeros(
                len(self.numbers), dtype=weighted.dtype, device=weighted.device
            ).index_add(0, copies.atom[copies.row], weighted)

    def sizes(self) -> Tensor:
        """Edges of each view's copy, plus its atoms."""
        system = self.ensemble.system
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
