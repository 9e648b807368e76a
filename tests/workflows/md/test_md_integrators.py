"""Conservation and temperature: each tolerance is also shown to fail on something broken."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from ase.md.bussi import Bussi
from scipy.optimize import brentq

from pet_calc.workflows.guards import SimulationStopped
from pet_calc.workflows.md import ENSEMBLES, MDConfig, run_md
from pet_calc.workflows.md.checkpoint import CHECKPOINT, load_checkpoint
from pet_calc.workflows.statistics import block_mean, drift


def fluctuation(atoms, timestep, folder):
    """Standard deviation of the total energy over 400 fs of NVE, sampled every 4 fs."""
    every = round(4.0 / timestep)
    config = MDConfig(
        ensemble="nve",
        timestep=timestep,
        steps=100 * every,
        log_interval=every,
        frame_interval=10**6,
        initial_velocities="keep",
    )
    return run_md(atoms, config, folder).log.conserved.std()


def halving_ratio(atoms, tmp_path):
    warm = run_md(
        atoms, MDConfig(timestep=4.0, steps=100, temperature=400.0, tau=50.0), tmp_path / "warm"
    ).atoms
    return fluctuation(warm, 4.0, tmp_path / "4") / fluctuation(warm, 2.0, tmp_path / "2")


def test_nve_fluctuation_falls_fourfold(copper, tmp_path):
    assert halving_ratio(copper, tmp_path) == pytest.approx(4.0, rel=0.1)


def test_nve_fluctuation_of_wrong_forces_does_not(copper, broken, tmp_path):
    copper.calc = broken["Unphysical"]()
    assert halving_ratio(copper, tmp_path) < 2.0


def test_nve_does_not_drift(copper, tmp_path):
    config = MDConfig(ensemble="nve", timestep=2.0, steps=500)
    slope = run_md(copper, config, tmp_path / "right").drift
    assert abs(slope.value) < 4 * slope.error
    assert abs(slope.value) < 0.02  # meV/atom/ps


def test_drift_sees_a_heating_run():
    rng = np.random.default_rng(1)
    time = np.arange(2000) * 1.0
    noise = np.convolve(rng.normal(size=2049), np.ones(50) / 50, mode="valid")
    still, heating = drift(time, noise), drift(time, noise + 1e-4 * time)
    assert abs(still.value) < 4 * still.error
    assert heating.value > 4 * heating.error
    assert heating.value - still.value == pytest.approx(1e-4, rel=1e-9)


@pytest.fixture
def crystal():
    """8 copper atoms, slightly displaced."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("ramp", [False, True], ids=["constant", "ramp"])
@pytest.mark.parametrize("ensemble", [e for e in ENSEMBLES if e != "nve"])
def test_energy_from_outside_is_accounted_for(crystal, ensemble, ramp, tmp_path):
    pressure = ramp and ensemble.startswith("npt")
    config = MDConfig(
        ensemble=ensemble,
        timestep=2.0,
        tau=50.0,
        temperature_end=600.0 if ramp else None,
        pressure=0.0,
        pressure_end=3.0 if pressure else None,
        pressure_tau=400.0,
        compressibility=0.007,
        steps=300,
    )
    log = run_md(crystal, config, tmp_path).log
    # the total energy, without what came from outside, is the control: it varies far more
    assert np.ptp(log.total) > 0.1
    assert np.ptp(log.conserved) < 0.03 * np.ptp(log.total)


@pytest.mark.parametrize("ensemble", ["npt-mtk-iso", "npt-mtk-full", "npt-scr"])
def test_volume_follows_the_pressure(crystal, ensemble, tmp_path):
    config = MDConfig(
        ensemble=ensemble,
        timestep=4.0,
        tau=50.0,
        temperature=100.0,
        pressure=0.0,
        pressure_end=20.0,
        ramp_steps=150,
        pressure_tau=200.0,
        compressibility=0.007,
        steps=300,
        log_interval=1,
    )
    log = run_md(crystal, config, tmp_path).log
    pressed = log.after(800.0)
    assert abs(block_mean(pressed.pressure).value - 20.0) < 4.0
    ideal = bulk("Cu", cubic=True)
    ideal.calc = EMT()

    def excess(a):
        ideal.set_cell([a] * 3, scale_atoms=True)
        return -ideal.get_stress()[:3].mean() / units.GPa - 20.0

    still = 2.0 * brentq(excess, 3.3, 3.6) ** 3  # two cells; the thermal expansion is small
    assert pressed.volume.mean() == pytest.approx(still, rel=0.015)
    assert log.volume[0] > 1.08 * still


def test_a_shock_is_more_than_a_chain_can_hold(crystal, tmp_path):
    config = MDConfig(
        ensemble="npt-mtk-iso", timestep=4.0, temperature=100.0, pressure=50.0, pressure_tau=80.0
    )
    with pytest.raises(SimulationStopped, match="chain became unstable: what it holds has"):
        run_md(crystal, config, tmp_path)


def test_full_cell_changes_its_shape_without_turning(crystal, tmp_path):
    config = MDConfig(ensemble="npt-mtk-full", timestep=4.0, pressure_tau=200.0, steps=20)
    result = run_md(crystal, config, tmp_path / "full")
    rate = load_checkpoint(tmp_path / "full" / CHECKPOINT).integrator["strain_rate"]
    assert np.abs(rate[~np.eye(3, dtype=bool)]).min() > 0
    np.testing.assert_allclose(rate, rate.T, atol=1e-12 * np.abs(rate).max())
    assert np.abs(result.atoms.cell.angles() - 90.0).max() > 1e-3
    config = MDConfig(ensemble="npt-mtk-iso", timestep=4.0, pressure_tau=200.0, steps=20)
    result = run_md(crystal, config, tmp_path / "iso")
    np.testing.assert_allclose(result.atoms.cell.angles(), 90.0, rtol=1e-12)


