import subprocess
import sys
import tomllib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import read, write

from pet_calc.cli import main
from pet_calc.cli.md import MDPotential
from pet_calc.workflows.md import ENSEMBLES


class Springs(Calculator):
    """Stand-in for a potential of water: every atom on a spring to its first position."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    sites = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.sites is None:
            self.sites = atoms.get_positions()
        d = atoms.positions - self.sites
        self.results = {"energy": 5.0 * float((d**2).sum()), "forces": -10.0 * d}


@pytest.fixture
def command(monkeypatch):
    """Run ``pet-calc md`` in this process with stand-in potentials; returns the exit code."""

    def run(*arguments, calculator=EMT):
        monkeypatch.setattr(MDPotential, "load", lambda _: calculator())
        monkeypatch.setattr(sys, "argv", ["pet-calc", "md", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.fixture
def copper_file(tmp_path):
    path = tmp_path / "copper.xyz"
    write(path, bulk("Cu", cubic=True))
    return path


def test_water_run_writes_its_files(command, tmp_path, capsys):
    out = tmp_path / "out"
    code = command(
        *("--system", "water", "--molecules", 8, "--steps", 20, "--frame-interval", 2, "--seed", 3),
        *("--tau", 50, "--out", out),
        calculator=Springs,
    )
    assert code == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("md.toml", "trajectory.traj", "log.csv", "checkpoint.npz"),
        "md.png",
        "rdf.csv",
    }
    settings = tomllib.loads((out / "md.toml").read_text(encoding="utf-8"))
    assert settings["ensemble"] == "nvt-langevin"
    assert settings["tau"] == 50.0
    assert settings["seed"] == 3
    assert "contact=0.6" in settings["guard"]
    assert len(read(out / "trajectory.traj", index=":")) == 11
    table = np.genfromtxt(out / "rdf.csv", delimiter=",", names=True)
    assert set(table.dtype.names) >= {"r_A", "g_OO", "g_OH", "g_HH", "g_OO_error"}
    text = capsys.readouterr()
    for part in ("potential:", "mean temperature", "2.80 ± 0.01", "ns/day"):
        assert part in text.out
    assert "first step done" in text.err


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_file_run(command, copper_file, ensemble, tmp_path):
    out = tmp_path / "out"
    assert (
        command(
            copper_file, "--ensemble", ensemble, "--steps", 10, "--pressure-tau", 99, "--out", out
        )
        == 0
    )
    assert (out / "md.png").is_file()
    assert not (out / "rdf.csv").exists()


def test_same_seed_same_run(command, copper_file, tmp_path):
    for name in ("a", "b"):
        assert command(copper_file, "--steps", 10, "--seed", 5, "--out", tmp_path / name) == 0
    a, b = (read(tmp_path / name / "trajectory.traj") for name in ("a", "b"))
    assert (a.positions == b.positions).all()


def test_earlier_run_is_kept(command, copper_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(copper_file, "--steps", 4, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert command(copper_file, "--steps", 4, "--out", out) == 1
    assert "already holds" in capsys.readouterr().err
    # a start that fails costs nothing either, even where overwriting is allowed
    assert command(tmp_path / "missing.xyz", "--out", out, "--overwrite") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert command(copper_file, "--steps", 4, "--out", out, "--overwrite") == 0


def test_unwritable_output_is_refused_first(command, copper_file, tmp_path, capsys):
    def never():
        raise AssertionError("the potential was loaded before the output was checked")

    (tmp_path / "file").write_text("")
    code = command(copper_file, "--out", tmp_path / "file" / "out", calculator=never)
    assert code == 1
    assert "must be writable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("not a structure\n", "cannot be read"),
        ("0\n\n", "at least one atom"),
        ("1\n\nCu nan 0 0\n", "must be finite"),
        ("2\n\nCu 0 0 0\nCu 0 0 0.1\n", "nearly touch"),
    ],
    ids=["empty-file", "garbage", "no-atoms", "nan", "overlap"],
)
def test_bad_structures_end_with_a_message(command, content, message, tmp_path, capsys):
    path = tmp_path / "bad.xyz"
    path.write_text(content)
    assert command(path, "--out", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["file.xyz", "--system", "water"],
        ["--system", "water", "--ensemble", "npt"],
        ["--system", "water", "--resume", "--overwrite"],
        ["--system", "water", "--on-step", "no_such_module:f"],
        ["--system", "water", "--on-step", "math"],
        ["--config", "{swaps: 3}"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(command, arguments, tmp_path):
    if arguments[:1] == ["--config"]:
        (tmp_path / "options.yaml").write_text(arguments[1])
        arguments = ["--config", tmp_path / "options.yaml"]
    assert command(*arguments, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_wrong_value_exits_with_1(command, tmp_path, capsys):
    assert command("--system", "water", "--timestep", 0, "--out", tmp_path / "out") == 1
    assert "`timestep` must be a positive" in capsys.readouterr().err


def test_stopped_run_names_the_cause(command, tmp_path, capsys):
    class Repels(Springs):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results["forces"] = -self.results["forces"]

    path = tmp_path / "argon.xyz"
    write(path, Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 4]]))
    out = tmp_path / "out"
    code = command(
        path, "--timestep", 5, "--steps", 5000, "--ensemble", "nve", "--out", out, calculator=Repels
    )
    assert code == 1
    assert "temperature exploded" in " ".join(capsys.readouterr().err.split())
    assert (out / "last_good.traj").is_file()


def test_help_has_an_example(command, capsys):
    assert command("--help") == 0
    assert "pet-calc md --system water" in capsys.readouterr().out


def test_import_is_light():
    code = (
        "import sys, pet_calc.cli; "
        "heavy = {'torch', 'ase', 'matplotlib', 'scipy'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_continued_run_is_the_whole_run(command, copper_file, tmp_path, capsys):
    options = ("--timestep", 2, "--ensemble", "nvt-nhc", "--checkpoint-interval", 10, "--seed", 4)
    options += ("--temperature-end", 400, "--ramp-steps", 20)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command(copper_file, *options, "--steps", 40, "--out", whole) == 0
    assert command(copper_file, *options, "--steps", 20, "--out", parts) == 0
    # the settings that a run wrote are enough to continue it
    assert command("--config", parts / "md.toml", "--resume", "--steps", 40) == 0
    assert "continued 21/40: after step 20" in capsys.readouterr().err
    a, b = (read(folder / "trajectory.traj", index=":") for folder in (whole, parts))
    assert len(a) == len(b) == 3
    assert all((x.positions == y.positions).all() for x, y in zip(a, b, strict=True))
    settings = tomllib.loads((parts / "md.toml").read_text(encoding="utf-8"))
    assert (settings["steps"], settings["ramp_steps"]) == (40, 20)


def test_refused_continuation_changes_nothing(command, copper_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(copper_file, "--steps", 4, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = ("--resume", "--steps", 8, "--out", out)
    assert command(copper_file, *again, "--temperature", 310) == 1
    assert "temperature was 300.0 and is 310.0" in " ".join(capsys.readouterr().err.split())
    write(copper_file, bulk("Cu", cubic=True, a=3.7))
    assert command(copper_file, *again) == 1
    assert "input structure has changed" in " ".join(capsys.readouterr().err.split())
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_ramp_swaps_and_observer(command, tmp_path, capsys, monkeypatch):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[::2] = "Au"
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    path, out = tmp_path / "alloy.xyz", tmp_path / "out"
    write(path, atoms)
    (tmp_path / "my_hooks.py").write_text(
        "def count(atoms, sample):\n"
        "    with open('seen', 'a') as file:\n"
        "        file.write(f'{sample.step} ')\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ("--ensemble", "npt-mtk-full", "--timestep", 2, "--temperature-end", 900)
    swaps = ("--swap-interval", 2, "--swap-attempts", 2)
    hook = ("--on-step", "my_hooks:count", "--every", 5)
    assert command(path, *options, *swaps, *hook, "--steps", 20, "--out", out) == 0
    assert (tmp_path / "seen").read_text() == "0 5 10 15 20 "
    text = capsys.readouterr().out
    for part in ("mean pressure", "mean density", "accepted swap moves"):
        assert part in text
    log = np.genfromtxt(out / "log.csv", delimiter=",", names=True)
    assert np.isfinite(log["pressure_GPa"]).all()
    assert len(set(log["volume_A3"])) == len(log)
    assert log["swap_acceptance"][-1] >= 0


def test_settings_are_read_by_config(command, copper_file, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert command(copper_file, "--steps", 4, "--temperature", 77, "--out", one) == 0
    assert command("--config", one / "md.toml", "--out", two) == 0
    a, b = (tomllib.loads((f / "md.toml").read_text(encoding="utf-8")) for f in (one, two))
    assert (a.pop("out"), b.pop("out")) == (str(one), str(two))
    assert a.pop("provenance")["seed"] == b.pop("provenance")["seed"] == 0
    assert a == b
    assert a["temperature"] == 77.0


def test_constant_pressure_needs_a_potential_with_stress(tmp_path, capsys, monkeypatch):
    options = ("--system", "water", "--molecules", "8", "--ensemble", "npt-scr")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["pet-calc", "md", *options, "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "the data of pet-water-v4 have energy, forces only" in message
    assert not list(out.iterdir())


def test_constant_pressure_needs_stress_and_periodicity(command, tmp_path, capsys):
    path = tmp_path / "argon.xyz"
    write(path, Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 4]]))
    options = (path, "--ensemble", "npt-mtk-iso", "--out", tmp_path / "out")
    assert command(*options) == 1
    assert "needs periodicity in three directions" in " ".join(capsys.readouterr().err.split())
    write(path, Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 4]], cell=[8] * 3, pbc=True))
    assert command(*options, calculator=Springs) == 1
    assert "needs the stress, but Springs" in " ".join(capsys.readouterr().err.split())
