"""Figures of a training show what they are given."""

import numpy as np
import pytest

from pet_calc.training.figures import learning_figure, reliability_figure

HEAD = (
    "step,stage,learning_rate,loss,train_forces_rmse,validation_energy_mae,"
    "validation_forces_rmse,validation_stress_rmse\n"
)


def test_learning_curve_shows_errors_and_stages(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(
        HEAD + "10,0,1e-3,1.0,90,5,100,nan\n20,0,1e-3,0.5,60,3,70,nan\n30,1,1e-3,1,50,2,60,nan\n"
    )
    figure = learning_figure(log, title="a run")
    forces, energy = figure.axes
    assert [list(line.get_ydata()) for line in forces.lines[:2]] == [[90, 60, 50], [100, 70, 60]]
    assert list(energy.lines[0].get_xdata()) == [10, 20, 30]
    assert list(forces.lines[2].get_xdata()) == [30, 30]  # where the second stage begins
    figure.savefig(tmp_path / "learning.png")
    assert (tmp_path / "learning.png").stat().st_size > 5000


def test_an_empty_log_is_refused(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(HEAD)
    with pytest.raises(ValueError, match="nothing has been validated"):
        learning_figure(log)


def test_reliability_counts_errors_within_their_uncertainty(tmp_path):
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2.0, 4000)
    figure = reliability_figure({"test": (sigma * rng.normal(size=4000), sigma)})
    _, share = figure.axes
    normal, found = (np.asarray(line.get_ydata()) for line in share.lines)
    assert np.abs(normal - found).max() < 0.03
    tight = reliability_figure({"test": (2 * sigma * rng.normal(size=4000), sigma)})
    assert np.abs(np.asarray(tight.axes[1].lines[1].get_ydata()) - normal).max() > 0.1
