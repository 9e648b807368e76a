import sys

import matplotlib as mpl
import numpy as np
import pytest

from pet_calc.io.runs.figures import save_figure
from pet_calc.workflows.md import MDConfig, MDLog, MDSample, run_md
from pet_calc.workflows.md.figures import md_figure
from pet_calc.workflows.observables import water_structure
from pet_calc.workflows.water_box import water_box


def test_figure_shows_the_run_without_touching_matplotlib(einstein, tmp_path):
    before = dict(mpl.rcParams)
    log = run_md(einstein, MDConfig(steps=30, timestep=2.0), tmp_path).log
    water = water_structure([water_box(8, seed=s, sweeps=20) for s in range(3)])
    figure = md_figure(log, 27, title="test", target_temperature=300.0, water=water)
    path = save_figure(figure, tmp_path / "md.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == 4
    legend = " ".join(t.get_text() for t in figure.axes[3].get_legend().get_texts())
    assert "2.80(1) Å" in legend
    assert "Skinner" in legend
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not mpl.pyplot.get_fignums()


@pytest.mark.parametrize("n", [1, 2])
def test_a_very_short_run_can_be_drawn(n, tmp_path):
    log = MDLog.from_samples(
        MDSample(k, k * 0.5, -1.0, 0.1, -0.9, -0.9, 300.0, np.nan) for k in range(n)
    )
    assert save_figure(md_figure(log, 3), tmp_path / "md.png").stat().st_size > 1000
