r"""The tokens of atoms as the layers of PET see them: as given, or in local frames.

With frames, layer g of the environment of atom i is evaluated in every view k of it
(`pet_calc.models.ecse.orientations`), and node and edge tokens leave it as averages,

.. math::

    h_i = \sum_k \hat w_{ik} h_i^{(k)}, \qquad e_{ij} = \sum_k \hat w_{ik} e_{ij}^{(k)},

which are invariant, so that messages between atoms whose frames differ make sense.

A structure whose views have more tokens than `KEPT_TOKENS` is seen in portions that are computed
again in the backward pass, so that memory does not grow with the number of frames. The second
computation costs about half as much time again, which is why small structures do without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pet_calc.geometry import Edges, NodeEdgeLayout
from pet_calc.models.ecse.frames import FrameConfig
from pet_calc.models.ecse.orientations import Orientations, drawn, orientations, oriented
from pet_calc.models.pet.layers import MessageLayer

#: Tokens of all views up to which their intermediate values are kept for the backward pass.
KEPT_TOKENS = 65_536
#: Tokens of one portion of views that are computed again.
PORTION = 8_192

# logarithmic weight of padding: exp underflows to exactly zero in float32 and float64
_HIDDEN = -1e9
# keeps the logarithm finite; of no effect within 1e-15
_TINY = 1e-15


@dataclass(frozen=True, eq=False)
class Tokens:
    """Padded environments of atoms and what is known of their edges before any layer.

    Attributes
    ----------
    layout : NodeEdgeLayout
    geometry : Tensor, shape (n_slots, geometry_width)
    neighbour : Tensor, shape (n_slots,)
        Species of the neighbour.
    slot_weight : Tensor, shape (n_slots,)
        Cutoff weight, 0 on padding.
    """

    layout: NodeEdgeLayout
    geometry: Tensor
    neighbour: Tensor
    slot_weight: Tensor

    @cached_property
    def log_weights(self) -> list[Tensor]:
        """Logarithmic weights (n_atoms, 1 + width) of the keys of each bucket, the node's first."""
        log_weight = torch.where(
            self.layout.slot_mask,
            self.slot_weight.clamp_min(_TINY).log(),
            self.slot_weight.new_tensor(_HIDDEN),
        )
        return [
            functional.pad(log_weight[b.slots].view(b.n_atoms, b.width), (1, 0))
            for b in self.layout.buckets
        ]

    def through(self, layer: MessageLayer, node: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
        """One layer on all atoms.

        Parameters
        ----------
        layer : MessageLayer
        node : Tensor, shape (n_atoms, d_node)
            In the layout's order.
        message : Tensor, shape (n_slots, d_pet)
            In the first layer the table (n_species, d_pet).

        Returns
        -------
        node : Tensor, shape (n_atoms, d_node)
        edge : Tensor, shape (n_slots, d_pet)
        """
        hidden = layer.embed(self.geometry, self.neighbour, message)
        return self.transformed(layer, node, layer.compressed(hidden))

    def transformed(
        self, layer: MessageLayer, node: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The transformer of a layer, bucket by bucket."""
        buckets = self.layout.buckets
        nodes, outs = [], []
        # split, as the backward pass of slices would add full-sized tensors of zeros
        parts = zip(
            buckets,
            node.split([b.n_atoms for b in buckets]),
            tokens.split([b.n_atoms * b.width for b in buckets]),
            self.log_weights,
            strict=True,
        )
        for bucket, centres, neighbours, bias in parts:
            rows = neighbours.view(bucket.n_atoms, bucket.width, tokens.shape[1])
            n, e = layer.trans(centres, rows, bias)
            nodes.append(n)
            outs.append(e.reshape(bucket.n_atoms * bucket.width, tokens.shape[1]))
        return torch.cat(nodes), torch.cat(outs)


@dataclass(frozen=True, eq=False)
class BucketViews:
    """The views of the atoms in one bucket.

    Attributes
    ----------
    row : Tensor, shape (n_views,), int64
        Atom of each view, counted within the bucket; ascending.
    weight : Tensor, shape (n_views, 1)
        They sum to 1 over the views of an atom.
    direction : Tensor, shape (n_views * width, n_directional)
        The part of the geometry that depends on the view; 0 on padding.
    """

    row: Tensor
    weight: Tensor
    direction: Tensor

    def portions(
        self, n_atoms: int, width: int, largest: int
    ) -> Iterator[tuple[slice, BucketViews]]:
        """Runs of whole atoms with about `largest` views each, rows counted from the run's start.

        Parameters
        ----------
        n_atoms, width : int
            Of the bucket.
        largest : int
            An atom with more views is a run of its own.
        """
        if len(self.row) <= largest:
            yield slice(0, n_atoms), self
            return
        ends = torch.cumsum(torch.bincount(self.row, minlength=n_atoms), 0).tolist()
        begin = first = 0
        for atom in range(1, n_atoms + 1):
            if atom == n_atoms or ends[atom] - first > largest:
                views = slice(first, ends[atom - 1])
                slots = slice(views.start * width, views.stop * width)
                yield (
                    slice(begin, atom),
                    BucketViews(self.row[views] - begin, self.weight[views], self.direction[slots]),
                )
                begin, first = atom, views.stop


@dataclass(frozen=True, eq=False)
class FramedTokens(Tokens):
    """Tokens that every layer sees in local frames; `geometry` has zeros where these matter.

    Attributes
    ----------
    views : tuple of BucketViews
    columns : tuple of int
        Columns of the geometry that `BucketViews.direction` stands for.
    """

    views: tuple[BucketViews, ...] = ()
    columns: tuple[int, ...] = ()

    def through(self, layer: MessageLayer, node: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
        """One layer on all views of all atoms, averaged over the views; see `Tokens.through`."""
        hidden = layer.embed(self.geometry, self.neighbour, message)
        matrix = layer.geometry_matrix()[:, list(self.columns)].T  # (n_directional, d_pet)
        d = hidden.shape[1]
        buckets = self.layout.buckets
        n_tokens = sum(len(v.row) * (1 + b.width) for b, v in zip(buckets, self.views, strict=True))
        again = n_tokens > KEPT_TOKENS and torch.is_grad_enabled()
        nodes, outs = [], []
        parts = zip(
            buckets,
            self.views,
            node.split([b.n_atoms for b in buckets]),
            hidden.split([b.n_atoms * b.width for b in buckets]),
            self.log_weights,
            strict=True,
        )
        for bucket, views, centres, base, bias in parts:
            shared = base.view(bucket.n_atoms, bucket.width, d)
            largest = PORTION // (1 + bucket.width) if again else len(views.row)
            for rows, seen in views.portions(bucket.n_atoms, bucket.width, largest):
                inputs = (layer, matrix, centres[rows], shared[rows], bias[rows], seen)
                if again:
                    n, e = checkpoint(
                        seen_layer, *inputs, use_reentrant=False, preserve_rng_state=False
                    )
                else:
                    n, e = seen_layer(*inputs)
                nodes.append(n)
                outs.append(e)
        return torch.cat(nodes), torch.cat(outs)


def seen_layer(
    layer: MessageLayer, matrix: Tensor, node: Tensor, hidden: Tensor, log_weight: Tensor,
    views: BucketViews,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One layer on all views of some atoms with equal numbers of slots, averaged over the views.

    Parameters
    ----------
    layer : MessageLayer
    matrix : Tensor, shape (n_directional, d_pet)
        By which directions enter.
    node : Tensor, shape (n_atoms, d_node)
    hidden : Tensor, shape (n_atoms, width, d_pet)
        What enters the activation of the layer, but for the directions.
    log_weight : Tensor, shape (n_atoms, 1 + width)
    views : BucketViews

    Returns
    -------
    node : Tensor, shape (n_atoms, d_node)
    edge : Tensor, shape (n_atoms * width, d_pet)
    """
    n_atoms, width, d = hidden.shape
    shared = hidden.reshape(n_atoms, width * d).index_select(0, views.row)
    tokens = torch.addmm(shared.view(-1, d), views.direction, matrix)
    rows = layer.compressed(tokens).view(len(views.row), width, d)
    n, e = layer.trans(node.index_select(0, views.row), rows, log_weight[views.row])
    return averaged(n, views, n_atoms), averaged(e.flatten(1), views, n_atoms).view(-1, d)


def averaged(values: Tensor, views: BucketViews, n_atoms: int) -> Tensor:
    """Weighted averages (n_atoms, n) of the views' values (n_views, n)."""
    total = values.new_zeros(n_atoms, values.shape[1])
    return total.index_add(0, views.row, values * views.weight)


def views_of_atoms(
    edges: Edges, vectors: Tensor, n_atoms: int, cutoff: float, config: FrameConfig,
    draw: Tensor | None,
) -> Orientations:  # fmt: skip
    """All views of every atom, or the one that the uniform numbers `draw` (n_atoms,) choose.

    Frames are found in float64.
    """
    found = orientations(edges.edge_index[0], vectors.double(), n_atoms, cutoff, config)
    return found if draw is None else drawn(found, draw)


def bucket_views(
    layout: NodeEdgeLayout, vectors: Tensor, found: Orientations, *, unit: bool
) -> tuple[BucketViews, ...]:
    """Arrange views by the buckets of a layout.

    Parameters
    ----------
    layout : NodeEdgeLayout
    vectors : Tensor, shape (n_edges, 3)
        In Å, in the model's dtype.
    found : Orientations
        Of single atoms.
    unit : bool
        The geometry has unit vectors beside the vectors.
    """
    exact = torch.cat([vectors.double(), vectors.new_zeros(1, 3, dtype=torch.float64)])
    device = vectors.device
    place = torch.empty_like(layout.atom_order)
    place[layout.atom_order] = torch.arange(len(place), device=device)
    row = place[found.group]
    order = torch.argsort(row, stable=True)
    row = row[order]
    first = torch.searchsorted(
        row, torch.tensor([b.atoms.start for b in layout.buckets], device=device)
    )
    ends = [*first[1:].tolist(), len(row)]
    views = []
    for bucket, begin, end in zip(layout.buckets, first.tolist(), ends, strict=True):
        part = order[begin:end]
        local = row[begin:end] - bucket.atoms.start
        slots = layout.slot_edge[bucket.slots].view(bucket.n_atoms, bucket.width)[local]
        edge = slots.reshape(-1)
        view = part.repeat_interleave(bucket.width)
        seen = oriented(exact[edge], found.matrix[view], found.sign[view], found.kind[view])
        if unit:
            length = exact[edge].square().sum(-1, keepdim=True)
            padding = (edge == len(vectors))[:, None]
            seen = torch.cat([seen, seen / torch.where(padding, 1.0, length).sqrt()], dim=1)
        weight = found.weight[part, None].to(vectors.dtype)
        views.append(BucketViews(local, weight, seen.to(vectors.dtype)))
    return tuple(views)
