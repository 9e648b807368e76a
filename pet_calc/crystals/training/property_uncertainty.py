r"""Uncertainty and domain of a property model, fitted to crystals that were not trained on.

Errors e have heavy tails: the exponents c of σ = exp(c · x) (`pet_calc.crystals.models.ensemble`)
are those of the largest likelihood of a Laplace distribution of standard deviation σ,

.. math:: \min_c \sum \sqrt2\, |e| \exp(-c \cdot x) + c \cdot x

which is convex in c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from pet_calc.crystals.models import PropertyEnsemble, PropertyModel
from pet_calc.crystals.training.property_data import CrystalSet, batches, gather
from pet_calc.io.data.crystals import LabeledCrystal

#: The farthest of a hundred held-out crystals counts as unlike.
QUANTILE: Final = 0.99
#: ln(V / sum of the volumes of atoms) of a known crystal lies within that of the training crystals,
#: but for this share of them at each end, and this much beyond.
_OUTSIDE: Final = 0.005
_MARGIN: Final = 0.25
_RIDGE: Final = 1e-3


@torch.no_grad()
def answers(model: PropertyEnsemble, data: CrystalSet, size: int = 256) -> tuple[Tensor, Tensor]:
    """Values (n, n_targets) and what their errors depend on (n, n_targets, 4) of a set."""
    model.eval()
    energies = data.energies
    found = [
        model(gather(data, rows)[0], None if energies is None else energies[rows])
        for rows in batches(data, size)
    ]
    return torch.cat([a.values for a in found]), torch.cat([a.factors for a in found])


@torch.no_grad()
def fit_distances(network: PropertyModel, data: CrystalSet) -> None:
    """Set what distances of features are measured by: their covariance on the training set."""
    network.eval()
    parts = [network.last_features(gather(data, r)[0]).double() for r in batches(data, 256)]
    features = torch.cat(parts)
    covariance = features.T @ features / len(features)
    ridge = 1e-6 * covariance.diagonal().mean()
    network.cholesky.copy_(torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance))))


def fit_potential_weight(model: PropertyEnsemble, validation: CrystalSet) -> None:
    """Set the weight of the potential's estimate to that of the least mean absolute error."""
    term = model.config.potential
    if term is None:
        return
    k = [t.name for t in model.config.targets].index(term.target)
    assert validation.energies is not None
    model.potential_weight.fill_(0.0)
    wanted = validation.targets[:, k]
    known = torch.isfinite(wanted)
    network = (answers(model, validation)[0][:, k] - wanted)[known]
    potential = (validation.energies - wanted)[known]
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    errors = torch.stack([((1 - w) * network + w * potential).abs().mean() for w in grid])
    model.potential_weight.fill_(float(grid[errors.argmin()]))


def fit_uncertainty(model: PropertyEnsemble, validation: CrystalSet) -> None:
    """Fit the exponents of the standard deviation, and the limit of the distance."""
    values, factors = answers(model, validation)
    distances = factors[:, 0, 1].exp()
    model.distance_limit.fill_(float(torch.quantile(distances, QUANTILE)))
    for k, t in enumerate(model.config.targets):
        has = torch.isfinite(validation.targets[:, k])
        if bool(has.any()) and t.kind != "class":
            errors = (values[has, k] - validation.targets[has, k]).abs()
            fitted = exponents(errors.numpy(), factors[has, k].numpy())
            model.exponents[k] = torch.from_numpy(fitted)


def errors_and_deviations(
    model: PropertyEnsemble, data: CrystalSet
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Errors and standard deviations (n,) of each target that is no class, as it is learnt."""
    values, factors = answers(model, data)
    deviations = torch.einsum("stf,tf->st", factors, model.exponents).exp()
    found = {}
    for k, t in enumerate(model.config.targets):
        has = torch.isfinite(data.targets[:, k])
        if bool(has.any()) and t.kind != "class":
            errors = values[has, k] - data.targets[has, k]
            found[t.name] = errors.numpy(), deviations[has, k].numpy()
    return found


def exponents(errors: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """C of the module's text; 0 for a factor that is the same for all.

    Parameters
    ----------
    errors : array, shape (n,)
        Not negative.
    factors : array, shape (n, n_factors)
        x, of which the first is 1.
    """
    varied = factors.std(0) > 1e-9
    varied[0] = True
    x = factors[:, varied]
    shift, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
    shift[0], scale[0] = 0.0, 1.0
    x = (x - shift) / scale
    sizes = np.sqrt(2) * errors

    def negative_likelihood(c: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        y = x @ c
        weights = sizes * np.exp(-y)
        # a ridge on the exponents keeps factors that say the same from canceling each other
        value = weights.mean() + y.mean() + _RIDGE * np.square(c[1:]).sum()
        gradient = (x * (1 - weights)[:, None]).mean(0)
        gradient[1:] += 2 * _RIDGE * c[1:]
        return value, gradient

    start = np.zeros(x.shape[1])
    start[0] = np.log(max(sizes.mean(), 1e-300))
    c = minimize(negative_likelihood, start, jac=True, method="L-BFGS-B").x
    found = np.zeros(factors.shape[1])
    found[varied] = c / scale
    found[0] -= (c * shift / scale).sum()
    return found


def fit_volumes(model: PropertyEnsemble, crystals: Sequence[LabeledCrystal]) -> None:
    """Fit the volume of an atom of each element, and how far crystals are from such a sum."""
    elements = model.config.elements
    counts = np.array([[np.sum(c.atoms.numbers == z) for z in elements] for c in crystals], float)
    volumes = np.array([c.atoms.cell.volume for c in crystals])
    fitted = atomic_volumes(counts, volumes)
    swelling = np.log(volumes / (counts @ fitted))
    low, high = np.quantile(swelling, [_OUTSIDE, 1 - _OUTSIDE])
    model.volumes.copy_(torch.from_numpy(fitted))
    model.volume_limits.copy_(torch.tensor([low - _MARGIN, high + _MARGIN]))


def atomic_volumes(
    counts: NDArray[np.float64], volumes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Volumes of atoms (n_elements,) in Å³ whose sums are those of crystals, as far as possible.

    By Gauss-Newton steps on the squares of ln(V / sum), where a crystal off by more than a factor
    of two counts as one that is off by two. An element that does not occur has the mean volume.

    Parameters
    ----------
    counts : array, shape (n_crystals, n_elements)
    volumes : array, shape (n_crystals,)
        In Å³.
    """
    known = counts.any(0)
    x = counts[:, known]
    found = np.full(x.shape[1], np.median(volumes / counts.sum(1)))
    for _ in range(60):
        sums = x @ found
        slopes = x * (found / sums[:, None])
        residuals = np.log(volumes / sums).clip(-np.log(2), np.log(2))
        # a tenth of a crystal in favor of no change: rare elements are not thrown about
        matrix = slopes.T @ slopes + 0.1 * np.eye(len(found))
        found = found * np.exp(np.linalg.solve(matrix, slopes.T @ residuals).clip(-0.5, 0.5))
    fitted = np.full(counts.shape[1], float((volumes / counts.sum(1)).mean()))
    fitted[known] = found
    return fitted
