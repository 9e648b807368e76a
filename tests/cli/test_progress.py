"""Every verb that computes shows a bar: on stderr, and only on a terminal."""

import ast
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.trajectory import TrajectoryWriter
from calculators.small_potentials import liquid, small_pet
from cli.test_help import VERBS
from crystals.models.crystals import small_model
from typer.testing import CliRunner

import pet_calc
from pet_calc.cli import app, main
from pet_calc.crystals.io.property_weights import save_property_model
from pet_calc.crystals.models import PropertyEnsemble
from pet_calc.io.models.expected import write_expected
from pet_calc.io.models.weights import load_model, save_model

#: What rich writes as a live display begins.
HIDE_CURSOR = "\x1b[?25l"
EMT_OPTION = "--calculator ase.calculators.emt:EMT"
TRAINING = """
name = "small"
[model]
elements = [1, 8]
cutoff = 3.0
cutoff_width = 2.0
d_pet = 8
d_node = 12
d_head = 8
d_feedforward = 8
num_heads = 2
num_attention_layers = 1
num_gnn_layers = 1
[data]
train = ["water.extxyz"]
validation_frames = 1
[optimizer]
name = "adam"
[[stages]]
steps = 2
"""
CARD = """---
metrics: {"relative_tolerance": 1e9, "test": {"files": ["water.extxyz"], "energy_mae_meV_atom": 1}}
---
# A card
"""
#: A short run of each verb that can take more than two seconds, on the files of the fixture.
RUNS = {
    "md": f"Cu.traj {EMT_OPTION} --steps 2",
    "relax": f"Cu.traj {EMT_OPTION} --steps 1",
    "eos": f"Cu.traj {EMT_OPTION} --points 5 --clamp-ions --no-relax",
    "elastic": f"Cu.traj {EMT_OPTION} --points 3 --no-relax --clamp-ions",
    "neb": f"N.traj N2.traj {EMT_OPTION} --images 1 --steps 1 --no-relax",
    "phonons": f"Cu.traj {EMT_OPTION} --min-length 7 --mesh 10 --t-step 500 --no-relax",
    "qha": f"Cu.traj {EMT_OPTION} --min-length 7 --mesh 10 --t-step 500 --no-relax --points 5 "
    "--span 0.98,1.06",
    "analyze": "trajectory.traj --interval 10 --observables rdf",
    "report": "eos --no-viewer",
    "train": "train.toml",
    "evaluate": "water.extxyz --model water",
    "predict": "NaCl.traj --property x --model crystals",
    "doctor": f"Cu.traj {EMT_OPTION} --quick",
    "generate": f"--formula Cu --z 1 --n 1 --sources random {EMT_OPTION} --steps 1",
    "hull build": f"CuAu.traj {EMT_OPTION} --steps 1",
    "models verify": "water --data .",
}
#: Others: they look something up, or (import, download) have tests of their own.
QUICK = {
    "show", "models list", "models show", "models path", "models download", "models import",
    "models record",
}  # fmt: skip
NEEDS = {"phonons": "phonopy", "qha": "phonopy", "elastic": "matscipy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs of all verbs."""
    folder = tmp_path_factory.mktemp("inputs")
    copper = bulk("Cu", a=3.59)
    write(folder / "Cu.traj", copper)
    write(folder / "CuAu.traj", bulk("CuAu", "cesiumchloride", a=3.1))
    write(folder / "NaCl.traj", bulk("NaCl", "rocksalt", 5.64))
    for name, x in (("N", 0.0), ("N2", 0.4)):
        write(folder / f"{name}.traj", Atoms("N2", positions=[[0, 0, 0], [1.1 + x, 0, 0]]))
    with TrajectoryWriter(folder / "trajectory.traj") as file:
        for seed in range(3):
            atoms = bulk("Cu", cubic=True)
            atoms.rattle(0.01, seed=seed)
            file.write(atoms)
    model = small_pet()
    save_model(folder / "water", model)
    frames = [liquid(1, seed=k, length=5.0) for k in range(3)]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=-400.0, forces=np.zeros((3, 3)))
    ase.io.write(folder / "water.extxyz", frames)
    (folder / "train.toml").write_text(TRAINING)
    (folder / "water" / "README.md").write_text(CARD)
    write_expected(folder / "water", load_model(folder / "water"), {"one": liquid(1, length=5.0)})
    ensemble = PropertyEnsemble.of([small_model("cgcnn")])
    save_property_model(folder / "crystals", ensemble, {})
    words = f"eos {folder / 'Cu.traj'} {RUNS['eos'].partition(' ')[2]} --out {folder / 'eos'}"
    assert CliRunner().invoke(app, words.split()).exit_code == 0
    return folder


def call(monkeypatch, verb, out):
    """Run a verb in this process."""
    words = [*verb.split(), *RUNS[verb].split()]
    if any(p.name == "out" for p in VERBS[verb].params):
        words += ["--out", str(out / "report.html" if verb == "report" else out)]
    monkeypatch.setattr(sys, "argv", ["pet-calc", *words])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.parametrize("verb", RUNS)
def test_bar_is_on_stderr(verb, folder, tmp_path, monkeypatch, capsys):
    if verb in NEEDS:
        pytest.importorskip(NEEDS[verb])
    monkeypatch.chdir(folder)
    # rich takes every file for a terminal then
    monkeypatch.setenv("FORCE_COLOR", "1")
    code = call(monkeypatch, verb, tmp_path / "out")
    text = capsys.readouterr()
    assert code in (0, 1, 3), text.err  # of relaxations that are cut short, and of doctor
    assert "Error" not in text.err
    assert HIDE_CURSOR in text.err
    assert HIDE_CURSOR not in text.out


def test_no_verb_is_left_out():
    assert set(RUNS) | QUICK == set(VERBS)
    assert not set(RUNS) & QUICK


@pytest.mark.parametrize("verb", ["md", "evaluate", "doctor"])
def test_no_bar_without_a_terminal(verb, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert call(monkeypatch, verb, tmp_path / "out") in (0, 1, 3)
    text = capsys.readouterr()
    assert "\x1b" not in text.err + text.out
    # a batch job's file has a line for each tenth of a simulation
    assert ("MD 2/2: " in text.err) == (verb == "md")


def rich_bars(source):
    """What makes a bar or a spinner by rich itself in a module."""
    calls = [n.func for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    functions = {f.id for f in calls if isinstance(f, ast.Name)}
    methods = {f.attr for f in calls if isinstance(f, ast.Attribute)}
    return sorted(functions & {"RichProgress", "Progress", "Live", "track"} | methods & {"status"})


def test_bars_are_of_one_kind():
    """All of them are made where stderr and terminals are seen to."""
    root = Path(pet_calc.__file__).parent
    found = {}
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "rich" in text and (names := rich_bars(text)):
            found[path.relative_to(root).as_posix()] = names
    assert found == {"workflows/progress.py": ["RichProgress"]}
    assert rich_bars("for x in track(y):\n    console.status('...')") == ["status", "track"]
