from typing import get_args

import matplotlib as mpl
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from pet_calc.io.runs.figures import save_figure
from pet_calc.units import K_B
from pet_calc.workflows.observables import OBSERVABLES, analyze, default_observables
from pet_calc.workflows.observables.config import OBSERVABLE_NAMES, AnalysisConfig, Crystal
from pet_calc.workflows.observables.figures import PANELS, analysis_figure
from pet_calc.workflows.observables.order import LATTICES
from pet_calc.workflows.water_box import water_box


def shaken(atoms, n_frames=120, scale=0.03, temperature=300.0, cell_noise=0.0, seed=0):
    """Frames with noise on positions and cell, momenta, and energies that match the noise."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        frame = atoms.copy()
        noise = rng.normal(scale=scale, size=frame.positions.shape)
        frame.positions += noise
        frame.set_cell(frame.cell.array * (1 + cell_noise * rng.normal()), scale_atoms=True)
        frame.set_momenta(
            rng.normal(size=noise.shape) * np.sqrt(frame.get_masses()[:, None] * K_B * temperature)
        )
        energy = 0.5 * K_B * temperature * float((noise**2).sum()) / scale**2
        frame.calc = SinglePointCalculator(frame, energy=energy)
        frames.append(frame)
    return frames


ALLOY = bulk("Cu", cubic=True) * (2, 2, 2)
ALLOY.numbers[::4] = 79


def test_water_gets_what_water_needs():
    frames = shaken(water_box(16, seed=1, sweeps=20))
    result = analyze(frames, AnalysisConfig(interval=2.0))
    assert default_observables(frames) == [
        *("temperature", "density", "rdf", "hydrogen-bonds", "diffusion", "vdos"),
        "heat-capacity",
    ]
    assert set(result.tables) == {"rdf", "hydrogen-bonds", "diffusion", "vdos"}
    assert result.value("density").value == pytest.approx(1.0)
    assert abs(result.value("temperature").value - 300) < 5
    assert 2 < result.value("hydrogen bonds per molecule").value < 5
    # noise about sites: no diffusion, said with the reason
    assert "no diffusion" in result.skipped["D of O"]
    heat = result.value("heat capacity C_V")
    assert abs(heat.value - 3.0) < 4 * heat.error
    with pytest.raises(KeyError, match="no quantity 'D of O'"):
        result.value("D of O")


def test_alloy_gets_what_alloys_need():
    result = analyze(shaken(ALLOY, cell_noise=0.002), AnalysisConfig(interval=5.0))
    assert {"rdf", "order", "diffusion", "vdos", "density", "lattice"} == set(result.tables)
    a = result.value("lattice constant")
    assert abs(a.value - 3.61) < max(4 * a.error, 0.002)
    assert result.value("Warren-Cowley Cu-Au, shell 1").value == pytest.approx(-1 / 3)
    u2 = result.value("⟨u²⟩ of Cu")
    assert u2.value == pytest.approx(3 * 0.03**2, rel=0.1)
    assert np.isfinite(result.value("volumetric thermal expansion").value)
    assert result.tables["order"]["pair"][:3] == ["Cu-Cu", "Cu-Au", "Au-Au"]


def test_a_run_out_of_equilibrium_is_marked():
    config = AnalysisConfig(observables=("density", "lattice"))
    frames = shaken(ALLOY, cell_noise=0.0005)
    notes = {q.name: q.note for q in analyze(frames, config).quantities}
    assert not any("DRIFTING" in note for note in notes.values())
    for k, frame in enumerate(frames):
        frame.set_cell(frame.cell.array * (1 + 1e-4 * k), scale_atoms=True)
    notes = {q.name: q.note for q in analyze(frames, config).quantities}
    assert all("DRIFTING" in note for note in notes.values())


def test_without_an_interval_there_is_no_dynamics():
    frames = shaken(ALLOY)
    result = analyze(frames)
    assert "time between frames" in result.skipped["vdos"]
    assert "order" in result.tables
    with pytest.raises(ValueError, match="vdos: the time between frames is not known"):
        analyze(frames, AnalysisConfig(observables=("vdos",)))


def test_constant_energy_is_no_heat_bath():
    frames = shaken(ALLOY)
    for frame in frames:
        total = 10.0 - frame.get_kinetic_energy()
        frame.calc = SinglePointCalculator(frame, energy=total)
    with pytest.raises(ValueError, match="the total energy is conserved"):
        analyze(frames, AnalysisConfig(observables=("heat-capacity",)))


@pytest.mark.parametrize(
    ("frames", "observables", "message"),
    [
        ([], None, "at least one frame"),
        (shaken(ALLOY, 3), ["density", "color"], "got color as well"),
        (shaken(ALLOY, 30), ["thermal-expansion"], "the cell is constant"),
        (shaken(bulk("Cu") * 3, 10), ["order"], "need two elements, got Cu"),
        (shaken(Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 4]]), 10), ["density"], "periodic"),
        ([ALLOY] * 10, ["heat-capacity"], "hold no energies"),
        ([ALLOY] * 10, ["temperature"], "hold no momenta"),
    ],
    ids=["none", "unknown", "constant-cell", "one-element", "cluster", "energies", "momenta"],
)
def test_what_is_impossible_is_refused(frames, observables, message):
    with pytest.raises(ValueError, match=message):
        analyze(frames, AnalysisConfig(observables=observables))


def test_a_cluster_can_be_analyzed():
    atoms = Atoms("Ar8", positions=4.0 * np.array(list(np.ndindex(2, 2, 2)), dtype=float))
    result = analyze(shaken(atoms), AnalysisConfig(interval=5.0))
    assert "vdos" in result.tables
    assert not result.skipped.keys() - {"D of Ar"}


@pytest.mark.parametrize("kind", ["water", "alloy"])
def test_figure_shows_every_curve(kind, tmp_path):
    before = dict(mpl.rcParams)
    if kind == "water":
        frames = shaken(water_box(16, seed=1, sweeps=20))
    else:
        frames = shaken(ALLOY, cell_noise=0.002)
    result = analyze(frames, AnalysisConfig(interval=2.0))
    figure = analysis_figure(result)
    path = save_figure(figure, tmp_path / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == len(result.tables)
    assert set(result.tables) <= set(PANELS)
    assert dict(mpl.rcParams) == before
    with pytest.raises(ValueError, match="nothing to draw"):
        analysis_figure(analyze(frames, AnalysisConfig(observables=("temperature",))))


def test_water_that_diffuses_gets_the_finite_size_correction():
    rng = np.random.default_rng(2)
    box = water_box(16, seed=1, sweeps=0)
    steps = rng.normal(scale=0.15, size=(1200, 16, 1, 3)).repeat(3, axis=2).reshape(1200, 48, 3)
    frames = []
    for shift in steps.cumsum(axis=0):
        frame = box.copy()
        frame.positions += shift
        frame.wrap()
        frames.append(frame)
    result = analyze(
        frames, AnalysisConfig(observables=("diffusion",), interval=2.0, temperature=300.0)
    )
    plain, corrected = result.value("D of O"), result.value("D of O, infinite size")
    edge = box.cell.lengths()[0]
    expected = 2.837297 * 1.380649e-23 * 300 / (6 * np.pi * 0.89e-3 * edge * 1e-10) * 1e9
    assert corrected.value - plain.value == pytest.approx(expected, rel=1e-6)
    assert plain.value == pytest.approx(0.15**2 / 2 / 2.0 * 1e4 * 15 / 16, rel=0.15)


def test_settings_name_what_can_be_computed():
    assert tuple(OBSERVABLES) == OBSERVABLE_NAMES
    assert tuple(lattice.name for lattice in LATTICES) == get_args(Crystal)


def test_every_observable_is_named_in_the_docs(repo_root):
    text = (repo_root / "docs" / "observables.md").read_text(encoding="utf-8")
    assert not [name for name in OBSERVABLES if f"`{name}`" not in text]
