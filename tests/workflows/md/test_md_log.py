import numpy as np
import pytest

from pet_calc.workflows.md.log import MDLog
from pet_calc.workflows.statistics import Estimate, block_mean, drift


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (304.12, 4.2, "304 ± 4"),
        (2.7461, 0.0234, "2.75 ± 0.02"),
        (-0.0371, 0.0121, "-0.037 ± 0.012"),
        (300.0, 14.0, "300 ± 14"),
        (1.5, float("nan"), "1.5"),
        (float("nan"), 1.0, "–"),
    ],
)
def test_estimate_is_printed_to_its_error(value, error, text):
    assert str(Estimate(value, error)) == text


def test_block_error_covers_a_correlated_series():
    rng = np.random.default_rng(4)
    means, errors, naive = [], [], []
    for _ in range(200):
        x = np.convolve(rng.normal(size=2019), np.ones(20), mode="valid")
        estimate = block_mean(x, 20)
        means.append(estimate.value)
        errors.append(estimate.error)
        naive.append(x.std() / np.sqrt(len(x)))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.2)
    assert np.mean(naive) < 0.5 * np.std(means)  # the textbook error is the control


def test_drift_error_covers_a_correlated_series():
    rng = np.random.default_rng(5)
    time = np.arange(2000) * 0.5
    slopes = [
        drift(time, np.convolve(rng.normal(size=2019), np.ones(20), mode="valid"))
        for _ in range(300)
    ]
    assert np.mean([s.error for s in slopes]) == pytest.approx(
        np.std([s.value for s in slopes]), rel=0.2
    )


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_samples_give_no_drift(n):
    assert np.isnan(drift(np.arange(n) * 1.0, np.zeros(n)).value)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must start with the columns"):
        MDLog.read(path)
