import csv
import json
import sys
import tomllib

import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100
from ase.constraints import FixAtoms
from ase.io import read, write
from calculators.small_potentials import small_pet

from pet_calc.cli import main
from pet_calc.io.models.weights import save_model
from pet_calc.io.runs.provenance import record_of
from pet_calc.io.runs.summaries import summarize

EMT = ("--calculator", "ase.calculators.emt:EMT")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run ``pet-calc VERB ...`` in this process, in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pet-calc", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run


@pytest.fixture
def copper(tmp_path):
    path = tmp_path / "copper.xyz"
    write(path, bulk("Cu"))
    return path


@pytest.fixture
def hop(tmp_path):
    ends = []
    for name, shift in (("start", 0.0), ("end", 0.5)):
        slab = fcc100("Al", (2, 2, 1), vacuum=4)
        slab.set_constraint(FixAtoms(range(4)))
        add_adsorbate(slab, "Au", 1.9, "hollow")
        slab.positions[-1, 0] += shift * slab.cell[0, 0]
        ends.append(tmp_path / f"{name}.traj")
        write(ends[-1], slab)
    return ends


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_origin_everywhere(folder, verb):
    """Every file of a run tells where it comes from."""
    settings = tomllib.loads((folder / f"{verb}.toml").read_text(encoding="utf-8"))
    command = settings["provenance"]["command"]
    assert command.startswith(f"pet-calc {verb}")
    for path in folder.iterdir():
        found = summarize(path)
        assert found.origin["command"] == command, path.name
        assert found.origin["versions"]["ase"], path.name
        # a table has no room for a record of its own
        assert bool(found.source) == (path.suffix == ".csv")
    assert summarize(folder).kind == f"run of pet-calc {verb}"