@pytest.mark.parametrize("ensemble", ["npt-mtk-iso", "npt-mtk-full", "npt-scr"])
def test_constant_pressure_refuses_constraints(copper, ensemble, tmp_path):
    copper.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="holds no constraints"):
        run_md(copper, MDConfig(ensemble=ensemble, timestep=2.0), tmp_path)


def test_cell_rescaling_refuses_an_explosion(copper, tmp_path):
    copper.set_cell(0.93 * copper.cell.array, scale_atoms=True)
    config = MDConfig(ensemble="npt-scr", timestep=2.0, compressibility=1.0, pressure_tau=40.0)
    with pytest.raises(SimulationStopped, match="npt-scr would change the volume by"):
        run_md(copper, config, tmp_path)


def test_temperature_follows_a_ramp(einstein, tmp_path):
    config = MDConfig(
        timestep=4.0,
        tau=40.0,
        temperature=100.0,
        temperature_end=900.0,
        steps=3000,
        frame_interval=10**6,
    )
    temperature = run_md(einstein, config, tmp_path).log.temperature
    # 600 samples; the first and the last fifth are at 180 K and 820 K on average
    for part, expected in ((slice(0, 120), 180.0), (slice(-120, None), 820.0)):
        assert temperature[part].mean() == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("ensemble", ["nvt-langevin", "nvt-bussi"])
def test_thermostat_samples_its_temperature(einstein, ensemble, tmp_path):
    config = MDConfig(
        ensemble=ensemble,
        timestep=4.0,  # 0.03 of a period over 2 pi
        temperature=300.0,
        tau=80.0,
        steps=6000,
        log_interval=2,
        frame_interval=10**6,
        remove_drift=False,
        seed=5,
    )
    result = run_md(einstein, config, tmp_path)
    assert result.n_dof == 81
    temperature = result.log.after(1000.0).temperature
    mean = block_mean(temperature, 20)
    assert mean.error < 9.0  # K; a bias of 10 % would show
    assert abs(mean.value - 300.0) < 3 * mean.error
    assert abs(mean.value - 330.0) > 3 * mean.error
    # canonical kinetic energy: var(T) = 2 T² / n_dof; velocity rescaling would give none
    assert temperature.std() == pytest.approx(300.0 * np.sqrt(2 / 81), rel=0.15)


def test_bussi_counts_the_degrees_of_freedom_that_move(broken, tmp_path):
    # free atoms, far apart: the thermostat alone makes the kinetic energy, with an exact answer
    atoms = Atoms("Cu4", positions=60.0 * np.arange(12.0).reshape(4, 3))
    atoms.calc = broken["Einstein"](atoms.positions, spring=0.0)
    config = MDConfig(
        ensemble="nvt-bussi", timestep=4.0, tau=12.0, steps=5000, log_interval=1, seed=2
    )
    result = run_md(atoms, config, tmp_path)
    assert result.n_dof == 9
    temperature = result.log.temperature
    mean = block_mean(temperature, 20)
    assert abs(mean.value - 300.0) < 3 * mean.error
    assert temperature.std() == pytest.approx(300.0 * np.sqrt(2 / 9), rel=0.1)
    # with ASE's 3 N the four atoms would be at 400 K
    assert Bussi(result.atoms, 1.0, temperature_K=300.0, taut=1.0).ndof == 12
    assert abs(mean.value - 400.0) > 10 * mean.error


def test_center_of_mass_stays_at_rest(copper, tmp_path):
    result = run_md(copper, MDConfig(ensemble="nve", timestep=2.0, steps=50), tmp_path)
    assert np.abs(result.atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert result.n_dof == 93


def test_initial_velocities_are_maxwell_boltzmann(tmp_path):
    from pet_calc.workflows.md.velocities import maxwell_boltzmann

    masses = np.repeat([1.0, 16.0], 20_000)
    momenta = maxwell_boltzmann(masses, 300.0, np.random.default_rng(0))
    assert np.abs(momenta.sum(axis=0)).max() < 1e-8
    for mass in (1.0, 16.0):
        p = momenta[masses == mass]
        variance = (p**2).mean() / (mass * units.kB * 300.0)
        assert abs(variance - 1.0) < 4 * np.sqrt(2 / p.size)


def test_fixed_atoms_stay_with_every_ensemble(copper, tmp_path):
    copper.set_constraint(FixAtoms([0, 5]))
    for ensemble in ("nve", "nvt-langevin", "nvt-bussi", "nvt-nhc"):
        config = MDConfig(ensemble=ensemble, timestep=2.0, steps=20)
        result = run_md(copper, config, tmp_path / ensemble)
        moved = np.abs(result.atoms.positions - copper.positions).max(axis=1)
        assert (moved[[0, 5]] == 0).all()
        assert moved[1] > 0
        assert result.n_dof == 90


def test_langevin_refuses_rigid_bonds(copper, tmp_path):
    copper.set_constraint(FixBondLength(0, 1))
    with pytest.raises(ValueError, match="does not hold FixBondLength"):
        run_md(copper, MDConfig(ensemble="nvt-langevin"), tmp_path)


def test_bussi_refuses_to_start_from_rest(copper, tmp_path):
    config = MDConfig(ensemble="nvt-bussi", initial_velocities="keep")
    with pytest.raises(ValueError, match="cannot start from rest"):
        run_md(copper, config, tmp_path)
