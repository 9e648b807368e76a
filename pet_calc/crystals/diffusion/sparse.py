"""UniMatSparse: the denoiser restricted to the occupied slots of M.

When the composition is given, every null slot of M is known, and only the occupied slots and the
two of the lattice have to be denoised. They are the tokens of a transformer; a token's place in
M, that is row, column and slot, is its embedding. The denoised values are the entries of M
themselves, so that schedule, sampler and codec are those of the full tensor. (Restriction to the
occupied slots after UniMat's successor: S. Yang et al., GenMS, NeurIPS 2024; blocks after
W. Peebles and S. Xie, ICCV 2023.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pet_calc.crystals.diffusion.periodic_table import N_COLUMNS, N_ROWS, PLACES
from pet_calc.crystals.diffusion.schedule import alpha_sigma
from pet_calc.crystals.diffusion.unimat import Crystal, cell_parameters, slots_of, wrapped

#: Tokens of the lattice, before those of the atoms: lengths and angles.
N_LATTICE = 2


@dataclass(frozen=True)
class SparseConfig:
    """Size of a `UniMatSparse`.

    Attributes
    ----------
    width, heads, layers : int
        Of the transformer.
    slots : int
        Most atoms of one element.
    harmonics : int
        Sines and cosines of 2πk x, k = 1 ... harmonics, that stand beside the noisy coordinates.
    high, low : float
        Log-SNR of the cosine schedule at its ends.
    form : {1, 2}
        2: attention turned by the locations (`rotation_of`), the noisy lattice in the condition of
        all blocks, and ε from a predicted velocity; better at the same cost. 1: without them.
    """

    width: int = 128
    heads: int = 4
    layers: int = 4
    slots: int = 20
    harmonics: int = 4
    high: float = 10.0
    low: float = -10.0
    form: int = 1

    def __post_init__(self) -> None:
        if self.form not in (1, 2):
            raise ValueError(f"`form` must be 1 or 2, got {self.form}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"`width` must be even and divisible by `heads`, got {self.width}, {self.heads}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields, for ``config.json``."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Slots:
    """The occupied slots of a batch of crystals.

    Attributes
    ----------
    numbers : (B, N) int64 Tensor
        Atomic numbers, 0 for padding.
    slots : (B, N) int64 Tensor
        Slot of each atom.
    """

    numbers: Tensor
    slots: Tensor

    @property
    def atoms(self) -> Tensor:
        """(B, N) bool: which are atoms and not padding."""
        return self.numbers > 0

    @property
    def mask(self) -> Tensor:
        """(B, 2 + N) bool: which tokens exist."""
        atoms = self.atoms
        return torch.cat([atoms.new_ones(len(atoms), N_LATTICE), atoms], 1)

    def to(self, device: torch.device) -> Slots:
        """The same on another device."""
        return Slots(self.numbers.to(device), self.slots.to(device))

    @classmethod
    def of(cls, compositions: Sequence[NDArray[np.int64]]) -> Slots:
        """Slots of compositions, each an array of atomic numbers."""
        longest = max(len(c) for c in compositions)
        numbers = torch.zeros(len(compositions), longest, dtype=torch.int64)
        slots = torch.zeros_like(numbers)
        for k, c in enumerate(compositions):
            ordered = np.sort(np.asarray(c, dtype=np.int64))
            numbers[k, : len(c)] = torch.from_numpy(ordered)
            slots[k, : len(c)] = torch.from_numpy(slots_of(ordered))
        return cls(numbers, slots)


def to_diffusion(entries: Tensor) -> Tensor:
    """Entries of M as they are diffused, 2 M − 1: [−1, 1] in the cell, −3 at the null location."""
    return 2.0 * entries - 1.0


def from_diffusion(values: Tensor) -> Tensor:
    """Inverse of `to_diffusion`."""
    return 0.5 * (values + 1.0)


def crystals_from(tokens: Tensor, occupied: Slots) -> list[Crystal | Exception]:
    """Crystals of clean entries (B, 2 + N, 3); an error where an entry is no crystal's."""
    found: list[Crystal | Exception] = []
    for values, numbers in zip(
        tokens.double().cpu().numpy(), occupied.numbers.cpu().numpy(), strict=True
    ):
        kept = numbers[numbers > 0]
        cellpar = cell_parameters(values[0], values[1], len(kept))
        fractional = wrapped(values[N_LATTICE : N_LATTICE + len(kept)])
        try:
            found.append(Crystal(kept, fractional, cellpar))
        except ValueError as error:
            found.append(error)
    return found


#: Cosine and sine of an angle for every token and half of a head's channels.
Rotation = tuple[Tensor, Tensor]