def test_eos(command, copper, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("eos", copper, *EMT, "--span", "0.97,1.03", "--points", 6, "--out", out) == 0
    result = json.loads((out / "eos.json").read_text(encoding="utf-8"))
    assert result["B0_GPa"] == pytest.approx(134.4, abs=0.5)
    assert result["provenance"]["calculator"] == "ase.calculators.emt.EMT"
    with (out / "eos.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    frames = read(out / "eos.extxyz", index=":")
    assert [float(r["energy_eV"]) for r in rows] == [f.get_potential_energy() for f in frames]
    assert record_of(frames[0])["command"] == result["provenance"]["command"]
    assert_origin_everywhere(out, "eos")
    text = capsys.readouterr()
    for part in ("B0", "GPa"):
        assert part in text.out
    assert "volumes 6/6: 0 not converged" in text.err
    again = tmp_path / "again"
    assert command("eos", copper, "--config", out / "eos.toml", "--out", again) == 0
    assert (again / "eos.csv").read_bytes() == (out / "eos.csv").read_bytes()


def test_elastic(command, copper, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("elastic", copper, *EMT, "--points", 3, "--strain", 0.004, "--out", out) == 0
    result = json.loads((out / "elastic.json").read_text(encoding="utf-8"))
    assert result["C_GPa"][0][0] == pytest.approx(172.6, abs=0.5)
    assert result["stable"]
    assert result["space_group"] == "Fm-3m (225)"
    assert len((out / "elastic.csv").read_text(encoding="utf-8").splitlines()) == 37
    assert_origin_everywhere(out, "elastic")
    text = capsys.readouterr()
    for part in ("K_Hill", "stable"):
        assert part in text.out
    assert "strains 18/18: 0 not converged" in text.err
    assert "under a stress" not in text.out
    write(copper, bulk("Cu", a=3.5))
    options = ("--no-relax", "--clamp-ions", "--points", 3, "--out", tmp_path / "loaded")
    assert command("elastic", copper, *EMT, *options) == 0
    text = capsys.readouterr()
    assert "under a stress of" in " ".join(text.out.split())
    # single points do not converge, and are not said to have failed
    assert "strains 18/18\n" in text.err


def test_neb(command, hop, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("neb", *hop, *EMT, "--images", 3, "--out", out) == 0
    result = json.loads((out / "neb.json").read_text(encoding="utf-8"))
    assert result["barrier_eV"] == pytest.approx(result["reverse_barrier_eV"], abs=1e-6)
    assert result["barrier_eV"] > 0.1
    assert len(read(out / "neb.extxyz", index=":")) == 5
    assert_origin_everywhere(out, "neb")
    assert "converged" in capsys.readouterr().out
    short = ("--images", 1, "--steps", 1, "--no-relax", "--out", tmp_path / "short")
    assert command("neb", *hop, *EMT, *short) == 1
    assert "NOT converged" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["eos", "elastic"])
@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (None, "no structure file"),
        ("garbage\n", "cannot be read"),
        ("0\n\n", "at least one atom"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T"\nO nan 0 0\n', "must be finite"),
        ('2\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T"\nO 0 0 0\nO 0 0 0.1\n', "nearly touch"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T"\nCu 0 0 0\n', "covers H, O"),
        ('1\nLattice="0 0 0 0 0 0 0 0 0" pbc="T T T"\nO 0 0 0\n', "lattice vector"),
        ("1\n\nO 0 0 0\n", "three dimensions"),
    ],
    ids=["absent", "garbage", "empty", "nan", "overlap", "element", "zero-cell", "molecule"],
)
def test_bad_structures_cost_nothing(command, verb, structure, message, tmp_path, capsys):
    save_model(tmp_path / "model", small_pet())
    if structure is not None:
        (tmp_path / "bad.xyz").write_text(structure)
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{verb}.json").write_text("earlier")
    assert command(verb, "bad.xyz", "--model", "model", "--out", out, "--overwrite") == 1
    err = " ".join(capsys.readouterr().err.split())
    assert message in err
    assert "Traceback" not in err
    assert contents(out) == {f"{verb}.json": b"earlier"}


def test_ends_that_do_not_belong_together(command, hop, tmp_path, capsys):
    write(hop[1], bulk("Cu"))
    assert command("neb", *hop, *EMT, "--out", tmp_path / "out") == 1
    assert "same order" in " ".join(capsys.readouterr().err.split())
    assert command("neb", hop[0], hop[0], *EMT, "--out", tmp_path / "out") == 1
    assert "must differ" in " ".join(capsys.readouterr().err.split())


def test_earlier_run_is_kept(command, copper, tmp_path, capsys):
    out = tmp_path / "out"
    run = ("eos", copper, *EMT, "--span", "0.97,1.03", "--points", 5, "--no-relax", "--out", out)
    assert command(*run) == 0
    before = contents(out)
    assert command(*run) == 1
    assert "already holds" in " ".join(capsys.readouterr().err.split())
    assert contents(out) == before
    assert command(*run, "--overwrite") == 0


def test_no_minimum_is_an_error(command, tmp_path, capsys):
    write(tmp_path / "far.xyz", bulk("Cu", a=4.2))
    options = ("--no-relax", "--clamp-ions", "--span", "0.98,1.02")
    assert command("eos", "far.xyz", *EMT, *options) == 1
    assert "no minimum" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("verb", "example"),
    [
        ("eos", "pet-calc eos POSCAR"),
        ("elastic", "pet-calc elastic POSCAR"),
        ("neb", "pet-calc neb start.xyz end.xyz"),
        ("show", "pet-calc show relax_out"),
    ],
)
def test_help_has_an_example(command, verb, example, capsys):
    assert command(verb, "--help") == 0
    assert example in capsys.readouterr().out


def test_show(command, copper, tmp_path, capsys):
    model = tmp_path / "model"
    save_model(model, small_pet())
    assert command("show", model) == 0
    text = capsys.readouterr().out
    assert "potential" in text
    assert "as recorded" in text
    assert "H O" in text
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert command("show", model) == 0
    assert "NOT as recorded" in capsys.readouterr().out
    write(tmp_path / "plain.traj", Atoms("Cu2", [[0, 0, 0], [0, 0, 2.0]]))
    assert command("show", "plain.traj", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["atoms"] == 2
    assert found["origin"] is None
    for wrong, message in (("gone", "no file"), (tmp_path, "neither a potential")):
        assert command("show", wrong) == 1
        assert message in " ".join(capsys.readouterr().err.split())
    (tmp_path / "bad.json").write_text("{")
    assert command("show", "bad.json") == 1
    assert "cannot be read" in " ".join(capsys.readouterr().err.split())
