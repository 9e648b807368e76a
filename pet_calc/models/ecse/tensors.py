r"""Vectors and tensors of atoms that turn exactly with the structure.

A linear head reads the last-layer features of a backbone in every view V of an environment,
those of atoms in the components of the view, which are turned back with it, and those of edges as
strengths of the harmonics Y of their directions,

.. math:: T_i = \sum_k \hat w_k \left[ D(V_k) \, W \, \phi_i(x V_k)
          + \sum_j f_{ij} \, (u \cdot h_{ij}(x V_k)) \, Y(\hat r_{ij}) \right]

where D is the representation of O(3) that the components belong to, and f the cutoff weight. The
sum is covariant whatever the backbone, W and u are: with the structure turned by R, the views are
R V_k with the same weights and features. It is smooth in the positions as the energies of an
`Ensemble` are. The total of a structure is the sum over its atoms.

The first term lives on what depends on the view, of which a backbone that was trained on turned
structures has little left; the second one, as of charges and bonds, does not need it. Edges have
harmonics of degree l and parity (-1)^l alone. Features of a backbone that is made of invariant
layers ("layerwise", or attention that sees angles) are the same in every view: one is evaluated,
and of atoms invariants are read.

Components follow e3nn's irreps ("1o" is a vector, "0e + 2e" a symmetric second-rank tensor), in
e3nn's basis and order (`pet_calc.models.ecse.representations`).

Views without a frame leave directions open. An axial one, along one neighbor, is turned back to
all azimuths about its axis, of which the mean is taken by a trapezoidal rule that is exact for the
representation. Of an isotropic one only invariants are left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.kernels.gathers import edges_to_slots
from pet_calc.models.derivatives import (
    edge_variables,
    forces_from_gradient,
    gradients_of_members,
    sum_per_system,
)
from pet_calc.models.ecse.ensemble import Ensemble, OrientedCopies
from pet_calc.models.ecse.orientations import AXIAL, FRAME, ISOTROPIC, Orientations, oriented
from pet_calc.models.ecse.representations import (
    dimension,
    edge_parts,
    harmonics,
    irreducible,
    largest,
    turned_back,
)
from pet_calc.models.pet.model import PET


def directions(views: Orientations, degree: int) -> list[tuple[Tensor, Tensor, float]]:
    """How views are turned back: index of views, their matrices, and share of each.

    Axial views come with several matrices, exact up to `degree`; isotropic ones with zero.
    """
    one = torch.ones_like(views.sign)
    mirror = torch.stack([one, views.sign, one], dim=-1)[:, None, :]
    frame = torch.nonzero(views.kind == FRAME)[:, 0]
    found = [(frame, (views.matrix * mirror)[frame], 1.0)]
    axial = torch.nonzero(views.kind == AXIAL)[:, 0]
    if len(axial):
        axis = views.matrix[axial][..., 0]
        across = torch.eye(3, dtype=axis.dtype, device=axis.device)[
            axis.detach().abs().argmin(dim=1)
        ]
        e2 = torch.nn.functional.normalize(torch.linalg.cross(axis, across), dim=1)
        e3 = torch.linalg.cross(axis, e2)
        n = degree + 1
        for k in range(n):
            angle = torch.tensor(2.0 * torch.pi * k / n, dtype=axis.dtype, device=axis.device)
            first = angle.cos() * e2 + angle.sin() * e3
            second = angle.cos() * e3 - angle.sin() * e2
            found.extend(
                (axial, torch.stack([axis, sign * first, second], -1), 0.5 / n)
                for sign in (1.0, -1.0)
            )
    isotropic = torch.nonzero(views.kind == ISOTROPIC)[:, 0]
    if len(isotropic):
        # the mean over all rotations and reflections leaves invariants alone, as does a zero matrix
        found.append((isotropic, views.matrix.new_zeros(len(isotropic), 3, 3), 1.0))
    return found


@dataclass(frozen=True, eq=False)
class Readable:
    """What a head is linear in, in some rows.

    Attributes
    ----------
    view : Tensor, shape (n_rows, n_features), float64
        Last-layer features of the energy head in a view, and species.
    edges : dict of int to Tensor, shape (n_rows, 2 l + 1, n_edge_features), float64
        By degree l: sums of last-layer features of edges times harmonics of their directions.
    """

    view: Tensor
    edges: dict[int, Tensor]

    def select(self, rows: Tensor) -> Readable:
        """Some of the rows."""
        return Readable(self.view[rows], {l: edge[rows] for l, edge in self.edges.items()})


@dataclass(frozen=True, eq=False)
class TensorHead:
    """A linear map from features of atoms and edges to components.

    Attributes
    ----------
    irreps : str
        Representation of the result in e3nn's notation.
    weight : Tensor, shape (dim, n_features), float64
        W, of atoms in a view; see `Readable`.
    edge_weight : Tensor, shape (n_parts, n_edge_features), float64
        u, one row for each of `edge_parts`.
    quantity, unit : str
        What it gives.
    """

    irreps: str
    weight: Tensor
    edge_weight: Tensor
    quantity: str = ""
    unit: str = ""

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """Degrees and parities of the irreducible parts."""
        return irreducible(self.irreps)


class TensorEnsemble:
    """Covariant outputs of a PET for one batch of systems.

    Parameters
    ----------
    model : PET
    system : System
        The batch that will be evaluated.
    mode : {"auto", "local", "structure"}
        As for energies; "auto" is the cheaper one that is exact.
    """

    def __init__(self, model: PET, system: System, mode: str = "auto") -> None:
        if mode not in ("auto", "local", "structure"):
            raise ValueError(f"`mode` must be 'auto', 'local' or 'structure', got {mode!r}")
        if mode == "auto":
            mode = "local" if model.strictly_local else "structure"
        self.model = model
        self.system = system
        self.invariant = model.config.invariant
        self.ensemble = Ensemble(model, "local" if mode == "local" else "structure")

    def require_readable(self, parts: tuple[tuple[int, int], ...]) -> None:
        """Raise a ValueError for components that invariant features cannot give."""
        readable = {k for k, _, _ in edge_parts(parts)}
        wrong = [part for k, part in enumerate(parts) if k not in readable and part != (0, 1)]
        if self.invariant and wrong:
            names = ", ".join(f"{l}{'e' if parity == 1 else 'o'}" for l, parity in wrong)
            raise ValueError(
                f"the features of a model that is exactly symmetric by itself are invariant; with "
                f"the directions of edges they give parts of parity (-1)^l alone (0e, 1o, 2e, "
                f"3o...), but `irreps` has {names}; use a plain PET"
            )

    def features(
        self, system: System, edges: Edges, local: Tensor, world: Tensor, degrees: set[int]
    ) -> Readable:
        """What a head reads of each atom.

        Parameters
        ----------
        system : System
            Atoms of the batch, or copies of them.
        edges : Edges
            Between them.
        local, world : Tensor, shape (n_edges, 3)
            In a view and as they are.
        degrees : set of int
            Of the harmonics.
        """
        model = self.model
        found = model.environment(edges, local.to(model.dtype), system.n_atoms)
        tokens = model.features(system, edges, local.to(model.dtype), found)
        species = tokens.species
        of_edges = model.last_edge_features(tokens)
        of_atoms = model.last_layer_features(tokens, of_edges).double()
        one_hot = torch.nn.functional.one_hot(species, len(model.config.elements)).to(of_atoms)
        seen = world.double() if found.kept is None else world.double()[found.kept]
        where = (tokens.layout.slot_edge, tokens.layout.edge_slot)
        unit = torch.nn.functional.normalize(seen, dim=1)
        hidden = torch.cat(of_edges, dim=1).double()
        sums = {}
        for l in degrees:
            per_slot = edges_to_slots(harmonics(l, unit), *where)
            product = per_slot[:, :, None] * hidden[:, None, :]
            zero = product.new_zeros((len(species), *product.shape[1:]))
            sums[l] = tokens.per_atom(zero, product)
        return Readable(torch.cat([of_atoms, one_hot], dim=1), sums)

    def reduce(
        self, edges: Edges, vectors: Tensor, parts: tuple[tuple[int, int], ...],
        read: Callable[[Readable, Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        """Sum over all views of w `read`(features, matrix), each (n_rows, ...), per atom.

        Parameters
        ----------
        parts : tuple of (degree, parity)
            Of the representation.
        read : callable
            From features of n rows and views (n, 3, 3) to (n, ...).
        """
        self.require_readable(parts)
        ensemble, system = self.ensemble, self.system
        degrees = {degree for _, degree, _ in edge_parts(parts)}
        if self.invariant:
            features = self.features(system, edges, vectors, vectors, degrees)
            # a zero matrix leaves invariants alone
            return read(features, features.view.new_zeros(system.n_atoms, 3, 3))
        views = ensemble.views(system, edges, vectors)
        oriented_copies = OrientedCopies(ensemble, system, edges, views)
        total: Tensor | None = None
        for part in oriented_copies.portions():
            here = views.select(part)
            copies = oriented_copies.copies(here.group)
            world = vectors.double()[copies.edge]
            local = oriented(
                world,
                here.matrix[copies.view],
                here.sign[copies.view],
                here.kind[copies.view],
            )
            features = self.features(copies.system(system), copies.edges, local, world, degrees)
            features = features.select(copies.row)
            atom = copies.atom[copies.row]
            for index, matrix, share in directions(here, largest(parts)):
                # rows of the views in `index`, and their matrices
                position = torch.full((here.n_views,), -1, device=index.device).index_copy(
                    0, index, torch.arange(len(index), device=index.device)
                )[copies.row_view]
                row = torch.nonzero(position >= 0)[:, 0]
                weight = share * here.weight[copies.row_view[row]]
                found = read(features.select(row), matrix[position[row]])
                found = weight.view(-1, *(1 for _ in found.shape[1:])) * found
                if total is None:
                    total = found.new_zeros((system.n_atoms, *found.shape[1:]))
                total = total.index_add(0, atom[row], found)
        assert total is not None
        return total

    def design(self, edges: Edges, irreps: str) -> Tensor:
        """What the totals are linear in: (n_systems, dim, n_columns), float64.

        The total of a head is this times its flattened `weight` and then `edge_weight`.
        """
        parts = irreducible(irreps)
        dim = dimension(parts)
        basis = torch.eye(dim, dtype=torch.float64, device=self.system.positions.device)

        def read(features: Readable, matrix: Tensor) -> Tensor:
            n = len(features.view)
            columns = [turned_back(row.expand(n, -1), matrix, parts) for row in basis]
            turn = torch.stack(columns, dim=-1)  # (n, dim, dim)
            found = [torch.einsum("nab,nf->nabf", turn, features.view).flatten(2)]
            for _, degree, begin in edge_parts(parts):
                edge = features.edges[degree]
                block = edge.new_zeros(n, dim, edge.shape[2])
                block[:, begin : begin + 2 * degree + 1] = edge
                found.append(block)
            return torch.cat(found, dim=2)

        with torch.no_grad():
            found = self.reduce(edges, edge_vectors(self.system, edges), parts, read)
            return sum_per_system(found, self.system)

    def atomic(self, head: TensorHead, edges: Edges, vectors: Tensor) -> Tensor:
        """Components (n_atoms, dim) of each atom, differentiable by the vectors."""
        parts = head.parts
        weight, edge_weight = head.weight.to(vectors.device), head.edge_weight.to(vectors.device)
        expected = head_shapes(self.model, head.irreps)
        if (tuple(weight.shape), tuple(edge_weight.shape)) != expected:
            raise ValueError(
                f"the weights of a head for this model and {head.irreps!r} must have the shapes "
                f"{expected}, got {tuple(weight.shape)} and {tuple(edge_weight.shape)}; it was "
                f"fitted to another model"
            )

        def read(features: Readable, matrix: Tensor) -> Tensor:
            found = turned_back(features.view @ weight.T, matrix, parts)
            blocks = list(found.split([2 * l + 1 for l, _ in parts], dim=1))
            for u, (k, degree, _) in zip(edge_weight, edge_parts(parts), strict=True):
                blocks[k] = blocks[k] + features.edges[degree] @ u
            return torch.cat(blocks, dim=1)

        return self.reduce(edges, vectors, parts, read)


def head_shapes(model: PET, irreps: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of `weight` and `edge_weight` of a head on a model."""
    parts = irreducible(irreps)
    config = model.config
    hidden = config.num_readout_layers * config.d_head
    return (
        (dimension(parts), 2 * hidden + len(config.elements)),
        (len(edge_parts(parts)), hidden),
    )


