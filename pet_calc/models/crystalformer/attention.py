"""One block of Crystalformer: attention over periodic images, then a feed-forward network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pet_calc.kernels.lattice_attention import lattice_attention
from pet_calc.kernels.norms import rms_direction
from pet_calc.models.crystalformer.config import CrystalformerConfig
from pet_calc.models.crystalformer.images import Images
from pet_calc.models.crystalformer.reciprocal import Waves, wave_attention


def width_factor(x: Tensor, config: CrystalformerConfig) -> Tensor:
    r"""ρ(x), positive, above b, with ρ(0) = 1 and ρ'(0) = a.

    .. math:: \rho = b + (1 - b)\,\mathrm{softplus}\left(\frac{a x}{(1 - b)(1 - 1/e)}
                       + \ln(e - 1)\right) \qquad\text{or}\qquad
              \rho = 1 + (1 - b)\,\mathrm{ELU}\left(\frac{a x}{1 - b}\right)

    The second is published ("elu=0.1"); the first is the published "softplus" with a slope.
    """
    a, b = config.gaussian_slope, config.gaussian_floor
    if config.width_function == "elu":
        return (1 - b) * functional.elu(a / (1 - b) * x) + 1.0
    slope = a / ((1 - b) * (1 - math.exp(-1)))
    u = slope * x + math.log(math.e - 1)
    # linear where the rest is below rounding, and not at 20, where the second derivative jumps;
    # that of logaddexp overflows in single precision
    return b + (1 - b) * functional.softplus(u, threshold=40.0)


class LatticeAttention(nn.Module):
    """Infinitely connected attention, multi-headed, in real and reciprocal space.

    Parameters
    ----------
    config : CrystalformerConfig
    layer : int
        Which layer this is; decides the domain of the heads.

    Attributes
    ----------
    gauss_scale : Tensor, shape (2,)
        Scale and shift that standardize what the queries say of the widths; see
        `Crystalformer.freeze_widths`.
    """

    gauss_scale: Tensor
    neutral_falloff: Tensor

    def __init__(self, config: CrystalformerConfig, layer: int) -> None:
        super().__init__()
        d, h = config.d_model, config.num_heads
        self.config = config
        self.real_heads = config.real_heads[layer]
        self.projection = nn.Linear(d, 3 * d)
        self.width_weight = nn.Parameter(torch.randn(h, d // h) / 4)
        shape = (self.real_heads, d // h, config.num_encodings)
        self.value_encoding = nn.Parameter(torch.empty(shape)) if 0 not in shape else None
        self.output = nn.Linear(d, d)
        self.register_buffer("gauss_scale", torch.tensor([1.0, 0.0]))
        falloff = 0.5 / torch.tensor(config.head_widths, dtype=torch.float64).square()
        self.register_buffer("neutral_falloff", falloff, persistent=False)

    def forward(self, x: Tensor, images: Images, basis: Tensor, waves: list[Waves]) -> Tensor:
        """What each atom attends to, (n_atoms, d_model).

        Parameters
        ----------
        x : Tensor, shape (n_atoms, d_model)
            In the order of the images' layout.
        images : Images
        basis : Tensor, shape (n_slots, num_encodings)
            Of the images' distances and directions.
        waves : list of Waves
            Of each system; used by heads in reciprocal space.
        """
        config, r = self.config, self.real_heads
        n, h = len(x), config.num_heads
        q, k, v = self.projection(x).view(n, 3, h, -1).unbind(1)
        scale = q.shape[-1] ** -0.5
        rho = width_factor(self.standardized(q), config)
        parts = []
        if r:
            y, z = lattice_attention(
                q[:, :r], k[:, :r], v[:, :r],
                rho[:, :r] * self.neutral_falloff[:r].to(x.dtype),
                images.distances.square(), images.log_weight, basis, images.layout, scale,
            )  # fmt: skip
            if self.value_encoding is not None:
                encoded = torch.bmm(z.transpose(0, 1), self.value_encoding.transpose(1, 2))
                y = y + encoded.transpose(0, 1)
            parts.append(y)
        if r < h:
            variance = config.reciprocal_width**2 * rho[:, r:]
            parts.append(wave_attention(q[:, r:], k[:, r:], v[:, r:], variance, waves, scale))
        return self.output(torch.cat(parts, dim=1).reshape(n, -1))

    def raw_widths(self, query: Tensor) -> Tensor:
        """What the queries (n_atoms, heads, width) say of the widths, (n_atoms, heads)."""
        return (query * self.width_weight).sum(-1)

    def standardized(self, query: Tensor) -> Tensor:
        """The same, shifted and scaled by frozen numbers."""
        scale, shift = self.gauss_scale
        return (self.raw_widths(query) + shift) * scale

    @torch.no_grad()
    def freeze(self, x: Tensor) -> None:
        """Set `gauss_scale` so that the widths asked for by features x have mean 0, variance 1."""
        q = self.projection(x).view(len(x), 3, self.config.num_heads, -1)[:, 0]
        raw = self.raw_widths(q)
        if raw.numel() > 1 and float(raw.std()) > 0:
            self.gauss_scale.copy_(torch.stack([1 / raw.std(), -raw.mean()]))


class RootMeanSquare(nn.Module):
    """Division by the root mean square over the features, with learned gains."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized features (n_atoms, width)."""
        return self.weight * rms_direction(x)


class Block(nn.Module):
    """x + attention(x), then x + feed-forward(x); normalization as configured."""

    def __init__(self, config: CrystalformerConfig, layer: int) -> None:
        super().__init__()
        d = config.d_model
        self.attention = LatticeAttention(config, layer)
        self.linear1 = nn.Linear(d, config.d_feedforward)
        self.linear2 = nn.Linear(config.d_feedforward, d)
        self.activation = nn.SiLU() if config.activation == "SiLU" else nn.ReLU()
        normalized = config.normalization == "RMSNorm"
        self.norm1 = RootMeanSquare(d) if normalized else nn.Identity()
        self.norm2 = RootMeanSquare(d) if normalized else nn.Identity()

    def forward(self, x: Tensor, images: Images, basis: Tensor, waves: list[Waves]) -> Tensor:
        """Features (n_atoms, d_model) of the next layer; arguments as of `LatticeAttention`."""
        x = x + self.attention(self.norm1(x), images, basis, waves)
        return x + self.linear2(self.activation(self.linear1(self.norm2(x))))

    @torch.no_grad()
    def initialize(self, num_layers: int) -> None:
        """Xavier; without normalization scaled down as T-Fixup does [Huang et al., ICML 2020]."""
        a = self.attention
        d = a.output.in_features
        down = 1.0 if isinstance(self.norm1, RootMeanSquare) else 0.67 * num_layers**-0.25
        for part in a.projection.weight.split(d):
            nn.init.xavier_uniform_(part)
        a.projection.weight[2 * d :] *= down
        for linear in (a.output, self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
            linear.weight *= down
        for bias in (a.projection.bias, a.output.bias, self.linear1.bias, self.linear2.bias):
            nn.init.zeros_(bias)
        if a.value_encoding is not None:
            gain = a.value_encoding.shape[-1] ** -0.5 if down < 1 else 1.0
            for head in a.value_encoding:
                nn.init.xavier_uniform_(head, gain=gain)
