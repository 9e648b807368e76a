import json
import sys
import tomllib

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from pet_calc.cli import main
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.water_box import water_box


@pytest.fixture
def command(monkeypatch):
    """Run ``pet-calc`` in this process; returns the exit code."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pet-calc", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of a small alloy: 21 frames, and one more that is off the interval."""
    folder = tmp_path_factory.mktemp("md")
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.numbers[::4] = 79
    atoms.set_masses("defaults")
    atoms.calc = EMT()
    run_md(atoms, MDConfig(steps=102, timestep=2.0, frame_interval=5, temperature=500), folder)
    (folder / "md.toml").write_text("timestep = 2.0\nframe_interval = 5\nsteps = 102\n")
    return folder


def results(out):
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary, {q["name"]: q for q in summary["quantities"]}


def test_run_of_our_own(command, run_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("analyze", run_folder / "trajectory.traj", "--discard", 0, "--out", out) == 0
    summary, found = results(out)
    assert summary["n_frames"] == 21  # the last is not on the interval
    assert found["Warren-Cowley Cu-Au, shell 1"]["value"] == pytest.approx(-1 / 3)
    assert found["temperature"]["unit"] == "K"
    assert summary["provenance"]["versions"]["ase"]
    names = {path.name for path in out.iterdir()}
    assert {"summary.json", "analyze.toml", "observables.png", "rdf.csv", "order.csv"} <= names
    settings = tomllib.loads((out / "analyze.toml").read_text(encoding="utf-8"))
    assert settings["interval"] == 10.0
    table = np.genfromtxt(out / "rdf.csv", delimiter=",", names=True)
    assert set(table.dtype.names) >= {"r_A", "g_AuCu", "g_AuCu_error"}
    text = " ".join(capsys.readouterr().out.split())
    assert "10 fs apart" in text
    assert "Warren-Cowley" in text
    # the settings written are options of the next analysis
    assert (
        command(
            *("analyze", run_folder / "trajectory.traj", "--config", out / "analyze.toml"),
            *("--out", tmp_path / "again"),
        )
        == 0
    )
    assert results(tmp_path / "again")[1] == found


def lammps_dump(path, frames):
    with path.open("w") as file:
        for k, atoms in enumerate(frames):
            file.write(f"ITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n")
            file.write("ITEM: BOX BOUNDS pp pp pp\n")
            file.writelines(f"0.0 {x}\n" for x in atoms.cell.lengths())
            file.write("ITEM: ATOMS id type x y z\n")
            for i, (z, x) in enumerate(zip(atoms.numbers, atoms.positions, strict=True)):
                file.write(f"{i + 1} {1 if z == 8 else 2} {x[0]} {x[1]} {x[2]}\n")


@pytest.mark.parametrize("kind", ["extxyz", "lammps", "traj", "xdatcar"])
def test_trajectories_of_other_programs(command, kind, tmp_path):
    rng = np.random.default_rng(0)
    frames = [water_box(8, seed=1, sweeps=20) for _ in range(30)]
    order = np.argsort(-frames[0].numbers, kind="stable")  # XDATCAR keeps elements together
    frames = [a[order] for a in frames]
    for atoms in frames:
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        atoms.wrap()
    extra = []
    if kind == "lammps":
        path = tmp_path / "dump.lammpstrj"
        lammps_dump(path, frames)
        extra = ["--lammps-species", "O,H"]
    else:
        path = tmp_path / {"extxyz": "w.extxyz", "traj": "w.traj", "xdatcar": "XDATCAR"}[kind]
        write(path, frames, **({"format": "vasp-xdatcar"} if kind == "xdatcar" else {}))
    out = tmp_path / "out"
    assert command("analyze", path, "--interval", 2, *extra, "--out", out) == 0
    summary, found = results(out)
    assert summary["formula"] in ("H16O8", "H2O", "O8H16")
    assert found["density"]["value"] == pytest.approx(1.0, abs=1e-3)
    assert "hydrogen bonds per molecule" in found
    assert (out / "vdos.csv").is_file()


def test_a_dump_without_elements_is_not_guessed(command, tmp_path, capsys):
    path = tmp_path / "dump.lammpstrj"
    lammps_dump(path, [water_box(8, seed=1, sweeps=0)] * 3)
    assert command("analyze", path, "--out", tmp_path / "out") == 1
    assert "--lammps-species O,H" in " ".join(capsys.readouterr().err.split())


def test_report_of_an_analysis(command, run_folder, tmp_path):
    out = tmp_path / "out"
    assert (
        command(
            *("analyze", run_folder / "trajectory.traj", "--observables", "density,rdf"),
            *("--report", "--out", out),
        )
        == 0
    )
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "viewer-structure" in text
    assert "Observables of" in text
    assert command("report", out) == 1  # there is one already
    assert command("report", out, "--overwrite", "--no-viewer") == 0
    assert "<script" not in (out / "report.html").read_text(encoding="utf-8")


def test_report_of_a_run(command, run_folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert command("report", run_folder, "--out", page) == 0
    assert "Molecular dynamics of" in page.read_text(encoding="utf-8")
    assert command("report", tmp_path / "missing") == 1
    assert "there is no folder" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--observables", "density,color"], "got color as well"),
        (["--observables", "thermal-expansion"], "the cell is constant"),
        (["--observables", "hydrogen-bonds"], "need oxygen and hydrogen"),
        (["--observables", "vdos", "--interval", "40"], "would be folded back"),
        (["--interval", "-1"], "must be positive"),
        (["--crystal", "a15"], "not one of"),
        (["--crystal", "bcc"], "must be a full crystal lattice"),
        (["--r-max", "9"], "at most half the smallest cell height"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_impossible_requests(command, arguments, message, run_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("analyze", run_folder / "trajectory.traj", *arguments, "--out", out) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(out.glob("*"))


@pytest.mark.parametrize("content", ["", "not a structure\n"], ids=["empty", "garbage"])
def test_bad_files(command, content, tmp_path, capsys):
    path = tmp_path / "bad.xyz"
    path.write_text(content)
    assert command("analyze", path, "--out", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert "cannot be read" in " ".join(err.split())
    assert "Traceback" not in err


def test_earlier_results_are_kept(command, run_folder, tmp_path, capsys):
    out, path = tmp_path / "out", run_folder / "trajectory.traj"
    arguments = ("analyze", path, "--observables", "density,rdf", "--out", out)
    assert command(*arguments) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert command(*arguments) == 1
    assert "already holds" in " ".join(capsys.readouterr().err.split())
    assert command("analyze", tmp_path / "no.traj", "--out", out, "--overwrite") == 1
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert command(*arguments, "--overwrite") == 0


def test_usage(command, run_folder, tmp_path, capsys):
    assert command("analyze", "--help") == 0
    assert "pet-calc analyze md_out/trajectory.traj" in capsys.readouterr().out
    assert command("report", "--help") == 0
    assert "pet-calc report md_out" in capsys.readouterr().out
    path = run_folder / "trajectory.traj"
    assert command("analyze", path, "--fit-start", 10, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
    assert len(read(path, ":")) == 22
