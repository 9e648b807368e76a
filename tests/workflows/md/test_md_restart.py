"""A continued run is the run that was never interrupted, bit for bit; and nothing else is."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from calculators.small_potentials import small_pet
from workflows.md import killed_run
from workflows.md.killed_run import KILLED

from pet_calc import PETCalculator
from pet_calc.errors import CheckpointError
from pet_calc.workflows.guards import Guard
from pet_calc.workflows.md import ENSEMBLES, MDConfig, MDLog, Observer, run_md
from pet_calc.workflows.md.chains import NoseHooverChain
from pet_calc.workflows.md.checkpoint import CHECKPOINT, load_checkpoint
from pet_calc.workflows.md.records import Mark
from pet_calc.workflows.md.run import Run

# intervals that do not fit each other, and ramps that both halves have to share
CONFIG = MDConfig(
    timestep=2.0,
    tau=50.0,
    temperature=300.0,
    pressure=0.0,
    pressure_tau=300.0,
    steps=40,
    frame_interval=3,
    log_interval=7,
    checkpoint_interval=10,
    seed=11,
)


def alloy(n=2):
    atoms = bulk("Cu", cubic=True) * (n, 1, 1)
    atoms.symbols[::3] = "Au"
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    atoms.calc = EMT()
    return atoms


def configured(ensemble, **changes):
    settings = {"temperature_end": 500.0} if ensemble != "nve" else {}
    if ensemble.startswith("npt"):
        settings["pressure_end"] = 1.0
    if ensemble in ("nvt-langevin", "npt-mtk-full"):
        settings |= {"swap_interval": 4, "swap_attempts": 3}
    return replace(CONFIG, ensemble=ensemble, ramp_steps=30, **settings, **changes)


def assert_same_run(one, two):
    a, b = read(one / "trajectory.traj", index=":"), read(two / "trajectory.traj", index=":")
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for name in ("numbers", "positions", "momenta"):
            assert (x.arrays[name] == y.arrays[name]).all(), name
        assert (x.cell.array == y.cell.array).all()
        assert x.get_potential_energy() == y.get_potential_energy()
        assert (x.get_forces() == y.get_forces()).all()
    rows = [
        [
            {k: v for k, v in row.items() if k != "ns_per_day"}
            for row in csv.DictReader((folder / "log.csv").read_text(encoding="utf-8").splitlines())
        ]
        for folder in (one, two)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_two_halves_are_the_whole(ensemble, tmp_path):
    whole = run_md(alloy(), configured(ensemble), tmp_path / "whole")
    run_md(alloy(), configured(ensemble, steps=20), tmp_path / "halves")
    halves = run_md(alloy(), configured(ensemble), tmp_path / "halves", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    for name, values in vars(whole.log).items():
        if name != "ns_per_day":
            np.testing.assert_array_equal(values, getattr(halves.log, name), err_msg=name)
    assert whole.log.step.tolist() == [0, 7, 14, 21, 28, 35, 40]
    assert len(read(whole.trajectory_file, index=":")) == 15  # 0, 3, ..., 39 and 40


def test_comparison_sees_a_lost_thermostat(tmp_path, monkeypatch):
    """The control: a restart that forgets the chain is told from one that does not."""
    run_md(alloy(), configured("nvt-nhc"), tmp_path / "whole")
    run_md(alloy(), configured("nvt-nhc", steps=20), tmp_path / "halves")
    monkeypatch.setattr(NoseHooverChain, "set_state", lambda *_: None)
    run_md(alloy(), configured("nvt-nhc"), tmp_path / "halves", resume=True)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "whole", tmp_path / "halves")


def pet_alloy(skin):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.05, seed=3)
    atoms.calc = PETCalculator(small_pet((29, 79)), skin=skin)
    return atoms


@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin", "npt-mtk-full"])
def test_pet_continues_from_any_step(ensemble, tmp_path):
    """Our calculators need no fresh start: neither steps of checkpoints nor the skin matter."""
    config = configured(ensemble, steps=14)
    config = replace(config, temperature=50.0, swap_interval=0, timestep=1.0)
    run_md(pet_alloy(1.0), config, tmp_path / "whole")
    run_md(pet_alloy(1.0), replace(config, steps=5), tmp_path / "parts")
    run_md(pet_alloy(0.0), replace(config, steps=11), tmp_path / "parts", resume=True)
    run_md(pet_alloy(0.4), config, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_finished_run_is_left_as_it_is(tmp_path):
    run_md(alloy(), CONFIG, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("trajectory.traj", "log.csv")}
    result = run_md(alloy(), CONFIG, tmp_path, resume=True)
    assert len(result.log) == 7
    frames = read(tmp_path / "trajectory.traj", index=":")
    assert len(frames) == 15
    assert before["log.csv"].count(b"\n") == (tmp_path / "log.csv").read_bytes().count(b"\n")


def test_folder_without_a_run_starts_one(tmp_path):
    run_md(alloy(), replace(CONFIG, steps=3), tmp_path / "new", resume=True)
    assert MDLog.read(tmp_path / "new" / "log.csv").step.tolist() == [0, 3]


def test_extended_ramp_keeps_its_length(tmp_path):
    ramp = replace(CONFIG, temperature_end=400.0, steps=20)
    run_md(alloy(), ramp, tmp_path)
    result = run_md(alloy(), replace(ramp, steps=40), tmp_path, resume=True)
    assert result.config.targets(10) == (350.0, 0.0)
    assert result.config.targets(40) == (400.0, 0.0)


def stronger():
    atoms = alloy()
    atoms.calc = EMT(asap_cutoff=True)
    return atoms


def moved():
    atoms = alloy()
    atoms.positions[0, 0] += 1e-12
    return atoms


def charged():
    atoms = alloy()
    atoms.info["charge"] = 1
    return atoms


def other_pet():
    atoms = pet_alloy(1.0)
    return atoms


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (stronger, {}, "potential has changed: at step 40 its energy differs by"),
        (other_pet, {}, "input structure has changed"),
        (moved, {}, "input structure has changed"),
        (charged, {}, "input structure has changed"),
        (alloy, {"temperature": 310.0}, r"temperature was 300\.0 and is 310\.0"),
        (alloy, {"ensemble": "nve", "seed": 1}, "ensemble was nvt-langevin and is nve; seed was"),
        (alloy, {"checkpoint_interval": 5}, "checkpoint_interval was 10 and is 5"),
        (alloy, {"steps": 30}, "has come to step 40 already"),
    ],
    ids=[
        "potential",
        "both",
        "structure",
        "charge",
        "temperature",
        "ensemble",
        "interval",
        "steps",
    ],
)
def test_changes_are_named_and_refused(make, changes, message, tmp_path):
    run_md(alloy(), CONFIG, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=message):
        run_md(make(), replace(CONFIG, **{"steps": 50, **changes}), tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_class_of_potential_is_named(tmp_path):
    atoms = alloy()
    run_md(atoms, replace(CONFIG, steps=2), tmp_path)
    atoms.calc = PETCalculator(small_pet((29, 79)))
    with pytest.raises(CheckpointError, match=r"calculator was ase\.calculators\.emt\.EMT and is"):
        run_md(atoms, CONFIG, tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "absent", "pickle", "schema"])
def test_damaged_checkpoints_are_refused(damage, tmp_path):
    run_md(alloy(), CONFIG, tmp_path)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    elif damage == "absent":
        path.unlink()
    elif damage == "pickle":
        np.savez(path, plain=np.array([{"schema": 1}], dtype=object))
    else:
        np.savez(path, plain=np.array('{"schema": 99}'))
    with pytest.raises(CheckpointError, match=r"is damaged|there is no|has version 99"):
        run_md(alloy(), CONFIG, tmp_path, resume=True)
    assert len(read(tmp_path / "trajectory.traj", index=":")) == 15


@pytest.mark.parametrize("name", ["trajectory.traj", "log.csv"])
def test_shortened_files_are_refused(name, tmp_path):
    run_md(alloy(), CONFIG, tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="has 100 bytes only"):
        run_md(alloy(), replace(CONFIG, steps=50), tmp_path, resume=True)


def test_checkpoint_holds_what_it_says(tmp_path):
    result = run_md(alloy(), configured("npt-mtk-full"), tmp_path)
    saved = load_checkpoint(tmp_path / CHECKPOINT)
    assert saved.step == 40
    assert (saved.atoms["positions"] == result.atoms.positions).all()
    assert set(saved.integrator) == {
        *("chain_eta", "chain_v", "cell_chain_eta", "cell_chain_v", "strain_rate", "offsets")
    }
    assert set(saved.rng) == {"noise", "swaps"}
    assert not list(tmp_path.glob("*.part"))


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="`resume` continues the run"):
        run_md(alloy(), CONFIG, tmp_path, resume=True, overwrite=True)


def test_observers_see_each_step_once(tmp_path):
    seen = []
    observers = [Observer(lambda atoms, sample: seen.append((sample.step, len(atoms))), every=6)]
    run_md(alloy(), replace(CONFIG, steps=20), tmp_path, observers=observers)
    run_md(alloy(), CONFIG, tmp_path, resume=True, observers=observers)
    assert seen == [(k, 8) for k in range(0, 41, 6)]
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        Observer(print, every=0)


def test_trajectory_over_many_frames_is_cut_exactly(tmp_path):
    """With the 43rd frame ASE moves the table of offsets to the end of the file."""
    config = MDConfig(timestep=1.0, steps=60, frame_interval=1, checkpoint_interval=20)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_md(alloy(1), config, whole)
    run_md(alloy(1), replace(config, steps=40), parts)
    # a kill behind the last checkpoint, after the table has moved: keep the files, go back
    checkpoint = (parts / CHECKPOINT).read_bytes()
    run_md(alloy(1), config, parts, resume=True)
    (parts / CHECKPOINT).write_bytes(checkpoint)
    run_md(alloy(1), config, parts, resume=True)
    assert_same_run(whole, parts)


def killed_runs(tmp_path, kills):
    """A run that is killed at random moments and continued is the run that was not."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed_run.run(whole)
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), str(killed)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    rng = np.random.default_rng()
    hit = 0
    for step in np.sort(rng.choice(KILLED.steps - 10, kills, replace=False)):
        process = subprocess.Popen(command, env=environment)
        # a kill that came late leaves a log beyond this step: then the next comes at the start,
        # while the files are read and cut back
        while process.poll() is None and last_step(killed) < step:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.02))  # anywhere within a step, in the middle of a file
        hit += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert hit > 0.8 * kills
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == 0
    assert_same_run(whole, killed)


def last_step(folder):
    """The last whole row of the log; -1 without."""
    try:
        rows = (folder / "log.csv").read_text(encoding="utf-8").splitlines()
        return int(rows[-1].split(",")[0])
    except (OSError, IndexError, ValueError):
        return -1


def test_kill_9_three_times(tmp_path):
    killed_runs(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.physics
def test_kill_9_twenty_times(tmp_path):
    killed_runs(tmp_path, 20)


def test_kill_before_the_first_record(tmp_path):
    """The state between the first checkpoint and the first frame starts from the beginning."""
    run_md(alloy(), CONFIG, tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    run = Run(alloy(), CONFIG, Guard.at_start(alloy()), folder, None, ())
    run.begin()
    run.save(0, Mark())
    (folder / "trajectory.traj").write_bytes(b"- of Ulm torn")
    run_md(alloy(), CONFIG, folder, resume=True)
    assert_same_run(tmp_path / "whole", folder)


def test_molecule_has_no_volume(tmp_path):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.4]])
    atoms.calc = EMT()
    log = run_md(atoms, replace(CONFIG, steps=5), tmp_path).log
    assert np.isnan(log.volume).all()
    assert np.isnan(log.pressure).all()
