"""The loop: reproducible, guarded, and careful with files."""

import io

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from rich.console import Console

from pet_calc.errors import InvalidStructureError, OutputError
from pet_calc.workflows.guards import SimulationStopped
from pet_calc.workflows.md import MDConfig, MDLog, run_md
from pet_calc.workflows.progress import ProgressBar

QUICK = MDConfig(timestep=2.0, steps=12, frame_interval=1, log_interval=1)


def run(atoms, folder, **changes):
    from dataclasses import replace

    return run_md(atoms, replace(QUICK, **changes), folder)


@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin", "nvt-bussi"])
def test_same_seed_same_trajectory(copper, ensemble, tmp_path):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two, other = (
        run(copper, tmp_path / name, ensemble=ensemble, seed=seed)
        for name, seed in (("one", 7), ("two", 7), ("other", 8))
    )
    a, b = read(one.trajectory_file, index=":"), read(two.trajectory_file, index=":")
    assert len(a) == 13
    for x, y in zip(a, b, strict=True):
        assert (x.positions == y.positions).all()
        assert (x.get_momenta() == y.get_momenta()).all()
    assert (other.atoms.positions != one.atoms.positions).any()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_trajectory_and_log_agree(copper, tmp_path):
    positions = copper.get_positions()
    result = run(copper, tmp_path, steps=11, frame_interval=4, log_interval=5)
    assert (copper.positions == positions).all()  # the caller's structure is not moved
    frames = read(result.trajectory_file, index=":")
    assert len(frames) == 4  # steps 0, 4, 8 and the last, 11
    log = MDLog.read(result.log_file)
    assert log.step.tolist() == [0, 5, 10, 11]
    assert log.time.tolist() == [0.0, 10.0, 20.0, 22.0]
    assert (log.conserved == result.log.conserved).all()
    assert frames[-1].get_potential_energy() == pytest.approx(log.potential[-1], abs=1e-12)
    assert frames[-1].get_forces().shape == (32, 3)
    assert result.ns_per_day > 0


def test_zero_steps_evaluate_the_start(copper, tmp_path):
    result = run(copper, tmp_path, steps=0)
    assert result.log.step.tolist() == [0]
    assert len(read(result.trajectory_file, index=":")) == 1


def test_nan_force_stops_with_the_last_good_frame(einstein, broken, tmp_path):
    einstein.calc = broken["NotANumber"](einstein.positions, after=6)
    with pytest.raises(SimulationStopped, match=r"force of atom 3 \(Ar\) is not a finite") as stop:
        run(einstein, tmp_path)
    stopped = stop.value
    assert stopped.atoms == (3,)
    assert (stopped.step, stopped.last_good_step) == (6, 5)
    good = read(stopped.last_good_frame)
    same = read(tmp_path / "trajectory.traj", index=-1)  # every step was written, step 5 is last
    assert good.info["step"] == 5
    assert (good.positions == same.positions).all()
    assert (good.get_momenta() == same.get_momenta()).all()
    assert good.get_potential_energy() == same.get_potential_energy()
    assert np.isfinite(good.get_forces()).all()


