r"""FIRE for a batch of structures, each with its own time step.

Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), in the form and with the constants of ASE's
``FIRE``: a structure moves in a batch as it would on its own. The degrees of freedom of a
structure with n atoms are its reference positions x and Y = n log F of its deformation gradient
F, as in ASE's ``FrechetCellFilter``: cell = cell_0 Fᵀ and positions = x Fᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

from pet_calc.geometry import volume
from pet_calc.geometry.cell import matrix_from_voigt

DT, DT_MAX, MAX_STEP = 0.1, 1.0, 0.2
N_MIN: Final = 5
F_INC, F_DEC, A_START, F_A = 1.1, 0.5, 0.1, 0.99


@dataclass(frozen=True, eq=False)
class FireState:
    """Where a batch is, and how fast it moves.

    Attributes
    ----------
    x, v : Tensor, shape (n_atoms, 3)
        Reference positions in Å, and their velocities.
    y, w : Tensor, shape (n_systems, 3, 3)
        n log F, and its velocity.
    cell_0 : Tensor, shape (n_systems, 3, 3)
        Cells at the start in Å, lattice vectors as rows.
    dt, a : Tensor, shape (n_systems,)
        Time step and mixing of FIRE.
    n_downhill : Tensor, shape (n_systems,), int64
        Steps since the last uphill one.
    steps : Tensor, shape (n_systems,), int64
        Steps in all.
    index : Tensor, shape (n_atoms,), int64
        The structure of each atom, non-decreasing.
    """

    x: Tensor
    v: Tensor
    y: Tensor
    w: Tensor
    cell_0: Tensor
    dt: Tensor
    a: Tensor
    n_downhill: Tensor
    steps: Tensor
    index: Tensor

    @classmethod
    def at_rest(cls, positions: Tensor, cell: Tensor) -> FireState:
        """One structure of positions (n_atoms, 3) and cell (3, 3)."""
        one = torch.ones(1, dtype=positions.dtype, device=positions.device)
        count = torch.zeros(1, dtype=torch.int64, device=positions.device)
        cell = cell.reshape(1, 3, 3)
        return cls(
            x=positions,
            v=torch.zeros_like(positions),
            y=torch.zeros_like(cell),
            w=torch.zeros_like(cell),
            cell_0=cell,
            dt=DT * one,
            a=A_START * one,
            n_downhill=count,
            steps=count,
            index=count.expand(len(positions)),
        )

    @property
    def n_systems(self) -> int:
        """Number of structures."""
        return len(self.cell_0)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms of each structure, (n_systems,), as floating-point numbers."""
        return torch.bincount(self.index, minlength=self.n_systems).to(self.x.dtype)

    def deformation(self) -> Tensor:
        """F (n_systems, 3, 3) = exp(y / n)."""
        return torch.linalg.matrix_exp(self.y / self.n_atoms[:, None, None])

    def geometry(self) -> tuple[Tensor, Tensor]:
        """Positions (n_atoms, 3) and cells (n_systems, 3, 3) in Å."""
        transposed = self.deformation().transpose(-1, -2)
        positions = torch.einsum("ab,abc->ac", self.x, transposed[self.index])
        return positions, self.cell_0 @ transposed

    def select(self, keep: Tensor) -> FireState:
        """The structures where the mask `keep` (n_systems,) is true."""
        atoms = keep[self.index]
        chosen = {
            f.name: getattr(self, f.name)[atoms if f.name in ("x", "v", "index") else keep]
            for f in fields(self)
        }
        chosen["index"] = (torch.cumsum(keep, 0) - 1)[chosen["index"]]
        return FireState(**chosen)

    @classmethod
    def concatenate(cls, first: FireState, second: FireState) -> FireState:
        """The structures of two batches."""
        joined = {
            f.name: torch.cat([getattr(first, f.name), getattr(second, f.name)])
            for f in fields(cls)
        }
        joined["index"] = torch.cat([first.index, second.index + first.n_systems])
        return cls(**joined)


