"""Layers of PET: normalization, gated feed-forward, attention over one atom's tokens.

Parameter names are those of the public PET checkpoints (format 16) without their ``backend.``
prefix, so that such weights load unchanged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pet_calc.kernels.angular_attention import angular_attention
from pet_calc.kernels.cutoff_attention import cutoff_attention
from pet_calc.kernels.fused_linear import fused_linear
from pet_calc.kernels.gathers import concatenate
from pet_calc.kernels.norms import rms_direction
from pet_calc.kernels.operation import COMPILED, use
from pet_calc.models.pet.activation import SiLU
from pet_calc.models.pet.config import PETConfig
from pet_calc.models.pet.normalization import NO_NORM, LayerNorm, Normalization


class RMSNorm(nn.Module):
    r"""Root-mean-square normalization, y = w x / sqrt(mean(x²) + eps) [arXiv:1910.07467].

    eps is the machine epsilon of the dtype, as in ``torch.nn.RMSNorm``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize along the last axis."""
        return rms_direction(x) * self.weight

    def then(self, linear: nn.Linear, x: Tensor, *, gated: bool = False) -> Tensor:
        """``linear(self(x))``, with w multiplied into the weights where that is less work."""
        if (
            x.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and x.numel() < linear.weight.numel()
        ):
            return fused_linear(self(x), linear.weight, linear.bias, gated=gated)
        weight = linear.weight * self.weight
        return fused_linear(x, weight, linear.bias, prologue="rms", gated=gated)


class GatedMLP(nn.Module):
    """Linear, gated linear unit v * sigmoid(g), Linear [GLU, arXiv:1612.08083], and the sum.

    Upstream calls this "SwiGLU", but the gate is a plain sigmoid.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(width, 2 * hidden)
        self.w_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, norm: Normalization) -> Tensor:
        """Tokens (..., width) plus what is made of them, normalized first."""
        hidden = norm.then(self.w_in, x, gated=True)
        return fused_linear(hidden, self.w_out.weight, self.w_out.bias, x)


class MLP(nn.Module):
    """Linear, SiLU, Linear, and the sum."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(width, hidden)
        self.w_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, norm: Normalization) -> Tensor:
        """Tokens (..., width) plus what is made of them, normalized first."""
        hidden = norm.then(self.w_in, x)
        return fused_linear(hidden, self.w_out.weight, self.w_out.bias, x, prologue="silu")


class Attention(nn.Module):
    """Multi-head attention over the tokens of one atom, keys weighted by the cutoff."""

    def __init__(self, width: int, heads: int, temperature: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 1.0 / (math.sqrt(width // heads) * temperature)
        self.input_linear = nn.Linear(width, 3 * width)
        self.output_linear = nn.Linear(width, width)

    def forward(
        self, tokens: Tensor, norm: Normalization, log_weight: Tensor,
        harmonics: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Normalize, and attend within each atom.

        Parameters
        ----------
        tokens : Tensor, shape (n_atoms, n_tokens, width)
        norm : Normalization
        log_weight : Tensor, shape (n_atoms, n_tokens)
            Logarithm of each key's cutoff weight.
        harmonics : Tensor, optional
            Not used.
        """
        packed = norm.then(self.input_linear, tokens)
        attended = cutoff_attention(packed, log_weight, self.heads, self.scale)
        return fused_linear(attended, self.output_linear.weight, self.output_linear.bias)