def test_nan_at_the_start_stops_before_files_are_written(einstein, broken, tmp_path):
    einstein.calc = broken["NotANumber"](einstein.positions, after=0)
    with pytest.raises(SimulationStopped, match="stopped at step 0"):
        run(einstein, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_collapsing_pair_is_named(einstein, broken, tmp_path):
    einstein.calc = broken["Collapse"](einstein.positions)
    with pytest.raises(SimulationStopped, match=r"atom 0 \(Ar\) and atom 1 \(Ar\) nearly") as stop:
        run(einstein, tmp_path, steps=2000, frame_interval=1000)
    assert stop.value.atoms == (0, 1)
    good = read(stop.value.last_good_frame)
    assert good.get_distance(0, 1) > 0.6 * 2 * 1.06 - 1e-9
    assert good.info["step"] == stop.value.step - 1


def test_heating_run_is_stopped(einstein, broken, tmp_path):
    einstein.calc = broken["Einstein"](einstein.positions, spring=-5.0)
    with pytest.raises(SimulationStopped, match="temperature exploded") as stop:
        run(einstein, tmp_path, ensemble="nve", steps=5000, frame_interval=1000)
    assert len(stop.value.atoms) == 1
    assert stop.value.last_good_frame.is_file()


def test_sound_system_is_not_stopped(einstein, tmp_path):
    result = run(einstein, tmp_path, steps=500, frame_interval=100)
    assert result.log.step[-1] == 500
    assert not (tmp_path / "last_good.traj").exists()


def test_failing_calculator_keeps_the_last_good_frame(einstein, broken, tmp_path):
    einstein.calc = broken["Fails"](einstein.positions, after=4)
    with pytest.raises(SimulationStopped, match="calculator failed: out of memory") as stop:
        run(einstein, tmp_path)
    assert isinstance(stop.value.__cause__, RuntimeError)
    assert read(stop.value.last_good_frame).info["step"] == 3


def test_interrupt_keeps_the_last_good_frame(einstein, tmp_path):
    def interrupt(progress):
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_md(einstein, QUICK, tmp_path, on_progress=interrupt)
    assert read(tmp_path / "last_good.traj").info["step"] == 4


def test_earlier_results_are_not_overwritten(einstein, tmp_path):
    first = run(einstein, tmp_path)
    content = first.trajectory_file.read_bytes(), first.log_file.read_bytes()
    with pytest.raises(OutputError, match=r"already holds trajectory\.traj, log\.csv"):
        run(einstein, tmp_path)
    assert (first.trajectory_file.read_bytes(), first.log_file.read_bytes()) == content
    (tmp_path / "mine.txt").write_text("keep me")
    run_md(einstein, MDConfig(steps=2, seed=3), tmp_path, overwrite=True)
    assert len(MDLog.read(first.log_file)) == 2
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_failed_start_keeps_earlier_results(einstein, broken, tmp_path):
    first = run(einstein, tmp_path)
    content = first.trajectory_file.read_bytes()
    einstein.calc = broken["Fails"](einstein.positions, after=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_md(einstein, QUICK, tmp_path, overwrite=True)
    assert first.trajectory_file.read_bytes() == content


def test_unwritable_output_is_refused_before_the_first_calculation(einstein, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="must be writable"):
        run(einstein, tmp_path / "file" / "out")
    assert einstein.calc.calls == 0


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "at least one atom"),
        (Atoms("Ar2", positions=[[0, 0, 0], [np.nan, 0, 4]]), "atom 1 is at"),
        (Atoms("Ar2", positions=[[0, 0, 0], [0, 0, np.inf]]), "must be finite"),
        (Atoms("Ar", pbc=True), "zero vector"),
        (Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 0.2]]), "nearly touch: 0.200 Å"),
        (Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 0.0]]), "nearly touch: 0.000 Å"),
        (Atoms("X", positions=[[0, 0, 0]], masses=[0.0]), "masses must be positive"),
    ],
    ids=["empty", "nan", "inf", "zero-cell", "overlap", "same-place", "massless"],
)
def test_bad_structures_are_refused_before_the_start(atoms, message, broken, tmp_path):
    atoms.calc = calc = broken["Einstein"](np.zeros((len(atoms), 3)))
    with pytest.raises(InvalidStructureError, match=message):
        run(atoms, tmp_path / "out")
    assert calc.calls == 0
    assert not (tmp_path / "out").exists()


def test_missing_calculator_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must carry a calculator"):
        run(Atoms("Ar"), tmp_path)


