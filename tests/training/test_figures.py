"""Figures of a training show what they are given."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch

from pet_calc.models.dimers import Dimer
from pet_calc.models.pet.zbl import covalent_radius
from pet_calc.training.core.figures import learning_figure, reliability_figure
from pet_calc.training.potentials.dimer_figure import closest_approach, dimer_figure
from pet_calc.training.potentials.loop import PANELS

SHARES = torch.linspace(0.3, 1.6, 66).double()

HEAD = (
    "step,stage,learning_rate,loss,train_forces_rmse,validation_energy_mae,"
    "validation_forces_rmse,validation_stress_rmse\n"
)


def test_learning_curve_shows_errors_and_stages(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(
        HEAD + "10,0,1e-3,1.0,90,5,100,nan\n20,0,1e-3,0.5,60,3,70,nan\n30,1,1e-3,1,50,2,60,nan\n"
    )
    figure = learning_figure(log, PANELS, title="a run")
    forces, energy = figure.axes
    assert [list(line.get_ydata()) for line in forces.lines[:2]] == [[90, 60, 50], [100, 70, 60]]
    assert list(energy.lines[0].get_xdata()) == [10, 20, 30]
    assert list(forces.lines[2].get_xdata()) == [30, 30]  # where the second stage begins
    figure.savefig(tmp_path / "learning.png")
    assert (tmp_path / "learning.png").stat().st_size > 5000


def test_a_curve_of_one_point_is_visible(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(HEAD + "12,0,1e-3,1.0,90,5,100,nan\n")
    figure = learning_figure(log, PANELS)
    for axes in figure.axes:
        assert axes.lines[0].get_marker() == "."
        assert axes.get_xlim()[0] == 0


def test_an_empty_log_is_refused(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(HEAD)
    with pytest.raises(ValueError, match="nothing has been validated"):
        learning_figure(log, PANELS)


def test_reliability_counts_errors_within_their_uncertainty(tmp_path):
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2.0, 4000)
    figure = reliability_figure({"test": (sigma * rng.normal(size=4000), sigma)})
    _, share = figure.axes
    normal, found = (np.asarray(line.get_ydata()) for line in share.lines)
    assert np.abs(normal - found).max() < 0.03
    tight = reliability_figure({"test": (2 * sigma * rng.normal(size=4000), sigma)})
    assert np.abs(np.asarray(tight.axes[1].lines[1].get_ydata()) - normal).max() > 0.1


def test_pairs_of_atoms_are_drawn_as_curves_or_as_a_map(tmp_path):
    """Few elements have a panel each; of many, the distance at 10 eV is shown."""
    repulsive = [
        Dimer((a, b), SHARES * bond(a, b), 4.0 / SHARES**4 - 4.0, 16.0 / SHARES**5)
        for a, b in combinations_with_replacement(range(1, 19), 2)
    ]
    few = [d for d in repulsive if max(d.numbers) < 3]
    panels = dimer_figure(few, title="two").axes
    assert [p.get_title(loc="left") for p in panels[:2]] == ["H-X", "He-X"]
    assert [len(p.lines) for p in panels[:2]] == [3, 3]  # two curves, and the floor
    figure = dimer_figure(repulsive, title="many")
    (image,) = figure.axes[0].images
    # 4/s⁴ > 10 + 4/1.6⁴ at s < 0.779 of the bond
    assert np.asarray(image.get_array()) == pytest.approx(0.78, abs=0.03)
    figure.savefig(tmp_path / "dimers.png")
    assert closest_approach(repulsive[0], 1e9) != closest_approach(repulsive[0], 1e9)


def bond(a, b):
    return covalent_radius(a) + covalent_radius(b)
