import numpy as np
import pytest
from scipy.signal import lfilter

from pet_calc.workflows.statistics import block_mean, block_variance, is_drifting


def autoregressive(n, phi, n_series, seed=0):
    """AR(1) series x_t = phi x_{t-1} + noise, and the exact error of a series' mean."""
    noise = np.random.default_rng(seed).normal(size=(n_series, n + 1000))
    series = lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 1000:]
    variance = 1.0 / (1.0 - phi**2)
    k = np.arange(1, n)
    error = np.sqrt(variance / n * (1.0 + 2.0 * ((1.0 - k / n) * phi**k).sum()))
    return series, variance, error


@pytest.mark.parametrize(("n", "phi"), [(300, 0.0), (500, 0.5), (1000, 0.9), (4096, 0.98)])
def test_block_error_of_an_autoregressive_series(n, phi):
    series, variance, exact = autoregressive(n, phi, 300)
    errors = np.array([block_mean(x).error for x in series])
    assert np.sqrt((errors**2).mean()) == pytest.approx(exact, rel=0.1)
    assert series.mean(axis=1).std() == pytest.approx(exact, rel=0.15)
    naive = np.sqrt(variance / n)
    if phi > 0:
        assert naive < 0.65 * exact  # what an error without blocking would be


def test_mean_and_its_error_cover_the_truth():
    series, _, _ = autoregressive(1000, 0.9, 400, seed=1)
    off = [abs(m.value) / m.error for m in map(block_mean, series)]
    assert 0.60 < np.mean(np.array(off) < 1) < 0.76  # 68 % for a normal distribution


def test_variance_of_a_correlated_series():
    series, variance, _ = autoregressive(400, 0.95, 600, seed=2)
    found = [block_variance(x) for x in series]
    mean = np.mean([f.value for f in found])
    plain = np.mean([x.var() for x in series])
    assert abs(mean / variance - 1) < 0.03
    assert plain / variance < 0.93  # the textbook estimate is too low
    series, _, _ = autoregressive(2000, 0.9, 300, seed=3)
    values, errors = np.array([block_variance(x) for x in series]).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_a_short_series_has_no_error(n):
    assert np.isnan(block_mean(np.arange(n) * 1.0).error)


def test_a_constant_has_no_scatter():
    assert block_mean(np.full(20, 3.0)) == (3.0, 0.0)


def test_a_trend_is_noticed_and_noise_is_not():
    series, _, _ = autoregressive(1000, 0.95, 200, seed=4)
    assert np.mean([is_drifting(x) for x in series]) < 0.02
    relaxing = series + 20.0 * np.exp(-np.arange(1000) / 300.0)
    assert np.mean([is_drifting(x) for x in relaxing]) > 0.95
    assert not is_drifting(np.ones(50))
    assert not is_drifting(np.arange(2.0))
