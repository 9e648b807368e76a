"""The quasi-harmonic approximation beside a free-energy surface of one's own."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from pet_calc.errors import SimulationError
from pet_calc.units import GPA
from pet_calc.workflows.phonons import (
    QHA_FILES,
    PhononConfig,
    QHAConfig,
    phonons,
    quasi_harmonic,
    write_qha,
)

pytest.importorskip("phonopy")

CONFIG = PhononConfig(min_length=7.5, mesh=30.0, q_spacing=0.3, t_max=400.0, t_step=20.0)


def copper():
    atoms = bulk("Cu")
    atoms.calc = EMT()
    return atoms


@pytest.fixture(scope="module")
def result():
    return quasi_harmonic(copper(), QHAConfig(points=9, span=(0.96, 1.05), phonons=CONFIG))


def test_expansion_is_the_derivative_of_the_minimum_of_the_free_energy(result):
    """F(V, T) from phonons at 9 other volumes and a quintic polynomial instead of Vinet's form."""
    volumes, surface = [], []
    for scale in np.linspace(0.97, 1.05, 9):
        atoms = result.primitive.atoms.copy()
        atoms.calc = EMT()
        atoms.set_cell(atoms.cell.array * scale ** (1 / 3), scale_atoms=True)
        static = PhononConfig(
            min_length=7.5, mesh=30.0, q_spacing=0.3, t_max=400.0, t_step=20.0, relax=False
        )
        found = phonons(atoms, static)
        volumes.append(atoms.get_volume())
        surface.append(found.energy + found.spectrum.thermal.free_energy)
        temperature = found.spectrum.thermal.temperature
    volumes, surface = np.array(volumes), np.array(surface)  # surface (n_volumes, n_temperatures)

    def minimum(row):
        fit = np.polynomial.Polynomial.fit(volumes, row, 5)
        roots = fit.deriv().roots()
        real = roots[np.abs(roots.imag) < 1e-9].real
        (v,) = [x for x in real if volumes[0] < x < volumes[-1] and fit.deriv(2)(x) > 0]
        return v, v * fit.deriv(2)(v) / GPA

    at = {t: minimum(surface[:, k]) for k, t in enumerate(temperature) if t in (280, 300, 320)}
    alpha = (at[320][0] - at[280][0]) / 40 / at[300][0]
    assert result.at(300, "volume") == pytest.approx(at[300][0], rel=2e-4)
    assert result.at(300, "thermal_expansion") == pytest.approx(alpha, rel=0.01)
    assert result.at(300, "bulk_modulus") == pytest.approx(at[300][1], rel=0.01)
    # the first tolerance sees a thermal expansion of zero
    assert result.at(300, "volume") > result.static_volume * 1.005
    assert result.fit_residual < 1e-5


def test_thermodynamic_identities(result):
    """S = -dG/dT, C_p = T dS/dT and C_p - C_v = T V α² B."""
    t = result.temperature
    k = int(np.flatnonzero(t == 300)[0])
    per_mole = 96485.33212  # eV to J/mol
    slope = -(result.gibbs[k + 1] - result.gibbs[k - 1]) / (t[k + 1] - t[k - 1]) * per_mole
    assert result.entropy[k] == pytest.approx(slope, rel=2e-3)
    heat = t[k] * (result.entropy[k + 1] - result.entropy[k - 1]) / (t[k + 1] - t[k - 1])
    assert result.heat_capacity_p[k] == pytest.approx(heat, rel=5e-3)
    difference = t[k] * result.volume[k] * result.thermal_expansion[k] ** 2
    difference *= result.bulk_modulus[k] * GPA * per_mole
    at_volume = result.primitive.atoms.copy()
    at_volume.calc = EMT()
    scale = result.volume[k] / at_volume.get_volume()
    at_volume.set_cell(at_volume.cell.array * scale ** (1 / 3), scale_atoms=True)
    config = PhononConfig(min_length=7.5, mesh=30.0, q_spacing=0.3, relax=False, t_step=100.0)
    heat_v = phonons(at_volume, config).spectrum.thermal.heat_capacity[3]
    assert result.heat_capacity_p[k] - heat_v == pytest.approx(difference, rel=0.05)
    assert result.heat_capacity_p[k] > heat_v * 1.01


def test_lattice_and_static_values(result):
    np.testing.assert_allclose(
        result.lattice[:, 0], np.cbrt(4 * result.volume), rtol=1e-5, err_msg="cubic"
    )
    cell = result.primitive.atoms
    assert result.static_volume == pytest.approx(cell.get_volume(), rel=1e-3)
    assert result.warnings == ()


def test_files(result, tmp_path):
    write_qha(result, tmp_path, title="Cu")
    assert {p.name for p in tmp_path.iterdir()} == set(QHA_FILES)
    table = np.genfromtxt(tmp_path / "qha.csv", delimiter=",", names=True)
    assert table["temperature_K"][-1] == 400
    summary = json.loads((tmp_path / "qha.json").read_text(encoding="utf-8"))
    assert summary["at_300_K"]["thermal_expansion"] == pytest.approx(
        result.at(300, "thermal_expansion")
    )


def test_hexagonal_crystal_expands_along_both_axes():
    atoms = bulk("Cu", "hcp", a=2.56, c=4.18)
    atoms.calc = EMT()
    config = PhononConfig(min_length=7.0, mesh=20.0, t_max=200.0, t_step=50.0)
    found = quasi_harmonic(atoms, QHAConfig(points=5, span=(0.98, 1.03), phonons=config))
    a, b, c = found.lattice.T
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert a[-1] > a[0]
    assert c[-1] > c[0]
    np.testing.assert_allclose(np.sqrt(3) / 2 * a * b * c / 2, found.volume, rtol=1e-4)


def test_imaginary_modes_are_refused():
    atoms = bulk("Cu", "sc", a=2.4)
    atoms.calc = EMT()
    with pytest.raises(SimulationError, match=r"at 0\.960 V₀ .* imaginary"):
        quasi_harmonic(atoms, QHAConfig(phonons=PhononConfig(min_length=7.0, mesh=10.0)))


def test_results_end_where_the_volume_leaves_the_range():
    config = PhononConfig(min_length=7.5, mesh=20.0, t_max=400.0, t_step=50.0)
    found = quasi_harmonic(copper(), QHAConfig(points=5, span=(0.97, 1.015), phonons=config))
    assert found.temperature[-1] < 400
    assert "leaves the range" in found.warnings[0]
    assert np.isnan(found.at(400, "volume"))


@pytest.mark.parametrize(
    "options", [{"points": 4}, {"span": (1.1, 1.2)}, {"span": (0.8, 0.9)}, {"eos": "x"}]
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        QHAConfig(**options)
