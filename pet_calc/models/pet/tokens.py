r"""The tokens of atoms as the layers of PET see them: as given, or in local frames.

With frames, layer g of the environment of atom i is evaluated in every view k of it
(`pet_calc.models.ecse.orientations`), and node and edge tokens leave it as averages,

.. math::

    h_i = \sum_k \hat w_{ik} h_i^{(k)}, \qquad e_{ij} = \sum_k \hat w_{ik} e_{ij}^{(k)},

which are invariant, so that messages between atoms whose frames differ make sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional

from pet_calc.geometry import Edges, NodeEdgeLayout
from pet_calc.kernels.ecse_frames import (
    FrameConfig,
    directions,
    embedded,
    framed_embedding,
    fused_views,
    view_average,
)
from pet_calc.kernels.gathers import concatenate
from pet_calc.models.ecse.orientations import Orientations, drawn, orientations
from pet_calc.models.pet.layers import MessageLayer
from pet_calc.models.recomputation import recomputed

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
    neighbor : Tensor, shape (n_slots,)
        Species of the neighbor.
    slot_weight : Tensor, shape (n_slots,)
        Cutoff weight, 0 on padding.
    rows : int or None
        Slots that are computed at a time, if activations are `recomputed`; else None.
    embedded : tuple of Tensor
        Where one kernel made it of the vectors: the part of `MessageLayer.embed` in each layer,
        (n_slots, d_pet), that depends on geometry and species; the geometry is empty then.
    harmonics : Tensor or None, shape (n_slots, n_harmonics)
        Of the direction of each edge, where the attention sees angles.
    """

    layout: NodeEdgeLayout
    geometry: Tensor
    neighbor: Tensor
    slot_weight: Tensor
    rows: int | None = None
    embedded: tuple[Tensor, ...] = field(default=(), kw_only=True)
    harmonics: Tensor | None = field(default=None, kw_only=True)

    @cached_property
    def log_weights(self) -> list[Tensor]:
        """Logarithmic weights (n_atoms, 1 + width) of the keys of each bucket, the node's first."""
        # filled, as a tensor of one number would have to be copied to a GPU
        log_weight = self.slot_weight.clamp_min(_TINY).log()
        log_weight = log_weight.masked_fill(~self.layout.slot_mask, _HIDDEN)
        return [
            functional.pad(log_weight[b.slots].view(b.n_atoms, b.width), (1, 0))
            for b in self.layout.buckets
        ]

    @cached_property
    def directions(self) -> list[tuple[Tensor, ...]]:
        """Harmonics (n_atoms, 1 + width, n_harmonics) of the tokens of each bucket, if any."""
        if self.harmonics is None:
            return [() for _ in self.layout.buckets]
        n = self.harmonics.shape[1]
        rows = [self.harmonics[b.slots].view(b.n_atoms, b.width, n) for b in self.layout.buckets]
        return [(functional.pad(r, (0, 0, 1, 0)),) for r in rows]

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
        if self.rows is not None:
            return self.through_in_parts(layer, node, message)
        if self.embedded:
            hidden = layer.received(self.embedded[layer.index], message)
        else:
            hidden = layer.embed(self.geometry, self.neighbor, message)
        found = []
        # split, as the backward pass of slices would add full-sized tensors of zeros
        for centers, tokens, bias, seen in zip(
            node.split([b.n_atoms for b in self.layout.buckets]),
            layer.compressed(hidden).split(self.slots),
            self.log_weights,
            self.directions,
            strict=True,
        ):
            n, e = transformed(layer, centers, tokens, bias, *seen)
            found.append((n, e))
        return joined(found)

    @property
    def slots(self) -> list[int]:
        """Number of slots of each bucket."""
        return [b.n_atoms * b.width for b in self.layout.buckets]

    def messages(self, layer: MessageLayer, message: Tensor) -> list[Tensor]:
        """What the edges of each bucket receive; the table of species stays whole."""
        return [message] * len(self.slots) if layer.first else list(message.split(self.slots))

    def through_in_parts(
        self, layer: MessageLayer, node: Tensor, message: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `through`, with activations of one bucket at a time."""

        def one(
            centers: Tensor, geometry: Tensor, neighbor: Tensor, received: Tensor, bias: Tensor,
            *seen: Tensor,
        ) -> tuple[Tensor, Tensor]:  # fmt: skip
            tokens = layer.compressed(layer.embed(geometry, neighbor, received))
            return transformed(layer, centers, tokens, bias, *seen)

        parts = zip(
            node.split([b.n_atoms for b in self.layout.buckets]),
            self.geometry.split(self.slots),
            self.neighbor.split(self.slots),
            self.messages(layer, message),
            self.log_weights,
            self.directions,
            strict=True,
        )
        trained = tuple(layer.parameters())
        found = [recomputed(one, *part, *seen, parameters=trained) for *part, seen in parts]
        return joined(found)


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Node and edge tokens of all buckets behind each other."""
    nodes, edges = zip(*parts, strict=True)
    return concatenate(*nodes, dim=0), concatenate(*edges, dim=0)


def transformed(
    layer: MessageLayer, node: Tensor, tokens: Tensor, log_weight: Tensor,
    harmonics: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The transformer of a layer on one bucket; node and edge tokens (n_slots, d_pet) alike."""
    edge = tokens.view(*log_weight[:, 1:].shape, tokens.shape[1])
    n, e = layer.transformed(node, edge, log_weight, harmonics)
    return n, e.reshape(tokens.shape)


@dataclass(frozen=True, eq=False)
class BucketViews:
    """The views of the atoms in one bucket.

    Attributes
    ----------
    row : Tensor, shape (n_views,), int64
        Atom of each view, counted within the bucket; ascending.
    weight : Tensor, shape (n_views, 1)
        They sum to 1 over the views of an atom.
    seen : tuple of Tensor
        The part of the geometry that depends on the view, (n_views * width, n_directional), 0 on
        padding; or what the fused kernels turn into it: the vectors (n_edges + 1, 3), the edge of
        each slot (n_atoms, width), and matrix, sign and kind of each view.
    """

    row: Tensor
    weight: Tensor
    seen: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class FramedTokens(Tokens):
    """Tokens that every layer sees in local frames; `geometry` has zeros where these matter.

    Attributes
    ----------
    views : tuple of BucketViews
    columns : tuple of int
        Columns of the geometry that `BucketViews.seen` stands for.
    """

    views: tuple[BucketViews, ...] = ()
    columns: tuple[int, ...] = ()

    def through(self, layer: MessageLayer, node: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
        """One layer on all views of all atoms, averaged over the views; see `Tokens.through`."""
        if self.rows is not None:
            return self.through_in_parts(layer, node, message)
        hidden = layer.embed(self.geometry, self.neighbor, message).split(self.slots)
        return self.seen_in_all_views(layer, node, hidden)

    def through_in_parts(
        self, layer: MessageLayer, node: Tensor, message: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `through`, with activations of the views of one bucket at a time."""
        parts = zip(
            self.geometry.split(self.slots),
            self.neighbor.split(self.slots),
            self.messages(layer, message),
            strict=True,
        )
        trained = tuple(layer.parameters())
        hidden = [recomputed(layer.embed, *part, parameters=trained) for part in parts]
        return self.seen_in_all_views(layer, node, hidden)

    def seen_in_all_views(
        self, layer: MessageLayer, node: Tensor, hidden: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """From what the views of each bucket's edges share, to averages over the views."""
        matrix = layer.geometry_matrix()[:, list(self.columns)].T  # (n_directional, d_pet)

        def one(
            centers: Tensor, base: Tensor, bias: Tensor, row: Tensor, weight: Tensor,
            matrix: Tensor, *seen: Tensor,
        ) -> tuple[Tensor, Tensor]:  # fmt: skip
            n_atoms, d = len(centers), base.shape[1]
            if len(seen) == 1:
                hidden = embedded(base, row, seen[0], matrix)
            else:
                vectors, slot_edge, frames, sign, kind = seen
                hidden = framed_embedding(base, matrix, vectors, slot_edge, row, frames, sign, kind)
            n, e = transformed(
                layer, centers.index_select(0, row), layer.compressed(hidden), bias[row]
            )
            edge = view_average(e.view(len(row), -1), row, weight, n_atoms)
            return view_average(n, row, weight, n_atoms), edge.view(-1, d)

        found = []
        for views, *part in zip(
            self.views,
            node.split([b.n_atoms for b in self.layout.buckets]),
            hidden,
            self.log_weights,
            strict=True,
        ):
            inputs = (*part, views.row, views.weight, matrix, *views.seen)
            if self.rows is None:
                found.append(one(*inputs))
            else:
                found.append(recomputed(one, *inputs, parameters=layer.parameters()))
        return joined(found)


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
    layout: NodeEdgeLayout, vectors: Tensor, found: Orientations, *, unit: bool, lean: bool = False
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
    lean : bool
        Compute activations again in the backward pass.
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
    fused = fused_views(vectors, max((b.width for b in layout.buckets), default=0))
    turn = partial(directions, unit=unit)
    views = []
    for bucket, begin, end in zip(layout.buckets, first.tolist(), ends, strict=True):
        part = order[begin:end]
        local = row[begin:end] - bucket.atoms.start
        slots = layout.slot_edge[bucket.slots].view(bucket.n_atoms, bucket.width)
        weight = found.weight[part, None].to(vectors.dtype)
        which = (found.matrix[part], found.sign[part], found.kind[part])
        if fused:
            views.append(BucketViews(local, weight, (exact, slots, *which)))
            continue
        inputs = (exact, slots, local, *which)
        seen = recomputed(turn, *inputs) if lean else turn(*inputs)
        views.append(BucketViews(local, weight, (seen.to(vectors.dtype),)))
    return tuple(views)
