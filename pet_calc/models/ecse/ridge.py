"""Ridge regression of tensor heads, and the choice of its strength by cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor


def fitted_columns(design: Tensor, values: Tensor, ridge: float) -> Tensor:
    r"""Weights (n_columns,) of a head by ridge regression.

    .. math:: \min_W |A W - y|^2 + \rho \, \bar{s} \, |W|^2

    with the mean \bar{s} of the diagonal of AᵀA.

    Parameters
    ----------
    design : Tensor, shape (n_systems, dim, n_columns)
        From `TensorEnsemble.design`.
    values : Tensor, shape (n_systems, dim)
        Components to be met.
    ridge : float
        ρ, positive.
    """
    if not ridge > 0:
        raise ValueError(f"`ridge` must be positive, got {ridge}")
    a, y = design.reshape(-1, design.shape[2]), values.reshape(-1)
    scale = (ridge * a.square().sum() / a.shape[1]).sqrt()
    a = torch.cat([a, scale * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)])
    y = torch.cat([y, y.new_zeros(a.shape[1])])
    found: Tensor = torch.linalg.lstsq(a, y[:, None], driver="gels").solution[:, 0]
    return found


def cross_validated_ridge(design: Tensor, values: Tensor, folds: int = 5) -> float:
    """The ρ of `fitted_columns` with the least squared error on systems that are left out.

    Of 19 values from 1e-10 to 0.1; every `folds`-th system is left out in turn.

    Parameters
    ----------
    design : Tensor, shape (n_systems, dim, n_columns)
    values : Tensor, shape (n_systems, dim)
    folds : int

    Raises
    ------
    ValueError
        If there are fewer systems than folds.
    """
    if len(design) < folds:
        raise ValueError(
            f"{folds} parts of the systems are left out in turn, but there are {len(design)}; "
            f"give `ridge`"
        )
    ridges = torch.logspace(-10, -1, 19, dtype=torch.float64)
    errors = torch.zeros(len(ridges), dtype=torch.float64)
    part = torch.arange(len(design), device=design.device) % folds
    for k in range(folds):
        a, y = design[part != k].flatten(0, 1), values[part != k].flatten()
        u, s, v = torch.linalg.svd(a, full_matrices=False)
        spectrum = s[:, None] / (s.square()[:, None] + ridges.to(s) * s.square().sum() / a.shape[1])
        weights = v.T @ (spectrum * (u.T @ y)[:, None])
        gap = design[part == k].flatten(0, 1) @ weights - values[part == k].flatten()[:, None]
        errors += gap.square().sum(0).cpu()
    return float(ridges[errors.argmin()])