@dataclass(frozen=True, eq=False)
class TensorResults:
    """Prediction of a head for a batch, in components of its irreps, float64.

    Attributes
    ----------
    total : Tensor, shape (n_systems, dim)
        Of each system.
    atomic : Tensor, shape (n_atoms, dim)
        Contributions of atoms.
    derivative : Tensor or None, shape (n_atoms, 3, dim)
        Of the total by the Cartesian coordinates of each atom, per Å.
    """

    total: Tensor
    atomic: Tensor
    derivative: Tensor | None


def evaluate_tensor(
    ensemble: TensorEnsemble, head: TensorHead, edges: Edges, *, derivative: bool = False
) -> TensorResults:
    """Components of each system and atom, and their derivatives by positions.

    The derivatives keep the graph of all views: memory grows with their number, unlike for forces.

    Parameters
    ----------
    ensemble : TensorEnsemble
    head : TensorHead
    edges : Edges
        Neighbor list of the ensemble's system at the model's cutoff.
    derivative : bool
        Compute it, by one backward pass for each component.
    """
    system = ensemble.system
    with torch.no_grad():
        atomic = ensemble.atomic(head, edges, edge_vectors(system, edges))
    found = None
    if derivative:
        _, vectors = edge_variables(system, edges, torch.float64)
        with torch.enable_grad():
            components = ensemble.atomic(head, edges, vectors)
            gradients = gradients_of_members(components, vectors)
            forces = [forces_from_gradient(g, edges, system.n_atoms) for g in gradients]
        found = -torch.stack(forces).permute(1, 2, 0)
    return TensorResults(sum_per_system(atomic, system), atomic, found)
