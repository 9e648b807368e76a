"""Fit of an uncertainty model to a trained potential, and how well uncertainties fit errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pet_calc.errors import DatasetError
from pet_calc.geometry import edge_vectors
from pet_calc.models import evaluate
from pet_calc.models.derivatives import sum_per_system
from pet_calc.models.pet import PET
from pet_calc.models.pet.uncertainty import LLPR, fit_llpr
from pet_calc.training.potentials.config import UncertaintyConfig
from pet_calc.training.potentials.data import Batch


@dataclass(frozen=True)
class CalibrationError:
    r"""Errors of energies e against their uncertainties σ; for a normal distribution of e / σ.

    Attributes
    ----------
    count : int
        Structures with an energy.
    rmse, mean_sigma : float
        Root mean square of e, and mean of σ, per atom in meV.
    z_rms : float
        Root mean square of e / σ; 1 if calibrated, more if σ is too small.
    within_one, within_two : float
        Share of structures with \|e\| < σ and \|e\| < 2 σ; 0.683 and 0.954 if calibrated.
    nll : float
        Mean negative logarithm of the likelihood of e in eV.
    crps : float
        Mean continuous ranked probability score per atom in meV; the lower, the better.
    rank_correlation : float
        Spearman's, of \|e\| and σ per atom; NaN for fewer than three structures.
    """

    count: int
    rmse: float
    mean_sigma: float
    z_rms: float
    within_one: float
    within_two: float
    nll: float
    crps: float
    rank_correlation: float


def fit_uncertainty(
    model: PET,
    training: Sequence[Batch],
    validation: Sequence[Batch],
    config: UncertaintyConfig,
    seed: int = 0,
) -> LLPR:
    """An uncertainty model (LLPR) of a trained potential.

    Parameters
    ----------
    model : PET
    training : sequence of Batch
        Frames whose features give the covariance; labels are not used.
    validation : sequence of Batch
        Frames whose energy errors give the scale.
    config : UncertaintyConfig
    seed : int
        Of the ensemble.

    Raises
    ------
    DatasetError
        If no validation frame has an energy.
    """
    errors, held_out, _ = energy_errors(model, validation)
    if len(errors) == 0:
        raise DatasetError(
            "uncertainties are calibrated on the errors of energies, but no validation frame has "
            "an energy"
        )
    return fit_llpr(
        torch.cat([summed_features(model, f) for f in training]),
        torch.cat([f.n_atoms for f in training]),
        held_out,
        errors,
        calibration=config.calibration,
        members=config.members,
        seed=seed,
    )


def calibration_error(model: PET, llpr: LLPR, frames: Iterable[Batch]) -> CalibrationError:
    """How the uncertainties of energies compare with their errors on labeled frames.

    Raises
    ------
    DatasetError
        If no frame has an energy.
    """
    return compare(*errors_and_sigmas(model, llpr, frames))


def errors_and_sigmas(
    model: PET, llpr: LLPR, frames: Iterable[Batch]
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors and uncertainties of energies (n,) in eV and numbers of atoms, of labeled frames.

    Raises
    ------
    DatasetError
        If no frame has an energy.
    """
    errors, features, counts = energy_errors(model, frames)
    if len(errors) == 0:
        raise DatasetError("the calibration of uncertainties needs frames with energies")
    return errors, llpr.sigma(features), counts


def compare(errors: Tensor, sigmas: Tensor, counts: Tensor) -> CalibrationError:
    """Statistics of errors and uncertainties (n,) in eV of structures with `counts` atoms."""
    z = errors / sigmas
    normal = torch.distributions.Normal(z.new_zeros(()), z.new_ones(()))
    density = normal.log_prob(z)
    score = sigmas * (z * (2 * normal.cdf(z) - 1) + 2 * density.exp() - 1 / math.sqrt(math.pi))
    e, s = errors.abs() / counts, sigmas / counts
    ranks = torch.stack([x.argsort().argsort().double() for x in (e, s)])
    return CalibrationError(
        count=len(z),
        rmse=1e3 * e.square().mean().sqrt().item(),
        mean_sigma=1e3 * s.mean().item(),
        z_rms=z.square().mean().sqrt().item(),
        within_one=(z.abs() < 1).double().mean().item(),
        within_two=(z.abs() < 2).double().mean().item(),
        nll=(sigmas.log() - density).mean().item(),
        crps=1e3 * (score / counts).mean().item(),
        rank_correlation=torch.corrcoef(ranks)[0, 1].item() if len(z) > 2 else math.nan,
    )


def energy_errors(model: PET, frames: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Errors (n,) in eV, features (n, n_features) and atoms (n,) of the frames with an energy."""
    errors, features, counts = [], [], []
    for frame in frames:
        present = torch.isfinite(frame.energy)
        if not bool(present.any()):
            continue
        found = evaluate(model, frame.system, frame.edges, forces=False, stress=False)
        errors.append((found.energy - frame.energy)[present])
        features.append(summed_features(model, frame)[present])
        counts.append(frame.n_atoms[present])
    if not errors:
        return torch.zeros(0), torch.zeros(0, 0), torch.zeros(0)
    return torch.cat(errors), torch.cat(features), torch.cat(counts)


def summed_features(model: PET, frame: Batch) -> Tensor:
    """Sums of the last-layer features over each system, (n_systems, n_features), float64."""
    with torch.no_grad():
        system, edges = frame.system, frame.edges
        vectors = edge_vectors(system, edges).to(model.dtype)
        tokens = model.features(system, edges, vectors)
        return sum_per_system(model.last_layer_features(tokens).double(), system)