def test_one_atom_can_be_simulated(broken, tmp_path):
    atoms = Atoms("Ar", positions=[[0.0, 0.0, 0.0]])
    atoms.calc = broken["Einstein"](atoms.positions)
    result = run(atoms, tmp_path)
    assert result.n_dof == 3
    assert np.isfinite(result.log.temperature).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble": "npt"}, "`ensemble` must be one of nve"),
        ({"timestep": 0.0}, "`timestep` must be a positive"),
        ({"timestep": float("nan")}, "`timestep` must be a positive"),
        ({"temperature": -1.0}, "`temperature` must not be negative"),
        ({"ensemble": "nvt-bussi", "temperature": 0.0}, "must be positive with the Bussi"),
        ({"tau": 0.1, "timestep": 0.5}, "must not be shorter"),
        ({"steps": -1}, "`steps` must not be negative"),
        ({"seed": -1}, "`seed` must not be negative"),
        ({"frame_interval": 0}, "`frame_interval` must be at least 1"),
        ({"initial_velocities": "zero"}, "`initial_velocities` must be"),
        ({"ensemble": "nve", "temperature_end": 400.0}, "nve has none"),
        ({"ensemble": "nve", "swap_interval": 5}, "swap moves hold a temperature"),
        ({"pressure_end": 1.0}, "nvt-langevin has none"),
        ({"ensemble": "npt-scr", "pressure": float("nan")}, "`pressure` must be a number"),
        ({"ensemble": "npt-scr", "pressure_tau": 5.0}, "at least 20 timesteps"),
        ({"ensemble": "npt-scr", "compressibility": 0.0}, "`compressibility` must be a positive"),
        ({"ensemble": "nvt-nhc", "temperature_end": 0.0}, "must be positive with the nvt-nhc"),
        ({"checkpoint_interval": 0}, "`checkpoint_interval` must be at least 1"),
        ({"ramp_steps": 0}, "`ramp_steps` must be at least 1"),
    ],
)
def test_config_refuses_nonsense(changes, message):
    with pytest.raises(ValueError, match=message):
        MDConfig(**changes)


def test_progress_reports_the_first_step_and_the_state(einstein, tmp_path):
    text = io.StringIO()
    config = MDConfig(timestep=2.0, steps=40, log_interval=1)
    seen = []
    with ProgressBar(Console(file=text, width=120)) as bar:
        run_md(einstein, config, tmp_path, on_progress=lambda p: (seen.append(p), bar(p)))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("start 0/40: 27 atoms")
    assert lines[1].startswith("MD 1/40: first step done in")
    assert lines[-1].startswith("MD 40/40: ")
    assert "ns/day" in lines[-1]
    assert "meV/atom/ps" in lines[-1]
    assert len(lines) == 12
    assert [p.done for p in seen] == list(range(41))
    log = MDLog.read(tmp_path / "log.csv")
    assert [p.values["conserved_eV"] for p in seen] == log.conserved.tolist()


def test_without_a_folder_the_same_run_stays_in_memory(copper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"steps": 11, "frame_interval": 4, "log_interval": 5, "checkpoint_interval": 3}
    memory, written = run(copper, None, **changes), run(copper, tmp_path / "out", **changes)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert memory.log.conserved.tolist() == written.log.conserved.tolist()
    assert memory.mean_temperature == written.mean_temperature
    assert len(memory.frames) == len(written.frames) == 4
    for kept, read_again in zip(memory.frames, written.frames, strict=True):
        assert (kept.positions == read_again.positions).all()
        assert (kept.get_momenta() == read_again.get_momenta()).all()
        assert (kept.get_forces() == read_again.get_forces()).all()
        assert kept.get_potential_energy() == read_again.get_potential_energy()
    with pytest.raises(ValueError, match="no `folder` to write to"):
        _ = memory.trajectory_file
    with pytest.raises(ValueError, match="continues the run in `folder`"):
        run_md(copper, QUICK, resume=True)


def test_a_run_in_memory_that_is_stopped_hands_over_its_last_good_frame(einstein, broken):
    einstein.calc = broken["NotANumber"](einstein.positions, after=6)
    with pytest.raises(SimulationStopped, match="is `last_good` of this error") as stop:
        run(einstein, None)
    assert stop.value.last_good_frame is None
    assert stop.value.last_good.info["step"] == stop.value.last_good_step
    assert np.isfinite(stop.value.last_good.get_forces()).all()