class AngularAttention(Attention):
    r"""Attention that sees the angles between the neighbors of an atom, through dot products.

    Beside what it has, each head of a query, a key and a value carries the harmonics of its
    neighbor's direction, times a strength a, b, c that the token chooses for each degree l. By the
    addition theorem the logits become

    .. math:: s \Big( q_j \cdot k_k + \sum_l a_{jl} \, b_{kl} \, P_l(\cos\theta_{jk}) \Big),

    and the values give, with the attention weights p, the moments

    .. math:: A_{jlm} = \sum_k p_{jk} \, c_{kl} \, Y_{lm}(\hat r_k),

    of which the invariants :math:`\sum_m Y_{lm}(\hat r_j) A_{jlm}` and :math:`\sum_m A_{jlm}^2`
    join the output. The node token has no direction: its harmonics are 0. All of it is invariant
    under rotations and reflections.
    """

    def __init__(self, width: int, heads: int, temperature: float, degree: int) -> None:
        super().__init__(width, heads, temperature)
        self.degree = degree
        # what the tokens ask, offer and tell, and their strengths
        self.input_linear = nn.Linear(width, 3 * width + 3 * heads * degree)
        self.invariant_linear = nn.Linear(2 * heads * degree, width, bias=False)

    def forward(
        self, tokens: Tensor, norm: Normalization, log_weight: Tensor,
        harmonics: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """As `Attention`, with the harmonics (n_atoms, n_tokens, n_harmonics) of each token."""
        assert harmonics is not None
        made = norm.then(self.input_linear, tokens)
        found = angular_attention(made, harmonics, log_weight, self.heads, self.scale, self.degree)
        # one linear map of what was attended and of the invariants
        weight = torch.cat([self.output_linear.weight, self.invariant_linear.weight], dim=1)
        return fused_linear(found, weight, self.output_linear.bias)


class TransformerLayer(nn.Module):
    """One attention layer on the node token and the edge tokens of each atom."""

    def __init__(self, config: PETConfig) -> None:
        super().__init__()
        d, d_node = config.d_pet, config.d_node
        norm = RMSNorm if config.normalization == "RMSNorm" else LayerNorm
        mlp = GatedMLP if config.activation == "GLU" else MLP
        shared = (d, config.num_heads, config.attention_temperature)
        self.attention = (
            AngularAttention(*shared, config.angular_degree)
            if config.angular_degree
            else Attention(*shared)
        )
        self.norm_attention = norm(d)
        self.norm_mlp = norm(d)
        self.mlp = mlp(d, config.d_feedforward)
        self.normalizes_last = config.transformer_type == "PostLN"
        self.wide_node = d_node != d
        if self.wide_node:
            self.center_contraction = nn.Linear(d_node, d)
            self.center_expansion = nn.Linear(d, d_node)
            self.norm_center_features = norm(d_node)
            self.center_mlp = mlp(d_node, 2 * d_node)

    def forward(
        self, node: Tensor, edge: Tensor, log_weight: Tensor, harmonics: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Update node (n_atoms, d_node) and edge tokens (n_atoms, n_neighbors, d_pet)."""
        center = self.center_contraction(node) if self.wide_node else node
        tokens = concatenate(center[:, None, :], edge, dim=1)
        if self.normalizes_last:
            attended = self.attention(tokens, NO_NORM, log_weight, harmonics)
            tokens = self.norm_attention(tokens + attended)
            tokens = self.norm_mlp(self.mlp(tokens, NO_NORM))
            center, edge = tokens.split([1, edge.shape[1]], dim=1)
        else:
            attended = self.attention(tokens, self.norm_attention, log_weight, harmonics)
            # split, as the backward pass of two slices would fill and add two tensors of zeros
            center, neighbors = attended.split([1, edge.shape[1]], dim=1)
            edge = self.mlp(edge + neighbors, self.norm_mlp)
        if self.wide_node:
            node = node + self.center_expansion(center[:, 0])
            node = self.center_mlp(node, self.norm_center_features)
        else:
            # as published: with equal widths the node token has no residual and no MLP
            node = center[:, 0]
        return node, edge


class Transformer(nn.Module):
    """The attention layers of one message-passing layer."""

    def __init__(self, config: PETConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(config) for _ in range(config.num_attention_layers)
        )

    def forward(
        self, node: Tensor, edge: Tensor, log_weight: Tensor, harmonics: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply all layers; shapes as in `TransformerLayer`."""
        for layer in self.layers:
            node, edge = layer(node, edge, log_weight, harmonics)
        return node, edge


class MessageLayer(nn.Module):
    """One message-passing layer: edge embedding, compression and its transformer."""

    def __init__(self, config: PETConfig, *, index: int, geometry_width: int) -> None:
        super().__init__()
        d, first = config.d_pet, index == 0
        self.index, self.first = index, first
        self.edge_embedder = nn.Linear(geometry_width, d)
        self.compress = nn.Sequential(
            nn.Linear((2 if first else 3) * d, d), SiLU(), nn.Linear(d, d)
        )
        if not first:
            self.neighbor_embedder = nn.Embedding(len(config.elements), d)
        self.trans = Transformer(config)
        #: Whether `pet_calc.models.pet.compiled` has compiled the transformer.
        self.compiled = False

    def geometry_matrix(self) -> Tensor:
        """Matrix (d_pet, geometry_width) by which the geometry enters `embed`."""
        linear = self.compress[0]
        assert isinstance(linear, nn.Linear)
        return linear.weight[:, : linear.out_features] @ self.edge_embedder.weight

    def embed(self, geometry: Tensor, species: Tensor, message: Tensor) -> Tensor:
        """What enters the activation of `compress`, (n_slots, d_pet).

        The first linear layer of `compress` acts on the concatenation of the embedded geometry,
        the neighbor's species (not in the first layer) and the message. A linear map of a
        concatenation is a sum, so the geometry's two linear maps are contracted into one and the
        species part becomes a table; no (n_slots, 3 d_pet) tensor is ever built.

        Parameters
        ----------
        geometry : Tensor, shape (n_slots, geometry_width)
        species : Tensor, shape (n_slots,)
            Species index of the neighbor.
        message : Tensor
            Messages (n_slots, d_pet); in the first layer, where they are the species embedding
            alone, its table (n_species, d_pet).
        """
        hidden = torch.addmm(self.table(message)[species], geometry, self.geometry_matrix().T)
        return self.received(hidden, message)

    def table(self, message: Tensor) -> Tensor:
        """What `embed` adds for each species, all biases included, (n_species, d_pet).

        `message` is used in the first layer alone.
        """
        linear = self.compress[0]
        assert isinstance(linear, nn.Linear)
        blocks = linear.weight.split(linear.out_features, dim=1)
        bias = linear.bias + blocks[0] @ self.edge_embedder.bias
        table = message if self.first else self.neighbor_embedder.weight
        return table @ blocks[1].T + bias

    def received(self, hidden: Tensor, message: Tensor) -> Tensor:
        """What `embed` returns, from geometry and species with the messages (n_slots, d_pet)."""
        if self.first:
            return hidden
        linear = self.compress[0]
        assert isinstance(linear, nn.Linear)
        return torch.addmm(hidden, message, linear.weight[:, 2 * linear.out_features :].T)

    def transformed(
        self, node: Tensor, edge: Tensor, log_weight: Tensor, harmonics: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The transformer; in its compiled form if it has one that may be used."""
        # the method itself is never the compiled form
        run = self.trans if self.compiled and use(COMPILED) else self.trans.forward
        return run(node, edge, log_weight, harmonics)

    def compressed(self, hidden: Tensor) -> Tensor:
        """Edge tokens that enter the transformer, from what `embed` returns."""
        linear = self.compress[2]
        assert isinstance(linear, nn.Linear)
        return fused_linear(hidden, linear.weight, linear.bias, prologue="silu")