def rotation_of(locations: Tensor, channels: int) -> Rotation:
    """Angles 2πk x of tokens at fractional coordinates x, (B, 1, T, channels / 2) each.

    Queries and keys turned by them (`rotated`) meet in a product that depends on the difference
    of two locations only, and not on the image of an atom (rotary embedding, J. Su et al., 2021,
    with the reciprocal lattice in place of frequencies). Tokens of the lattice are not turned.

    Parameters
    ----------
    locations : (B, N, 3) Tensor
        As diffused, twice the fractional coordinates less one.
    channels : int
        Of a head, at least 6. Axis x, y, z alternate, k rises; what is left over is not turned.
    """
    harmonics = channels // 6
    k = torch.arange(1, harmonics + 1, device=locations.device, dtype=locations.dtype)
    angle = (math.pi * locations[:, :, None] * k[:, None]).flatten(2)
    angle = nn.functional.pad(angle, (0, channels // 2 - 3 * harmonics, N_LATTICE, 0))[:, None]
    return angle.cos(), angle.sin()


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Channels c and c + half of (B, heads, T, channels), turned as pairs."""
    first, second = x.chunk(2, -1)
    cos, sin = rotation
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class Block(nn.Module):
    """Transformer block whose norms are scaled, shifted and gated by a condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Tensor, condition: Tensor, mask: Tensor, rotation: Rotation | None = None
    ) -> Tensor:
        """X (B, T, d), condition (B, d), mask (B, 1, 1, T) -> (B, T, d)."""
        s1, b1, g1, s2, b2, g2 = self.modulation(condition)[:, None].chunk(6, -1)
        batch, tokens, width = x.shape
        h = self.norm(x) * (1 + s1) + b1
        q, k, v = self.qkv(h).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotated(q, rotation), rotated(k, rotation)
        h = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + g1 * self.out(h.transpose(1, 2).reshape(batch, tokens, width))
        return x + g2 * self.feed(self.norm(x) * (1 + s2) + b2)


class UniMatSparse(nn.Module):
    """ε-predicting transformer over the occupied slots of M; see this module."""

    places: Tensor
    frequencies: Tensor

    def __init__(self, config: SparseConfig) -> None:
        super().__init__()
        d = config.width
        self.config = config
        self.row = nn.Embedding(N_ROWS, d)
        self.column = nn.Embedding(N_COLUMNS, d)
        self.cell = nn.Embedding(N_ROWS * N_COLUMNS, d)
        self.slot = nn.Embedding(config.slots, d)
        #: stands for row, column and cell of every atom where the condition is dropped
        self.anonymous = nn.Parameter(torch.zeros(d))
        self.count = nn.Linear(1, d)
        self.location = nn.Linear(3 + 6 * config.harmonics, d)
        self.lengths = nn.Linear(3, d)
        self.angles = nn.Linear(3, d)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.size = nn.Linear(2, d)
        if config.form > 1:
            self.cell_shape = nn.Linear(6, d)
        self.blocks = nn.ModuleList(Block(d, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        self.to_location = nn.Linear(d, 3)
        self.to_lengths = nn.Linear(d, 3)
        self.to_angles = nn.Linear(d, 3)
        self.register_buffer("places", torch.from_numpy(PLACES), persistent=False)
        frequencies = torch.exp(torch.linspace(math.log(0.1), math.log(20.0), d // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(
        self, z: Tensor, logsnr: Tensor, occupied: Slots, dropped: Tensor | None = None
    ) -> Tensor:
        """Predict the noise.

        Parameters
        ----------
        z : (B, 2 + N, 3) Tensor
            Noisy entries, as diffused.
        logsnr : (B,) Tensor
        occupied : Slots
        dropped : (B,) bool Tensor, optional
            Where the composition is hidden; the number of atoms is still known.

        Returns
        -------
        (B, 2 + N, 3) Tensor
            ε; without meaning at padding.
        """
        numbers = occupied.numbers
        places = self.places[numbers]
        row, column = places[..., 0], places[..., 1]
        element = self.row(row) + self.column(column) + self.cell(row * N_COLUMNS + column)
        same = (numbers[:, :, None] == numbers[:, None, :]).sum(-1, keepdim=True)
        address = element + self.slot(occupied.slots) + self.count(same.to(z).log())
        if dropped is not None:
            address = torch.where(dropped[:, None, None], self.anonymous, address)
        real = occupied.atoms[..., None]
        n_atoms = real.sum(1).to(z)
        pooled = (address * real).sum(1) / n_atoms
        angle = logsnr[:, None] * self.frequencies
        time = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        size = self.size(torch.cat([n_atoms.log(), n_atoms / self.config.slots], -1))
        condition = time + size + pooled
        if self.config.form > 1:
            condition = condition + self.cell_shape(z[:, :N_LATTICE].flatten(1))
        condition = nn.functional.silu(condition)

        k = torch.arange(1, self.config.harmonics + 1, device=z.device, dtype=z.dtype)
        locations = z[:, N_LATTICE:]
        phase = (math.pi * locations[..., None] * k).flatten(-2)
        features = torch.cat([locations, phase.sin(), phase.cos()], -1)
        lattice = torch.stack([self.lengths(z[:, 0]), self.angles(z[:, 1])], 1)
        x = torch.cat([lattice, self.location(features) + address], 1)
        mask = occupied.mask[:, None, None, :]
        rotation = None
        if self.config.form > 1:
            rotation = rotation_of(locations, self.config.width // self.config.heads)
        for block in self.blocks:
            x = block(x, condition, mask, rotation)
        x = self.norm(x)
        out = torch.cat(
            [
                self.to_lengths(x[:, :1]),
                self.to_angles(x[:, 1:2]),
                self.to_location(x[:, N_LATTICE:]),
            ],
            1,
        )
        if self.config.form == 1:
            return out
        # ε = σ z + α v: v is of order one at every noise level, where ε or x alone are lost
        alpha, sigma = alpha_sigma(logsnr[:, None, None])
        return sigma * z + alpha * out