def generalized_forces(
    state: FireState, forces: Tensor, stress: Tensor, pressure: float, cell: str
) -> tuple[Tensor, Tensor]:
    r"""−∂H/∂x and −∂H/∂y of the enthalpy H = E + pV.

    With the virial W = −V (σ + p), the force on log F is the adjoint of the derivative of the
    matrix exponential, L(log Fᵀ, W F⁻ᵀ), which is the upper right block of the exponential of
    [[log Fᵀ, W F⁻ᵀ], [0, log Fᵀ]] [Al-Mohy and Higham, SIAM J. Matrix Anal. Appl. 30, 1639
    (2009)].

    Parameters
    ----------
    state : FireState
    forces : Tensor, shape (n_atoms, 3)
        In eV/Å.
    stress : Tensor, shape (n_systems, 6)
        σ in eV/Å³, tension positive.
    pressure : float
        p in eV/Å³.
    cell : {"fixed", "free", "isotropic", "shape"}
        See `RelaxConfig`.

    Returns
    -------
    Tensor, shape (n_atoms, 3)
        In eV/Å.
    Tensor, shape (n_systems, 3, 3)
        In eV.
    """
    if cell == "fixed":
        return forces, torch.zeros_like(state.y)
    deformation = state.deformation()
    unit = torch.eye(3, dtype=forces.dtype, device=forces.device)
    total = matrix_from_voigt(stress) + pressure * unit
    virial = -volume(state.cell_0 @ deformation.transpose(-1, -2))[:, None, None] * total
    if cell == "isotropic":
        virial = mean_diagonal(virial) * unit
    gradient = torch.linalg.solve(deformation, virial.transpose(-1, -2)).transpose(-1, -2)
    log = (state.y / state.n_atoms[:, None, None]).transpose(-1, -2)
    blocks = torch.zeros(state.n_systems, 6, 6, dtype=forces.dtype, device=forces.device)
    blocks[:, :3, :3] = blocks[:, 3:, 3:] = log
    blocks[:, :3, 3:] = gradient
    on_log = torch.linalg.matrix_exp(blocks)[:, :3, 3:]
    if cell == "shape":
        on_log = on_log - mean_diagonal(on_log) * unit
    on_x = torch.einsum("ab,abc->ac", forces, deformation[state.index])
    return on_x, on_log / state.n_atoms[:, None, None]


def mean_diagonal(matrix: Tensor) -> Tensor:
    """A third of the trace of matrices (..., 3, 3), with shape (..., 1, 1)."""
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]


def largest_row(state: FireState, on_x: Tensor, on_y: Tensor) -> Tensor:
    """Largest norm (n_systems,) of a row of the generalized forces: ASE's criterion."""
    rows = torch.linalg.norm(on_y, dim=-1).amax(-1)
    norms = torch.linalg.norm(on_x, dim=-1)
    return rows.scatter_reduce(0, state.index, norms, "amax")


def fire_step(state: FireState, on_x: Tensor, on_y: Tensor) -> FireState:
    """One step of FIRE for every structure, from its generalized forces at `state`."""

    def inner(p: Tensor, q: Tensor, r: Tensor, s: Tensor) -> Tensor:
        over_atoms = torch.zeros_like(state.dt).index_add(0, state.index, (p * q).sum(-1))
        return over_atoms + (r * s).sum((-1, -2))

    def spread(values: Tensor) -> tuple[Tensor, Tensor]:
        return values[state.index][:, None], values[:, None, None]

    moving = state.steps > 0
    power = inner(on_x, state.v, on_y, state.w)
    downhill = moving & (power > 0)
    uphill = moving & ~downhill
    force = inner(on_x, on_x, on_y, on_y).sqrt()
    speed = inner(state.v, state.v, state.w, state.w).sqrt()
    zero = torch.zeros_like(speed)
    keep = torch.where(downhill, 1.0 - state.a, zero)
    mix = torch.where(downhill, state.a * speed / force, zero)
    (keep_x, keep_y), (mix_x, mix_y) = spread(keep), spread(mix)
    faster = downhill & (state.n_downhill > N_MIN)
    dt = torch.where(faster, (state.dt * F_INC).clamp(max=DT_MAX), state.dt)
    dt = torch.where(uphill, dt * F_DEC, dt)
    a = torch.where(faster, state.a * F_A, state.a)
    a = torch.where(uphill, torch.full_like(a, A_START), a)
    (dt_x, dt_y) = spread(dt)
    v = keep_x * state.v + mix_x * on_x + dt_x * on_x
    w = keep_y * state.w + mix_y * on_y + dt_y * on_y
    length = dt * inner(v, v, w, w).sqrt()
    shorten = torch.where(length > MAX_STEP, MAX_STEP / length, torch.ones_like(length))
    (move_x, move_y) = spread(dt * shorten)
    return replace(
        state,
        x=state.x + move_x * v,
        y=state.y + move_y * w,
        v=v,
        w=w,
        dt=dt,
        a=a,
        n_downhill=torch.where(downhill, state.n_downhill + 1, torch.zeros_like(state.n_downhill)),
        steps=state.steps + 1,
    )
