"""UniMatUNet: the denoiser of the full tensor M, a U-Net over (L, 9, 18).

The L axis plays the time of a video, rows and columns of the periodic table play space (S. Yang et
al., ICLR 2024, after the video U-Net of J. Ho et al., 2022): convolutions 1x3x3 over the table and
3x1x1 along L, each with a residual connection; attention over the table at the coarse levels and
along L at all; the table is halved between levels, L is kept. The composition enters as a second
tensor of M's shape concatenated to the noisy M, and its absence as zeros.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pet_calc.crystals.diffusion.unimat import NULL_BELOW


@dataclass(frozen=True)
class UNetConfig:
    """Size of a `UniMatUNet`: base width, its multiples by level, and blocks in each."""

    base: int = 32
    multiples: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2
    head_width: int = 32
    groups: int = 8
    high: float = 20.0
    low: float = -20.0

    def __post_init__(self) -> None:
        if self.base % self.groups or self.base % 2:
            raise ValueError(f"`base` must be even and divisible by {self.groups}, got {self.base}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for ``config.json``."""
        return asdict(self)


def composition_tensor(m: Tensor) -> Tensor:
    """Condition of the shape of M: 1 at occupied entries, −1 at null ones (the lattice too)."""
    occupied = (m.mean(-1, keepdim=True) > NULL_BELOW).to(m)
    return (2.0 * occupied - 1.0).expand_as(m)


class Residual(nn.Module):
    """Two factorized convolutions with the time embedding between them."""

    def __init__(self, inner: int, outer: int, time: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(groups, inner),
            nn.SiLU(),
            nn.Conv3d(inner, outer, (1, 3, 3), padding=(0, 1, 1)),
        )
        self.time = nn.Linear(time, 2 * outer)
        self.norm = nn.GroupNorm(groups, outer)
        self.second = nn.Conv3d(outer, outer, (3, 1, 1), padding=(1, 0, 0))
        nn.init.zeros_(self.second.weight)
        self.skip = nn.Identity() if inner == outer else nn.Conv3d(inner, outer, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """X (B, C, L, H, W), time (B, d)."""
        scale, shift = self.time(time)[:, :, None, None, None].chunk(2, 1)
        h = self.norm(self.first(x)) * (1 + scale) + shift
        return self.skip(x) + self.second(nn.functional.silu(h))


class AxisAttention(nn.Module):
    """Self-attention over the table (``"table"``) or along L (``"slots"``)."""

    def __init__(self, width: int, head_width: int, groups: int, axis: str) -> None:
        super().__init__()
        self.axis = axis
        self.heads = max(1, width // head_width)
        self.norm = nn.GroupNorm(groups, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, L, H, W) -> the same shape."""
        b, c, l, h, w = x.shape
        y = self.norm(x)
        if self.axis == "table":
            y = y.permute(0, 2, 3, 4, 1).reshape(b * l, h * w, c)
        else:
            y = y.permute(0, 3, 4, 2, 1).reshape(b * h * w, l, c)
        q, k, v = self.qkv(y).view(*y.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        y = self.out(y.transpose(1, 2).reshape(y.shape[0], -1, c))
        if self.axis == "table":
            return x + y.view(b, l, h, w, c).permute(0, 4, 1, 2, 3)
        return x + y.view(b, h, w, l, c).permute(0, 4, 3, 1, 2)


class Level(nn.Module):
    """A residual block and the attentions after it."""

    def __init__(self, inner: int, outer: int, time: int, config: UNetConfig, table: bool) -> None:
        super().__init__()
        self.residual = Residual(inner, outer, time, config.groups)
        axes = ("table", "slots") if table else ("slots",)
        self.attention = nn.ModuleList(
            AxisAttention(outer, config.head_width, config.groups, axis) for axis in axes
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """X (B, C, L, H, W), time (B, d)."""
        x = self.residual(x, time)
        for attention in self.attention:
            x = attention(x)
        return x


class UniMatUNet(nn.Module):
    """ε-predicting U-Net over M; see this module."""

    frequencies: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.base * k for k in config.multiples]
        time = 4 * config.base
        self.time = nn.Sequential(nn.Linear(config.base, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv3d(6, widths[0], (1, 3, 3), padding=(0, 1, 1))
        # which element a place stands for: convolutions alone know only neighborhoods
        self.place = nn.Parameter(0.02 * torch.randn(widths[0], 1, 9, 18))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for k, w in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(Level(width, w, time, config, table=k > 0))
                width = w
                skips.append(width)
        self.middle = Level(width, width, time, config, table=True)
        for k, w in reversed(list(enumerate(widths))):
            for _ in range(config.blocks):
                self.up.append(Level(width + skips.pop(), w, time, config, table=k > 0))
                width = w
        self.last = nn.Sequential(
            nn.GroupNorm(config.groups, width),
            nn.SiLU(),
            nn.Conv3d(width, 3, (1, 3, 3), padding=(0, 1, 1)),
        )
        frequencies = torch.exp(torch.linspace(math.log(0.1), math.log(20.0), config.base // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, z: Tensor, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Parameters
        ----------
        z : (B, L, 9, 18, 3) Tensor
            Noisy M, as diffused.
        logsnr : (B,) Tensor
        condition : (B, L, 9, 18, 3) Tensor, optional
            `composition_tensor`; zeros for samples whose composition is to be free.
        """
        condition = torch.zeros_like(z) if condition is None else condition
        angle = logsnr[:, None] * self.frequencies
        time = nn.functional.silu(self.time(torch.cat([angle.sin(), angle.cos()], -1)))
        x = self.first(torch.cat([z, condition], -1).permute(0, 4, 1, 2, 3)) + self.place
        kept, tables = [x], []
        for k, level in enumerate(self.down):
            if k and k % self.config.blocks == 0:
                tables.append(x.shape[-2:])
                x = nn.functional.avg_pool3d(x, (1, 2, 2), ceil_mode=True)
            x = level(x, time)
            kept.append(x)
        x = self.middle(x, time)
        for k, level in enumerate(self.up):
            if k and k % self.config.blocks == 0:
                x = nn.functional.interpolate(x, size=(x.shape[2], *tables.pop()))
            x = level(torch.cat([x, kept.pop()], 1), time)
        return self.last(x).permute(0, 2, 3, 4, 1)
