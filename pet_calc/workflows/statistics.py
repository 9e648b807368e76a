"""Means of correlated series with their errors, and slopes: every error bar comes from here."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: A series shorter than this is too short to estimate its correlation.
FEWEST_SAMPLES = 8


class Estimate(NamedTuple):
    """A value and its standard error; the error is NaN where the data cannot tell."""

    value: float
    error: float

    def __str__(self) -> str:
        """``304 ± 4``: digits as far as the error allows; ``–`` for no data."""
        if not math.isfinite(self.value):
            return "–"
        if not math.isfinite(self.error) or self.error <= 0.0:
            return f"{self.value:.3g}"
        first = math.floor(math.log10(self.error))
        # an error that begins with 1 keeps a second digit
        decimals = max(0, 1 - first if self.error < 2 * 10.0**first else -first)
        return f"{self.value:.{decimals}f} ± {self.error:.{decimals}f}"

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.error * abs(factor))


def block_mean(values: Array, n_blocks: int | None = None) -> Estimate:
    r"""Mean of a correlated series with its standard error, by blocking.

    Neighboring samples are averaged in pairs, again and again (Flyvbjerg and Petersen, J. Chem.
    Phys. 91, 461 (1989)). The naive error :math:`e_k = \sqrt{c_k / (n_k - 1)}` of level k, with
    :math:`c_k` the variance of the :math:`n_k` blocks of :math:`B_k = 2^k` samples, grows until
    blocks are independent. The level taken is the first with

    .. math:: B_k^3 > 2\,n_0\,(e_k / e_0)^4

    the optimum between the remaining correlation and the noise of few blocks (Lee et al., Phys.
    Rev. E 83, 066706 (2011)); the largest error of all levels where a series is too short for it,
    which is then a lower bound.

    Parameters
    ----------
    values : array, shape (n_samples,)
    n_blocks : int, optional
        Use this fixed number of blocks instead. Samples left over at the start, fewer than
        `n_blocks`, are dropped from the error only.

    Returns
    -------
    Estimate
        With an error of NaN for fewer than 8 samples, or fewer than `n_blocks`.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return Estimate(math.nan, math.nan)
    mean = float(values.mean())
    if n_blocks is None:
        return Estimate(mean, _blocking_error(values))
    length = len(values) // n_blocks
    if length == 0:
        return Estimate(mean, math.nan)
    blocks = values[-n_blocks * length :].reshape(n_blocks, length).mean(axis=1)
    return Estimate(mean, float(standard_error(blocks)))


def _blocking_error(values: Array) -> float:
    if len(values) < FEWEST_SAMPLES:
        return math.nan
    n, block, errors = len(values), 1, []
    blocks = values - values.mean()
    while len(blocks) >= 2:
        errors.append(float(blocks.std() / np.sqrt(len(blocks) - 1)))
        if errors[0] == 0.0 or block**3 > 2 * n * (errors[-1] / errors[0]) ** 4:
            return errors[-1]
        blocks = blocks[len(blocks) % 2 :]
        blocks = 0.5 * (blocks[::2] + blocks[1::2])
        block *= 2
    return max(errors)


def block_variance(values: Array) -> Estimate:
    r"""Variance of a correlated series with its standard error.

    .. math:: \sigma^2 = \overline{(x - \bar x)^2} + \mathrm{Var}(\bar x)

    the second term, from `block_mean`, being the bias of the first. The error is the blocking
    error of the series :math:`(x - \bar x)^2`.
    """
    mean = block_mean(values)
    square = block_mean((np.asarray(values) - mean.value) ** 2)
    bias = mean.error**2 if math.isfinite(mean.error) else 0.0
    return Estimate(square.value + bias, square.error)


def standard_error(blocks: Array) -> Array:
    """Standard error of the mean over the first axis of independent blocks; NaN for one block."""
    n = len(blocks)
    if n < 2:
        return np.full(np.shape(blocks)[1:], np.nan)
    return np.asarray(np.std(blocks, axis=0, ddof=1) / np.sqrt(n))


def drift(time: Array, energy: Array, n_blocks: int = 20) -> Estimate:
    r"""Slope of a conserved energy, by least squares over block means.

    .. math:: b = \frac{\sum_k (t_k - \bar t)\,(E_k - \bar E)}{\sum_k (t_k - \bar t)^2}, \qquad
       \sigma_b^2 = \frac{\sum_k r_k^2}{(n - 2) \sum_k (t_k - \bar t)^2}

    with :math:`r_k` the residuals of the block means :math:`E_k`. Samples of one series are
    correlated, so that the textbook error over samples would be several times too small; the block
    means are not, once a block spans a few vibrations.

    Parameters
    ----------
    time : array, shape (n_samples,)
        Any unit.
    energy : array, shape (n_samples,)
        Any unit; the result is in energy per time.
    n_blocks : int
        At most this many blocks; each holds at least one sample.
    """
    n = min(n_blocks, len(time))
    if n < 3:
        return Estimate(float("nan"), float("nan"))
    length = len(time) // n
    t = time[-n * length :].reshape(n, length).mean(axis=1)
    e = energy[-n * length :].reshape(n, length).mean(axis=1)
    t, e = t - t.mean(), e - e.mean()
    spread = float(t @ t)
    slope = float(t @ e) / spread
    residual = e - slope * t
    return Estimate(slope, float(np.sqrt(residual @ residual / ((n - 2) * spread))))


def is_drifting(values: Array) -> bool:
    """Whether a series has a trend: it is not from equilibrium, and its mean depends on the start.

    The slope over block means is more than five of its errors, and changes the value by more over
    the series than it fluctuates around the trend.
    """
    time = np.arange(len(values), dtype=np.float64)
    slope = drift(time, np.asarray(values, dtype=np.float64))
    if not math.isfinite(slope.error) or abs(slope.value) <= 5.0 * slope.error:
        return False
    scatter = np.std(values - slope.value * time)
    return bool(abs(slope.value) * len(values) > scatter)
