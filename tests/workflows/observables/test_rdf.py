import numpy as np
import pytest
from ase import Atoms
from ase.geometry.rdf import get_rdf

from pet_calc.workflows.observables import first_peak, partial_rdf
from pet_calc.workflows.observables.rdf import RadialDistribution

CELLS = {
    "cubic": np.diag([10.0, 10.0, 10.0]),
    "skewed": np.array([[12.0, 0, 0], [4.0, 11.0, 0], [-3.0, 2.0, 10.0]]),
    "left-handed": np.array([[0, 11.0, 0], [10.0, 0, 0], [0, 0, 12.0]]),
}


def ideal_gas(cell, n_oxygen=12, n_hydrogen=30, n_frames=60, seed=0):
    rng = np.random.default_rng(seed)
    n = n_oxygen + n_hydrogen
    return [
        Atoms(
            f"O{n_oxygen}H{n_hydrogen}",
            # atoms may lie outside the cell, as in an unwrapped trajectory
            scaled_positions=rng.uniform(-1.0, 2.0, (n, 3)),
            cell=cell,
            pbc=True,
        )
        for _ in range(n_frames)
    ]


@pytest.mark.parametrize("pair", [("O", "O"), ("O", "H"), ("H", "O"), ("H", "H")])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_ideal_gas_is_one(cell, pair):
    frames = ideal_gas(cell)
    rdf = partial_rdf(frames, *pair, n_bins=8)
    n = {"O": 12, "H": 30}
    same = pair[0] == pair[1]
    n_pairs = n[pair[0]] * (n[pair[0]] - 1) / 2 if same else n["O"] * n["H"]
    edges = np.linspace(0.0, rdf.r[-1] + rdf.r[0], 9)
    fraction = 4 / 3 * np.pi * edges[-1] ** 3 / abs(np.linalg.det(cell))
    expected = len(frames) * n_pairs * 4 / 3 * np.pi * np.diff(edges**3)
    expected /= abs(np.linalg.det(cell))
    assert (np.abs(rdf.g - 1.0) < 4.0 / np.sqrt(expected)).all()
    # over the whole sphere, the error is small enough to tell N (N - 1) from N²
    mean = (rdf.g * expected).sum() / expected.sum()
    error = np.sqrt((1 - fraction) / expected.sum())
    assert abs(mean - 1.0) < 4 * error
    if pair == ("O", "O"):
        assert abs(mean * 11 / 12 - 1.0) > 3 * error


@pytest.mark.parametrize("pair", [("O", "O"), ("O", "H"), ("H", "H")])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_agrees_with_ase(cell, pair):
    frames = ideal_gas(cell, n_frames=4, seed=3)
    rdf = partial_rdf(frames, *pair, r_max=4.5, n_bins=45)
    ours = rdf.g * {("O", "O"): 11 / 12, ("H", "H"): 29 / 30}.get(pair, 1.0)  # ASE divides by N²
    theirs, r = get_rdf(frames, 4.5, 45, elements=pair)
    assert r == pytest.approx(rdf.r)
    assert ours == pytest.approx(theirs, abs=1e-10)


def test_agrees_with_brute_force_over_images():
    cell = CELLS["skewed"]
    (atoms,) = ideal_gas(cell, n_frames=1, seed=5)
    rdf = partial_rdf([atoms], "O", "H", r_max=4.0, n_bins=20)
    shifts = np.array(list(np.ndindex(9, 9, 9))) - 4
    oxygen, hydrogen = atoms.positions[:12], atoms.positions[12:]
    d = hydrogen[None, :, None] - oxygen[:, None, None] + (shifts @ cell)[None, None]
    counts, edges = np.histogram(np.linalg.norm(d, axis=-1), bins=np.linspace(0, 4.0, 21))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    assert rdf.g == pytest.approx(counts / shells * abs(np.linalg.det(cell)) / (12 * 30))


def test_error_bars_shrink_with_frames():
    few = partial_rdf(ideal_gas(CELLS["cubic"], n_frames=10), "H", "H", n_bins=10)
    many = partial_rdf(ideal_gas(CELLS["cubic"], n_frames=160), "H", "H", n_bins=10)
    assert many.error[2:].mean() == pytest.approx(few.error[2:].mean() / 4, rel=0.4)
    assert np.isnan(partial_rdf(ideal_gas(CELLS["cubic"])[:1], "H", "H").error).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r_max": 5.1}, "at most half the smallest cell height"),
        ({"second": "C"}, "needs a pair of these atoms, got 12 O and 0 C"),
        ({"frames": []}, "at least one structure"),
        ({"frames": [Atoms("O2", positions=[[0, 0, 0], [0, 0, 1]])]}, "periodic in three"),
    ],
)
def test_nonsense_is_refused(change, message):
    arguments = {
        "frames": ideal_gas(CELLS["cubic"], n_frames=1),
        "first": "O",
        "second": "O",
        "r_max": 4.0,
    }
    with pytest.raises(ValueError, match=message):
        partial_rdf(**{**arguments, **change})


def skewed_peak(r, position=2.8, height=2.6, width=0.18, skew=0.45):
    """A first shell that rises faster than it falls, on the onset of the liquid."""
    x = np.log(np.maximum(1 + 2 * skew * (r - position) / width, 1e-6)) / skew
    return (height - 0.9) * np.exp(-(x**2) / 2) + 0.9 / (1 + np.exp((2.95 - r) / 0.06))


def highest(f):
    fine = np.arange(2.0, 4.0, 1e-4)
    return fine[np.argmax(f(fine))], f(fine).max()


@pytest.mark.parametrize("spacing", [0.025, 0.04, 0.05])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.7])
def test_first_peak_is_found_between_bins(spacing, phase):
    position, height = highest(skewed_peak)
    r = (np.arange(0.5, 125.0) + phase) * spacing
    rdf = RadialDistribution(("O", "O"), r, skewed_peak(r), skewed_peak(r)[None], 1)
    peak = first_peak(rdf, r_min=2.2, r_max=3.5)
    assert abs(peak.position - position) < 0.006
    assert abs(peak.height - height) < 0.03
    assert np.isnan(peak.position_error)
    near = np.abs(r - r[np.argmax(skewed_peak(r))]) < 0.2
    a, b, _ = np.polyfit(r[near], skewed_peak(r[near]), 2)
    assert abs(-b / (2 * a) - position) > 0.02  # the usual parabola, for comparison


def test_first_peak_error_covers_noise():
    rng = np.random.default_rng(6)
    r = np.arange(0.5, 125.0) * 0.05
    positions, errors = [], []
    for _ in range(100):
        blocks = skewed_peak(r) + 0.05 * rng.normal(size=(5, len(r)))
        peak = first_peak(
            RadialDistribution(("O", "O"), r, blocks.mean(axis=0), blocks, 5), r_min=2.2, r_max=3.5
        )
        positions.append(peak.position)
        errors.append(peak.position_error)
    assert np.mean(errors) == pytest.approx(np.std(positions), rel=0.5)


def test_missing_peak_is_refused():
    r = np.arange(0.5, 50) * 0.05
    rdf = RadialDistribution(("O", "O"), r, np.zeros_like(r), np.zeros((1, len(r))), 1)
    with pytest.raises(ValueError, match="must have a peak"):
        first_peak(rdf, r_min=2.2)
