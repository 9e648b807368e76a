"""The test of an ensemble accepts exact samples and rejects wrong ones; then the integrators."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ase import units

from pet_calc.workflows.md.sampling import (
    check_kinetic,
    check_two_pressures,
    check_two_temperatures,
)

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "ensembles.py"


def test_exact_kinetic_energies_pass_and_rescaled_ones_fail():
    rng = np.random.default_rng(0)
    kT = units.kB * 300.0
    exact = kT * rng.gamma(shape=45.0, size=20_000)
    assert all(check.sigmas < 3 for check in check_kinetic(exact, 90, 300.0))
    # the right mean with half of the fluctuation, as from Berendsen's thermostat
    narrow = exact.mean() + 0.5 * (exact - exact.mean())
    mean, deviation = check_kinetic(narrow, 90, 300.0)
    assert mean.sigmas < 4
    assert deviation.sigmas > 20
    assert check_kinetic(exact, 93, 300.0)[0].sigmas > 10  # three degrees of freedom too many


def test_pairs_of_exact_distributions_pass_and_wrong_widths_fail():
    rng = np.random.default_rng(1)
    # harmonic potential energy of 90 degrees of freedom: a gamma distribution as well
    cold, hot = (units.kB * t * rng.gamma(45.0, size=20_000) for t in (300.0, 330.0))
    check = check_two_temperatures((cold, hot), (300.0, 330.0))
    assert check.sigmas < 3
    assert check.error < 0.03
    narrow = tuple(x.mean() + 0.8 * (x - x.mean()) for x in (cold, hot))
    assert check_two_temperatures(narrow, (300.0, 330.0)).sigmas > 5
    # a Gaussian volume: the pressure moves its mean by variance / kT
    variance, kT = 400.0, units.kB * 300.0
    shift = 0.001 * variance / kT
    small, large = (rng.normal(m, 20.0, size=20_000) for m in (1000.0 - shift, 1000.0))
    assert check_two_pressures((large, small), (0.0, 0.001), 300.0).sigmas < 3


def test_error_covers_correlated_series():
    rng = np.random.default_rng(2)
    values = []
    for _ in range(60):
        noise = rng.normal(size=(2, 4029))
        series = [np.convolve(x, np.ones(30) / np.sqrt(30), mode="valid") for x in noise]
        values.append(check_two_pressures((series[0], series[1] - 1.0), (0.0, 1.0), 1 / units.kB))
    spread = np.std([check.value for check in values])
    assert np.mean([check.error for check in values]) == pytest.approx(spread, rel=0.3)


def test_what_cannot_be_compared_is_refused():
    x = np.random.default_rng(3).normal(size=1000)
    with pytest.raises(ValueError, match="must differ"):
        check_two_temperatures((x, x), (300.0, 300.0))
    with pytest.raises(ValueError, match="do not overlap"):
        check_two_temperatures((x, x + 100.0), (300.0, 330.0))
    with pytest.raises(ValueError, match="at least 100 samples"):
        check_two_temperatures((x[:50], x), (300.0, 330.0))


def benchmark():
    if not BENCHMARK.is_file():
        pytest.skip("needs the checkout")
    spec = importlib.util.spec_from_file_location("ensembles", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.physics
@pytest.mark.parametrize(
    ("ensemble", "swaps"),
    [
        *((e, False) for e in ("nvt-langevin", "nvt-bussi", "nvt-nhc")),
        *((e, False) for e in ("npt-mtk-iso", "npt-mtk-full", "npt-scr")),
        ("nvt-langevin", True),
    ],
)
def test_integrators_sample_their_ensemble(ensemble, swaps):
    for check in benchmark().check_ensemble(ensemble, 20_000, swaps=swaps):
        assert check.sigmas < 3.0, str(check)


@pytest.mark.slow
@pytest.mark.physics
def test_berendsen_is_rejected():
    checks = benchmark().check_ensemble("berendsen", 10_000)
    assert max(check.sigmas for check in checks) > 10.0
