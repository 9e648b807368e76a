"""The pipeline and its verb: outcomes, isolation of failures, and continuation."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.io import read, write
from calculators.small_potentials import small_pet

from pet_calc import PETCalculator
from pet_calc.cli import main
from pet_calc.crystals.diffusion.sparse import SparseConfig, UniMatSparse
from pet_calc.crystals.generation import Composition, Generator
from pet_calc.crystals.generation.config import GenerateConfig
from pet_calc.crystals.generation.hull import Hull
from pet_calc.crystals.generation.pipeline import generate
from pet_calc.crystals.io.generators import save_generator
from pet_calc.crystals.training.generator import GeneratorConfig, train_generator
from pet_calc.errors import CheckpointError, IntegrityError
from pet_calc.io.models.weights import save_model
from pet_calc.workflows.relax import RelaxConfig

QUICK = RelaxConfig(cell="free", fmax=0.1, steps=40)


class Failing(EMT):
    """EMT that crashes, gives NaN, or goes on, by the number of the structure."""

    seen: list[float] = []  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        key = round(float(atoms.cell.volume), 9)
        if key not in self.seen:
            self.seen.append(key)
        k = self.seen.index(key)
        if k == 0:
            raise RuntimeError("the first structure crashes")
        super().calculate(atoms, properties, system_changes)
        if k == 1:
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pet-calc", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run


def rows(folder):
    with (folder / "candidates.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_failure_never_loses_the_others(tmp_path) -> None:
    config = GenerateConfig("Cu3Au", (1,), 6, relax=QUICK)
    Failing.seen = []
    found = generate(config, Failing(), tmp_path)
    status = [c.status for c in found.candidates]
    assert len(status) == 6
    assert sum(s == "failed" for s in status) == 2
    reasons = " ".join(c.reason for c in found.candidates if c.status == "failed")
    assert "crashes" in reasons
    assert len(found.kept) >= 2


def test_batches_of_a_potential_and_hulls_of_another(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path / "model", small_pet(), dtype=torch.float64)
    calculator = PETCalculator(model=tmp_path / "model")
    config = GenerateConfig("H2O", (1, 2), 4, ("random",), relax=RelaxConfig(cell="free", steps=2))
    found = generate(config, calculator, tmp_path / "out")
    assert found.energy_column == "formation_energy"
    assert len(found.candidates) == 4
    assert all(np.isfinite(c.above_hull) for c in found.kept)
    alien = Hull(found.hull.phases, {"calculator": "another", "sha256": "0"})
    with pytest.raises(ValueError, match="energies of two"):
        generate(config, calculator, tmp_path / "out", hull=alien, resume=True)


def test_run_goes_on_where_it_stopped(tmp_path) -> None:
    config = GenerateConfig("CuAu", (1, 2), 8, relax=RelaxConfig(cell="free", steps=5))
    whole = generate(config, EMT(), tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(index, outcome):
        if index == 3:
            raise Stop

    with pytest.raises(Stop):
        generate(config, EMT(), tmp_path / "parts", on_result=stop)
    done = []
    parts = generate(config, EMT(), tmp_path / "parts", resume=True,
                     on_result=lambda k, _: done.append(k))  # fmt: skip
    assert done == [4, 5, 6, 7]
    assert [c.proposal.id for c in parts.candidates] == [c.proposal.id for c in whole.candidates]
    assert [c.energy for c in parts.kept] == pytest.approx([c.energy for c in whole.kept], abs=1e-9)


def test_ground_state_of_an_alloy_is_first(command, tmp_path) -> None:
    write(tmp_path / "competitor.cif", bulk("CuAu", "cesiumchloride", a=3.1))
    emt = ("--calculator", "ase.calculators.emt:EMT")
    assert command("hull", "build", "competitor.cif", *emt, "--out", "hull") == 0
    options = (
        "--formula",
        "Cu3Au",
        "--z",
        "1",
        "--n",
        "3",
        "--steps",
        "60",
        "--hull",
        "hull/hull.json",
        *emt,
    )
    assert command("generate", *options, "--out", "gen", "--fmax", "0.02") == 0
    out = tmp_path / "gen"
    table = rows(out)
    assert table[0]["space_group"] == "Pm-3m (221)"
    assert float(table[0]["e_hull_eV_per_atom"]) < 0.05
    assert table[0]["rank"] == "1"
    # one order everywhere
    frames = read(out / "candidates.extxyz", ":")
    relaxed = [r["id"] for r in table if r["energy_eV_per_atom"]]
    assert [a.info["id"] for a in frames] == relaxed
    energies = [float(r["energy_eV_per_atom"]) for r in table if r["rank"]]
    assert energies == sorted(energies)
    assert "viewer" in (out / "candidates.html").read_text(encoding="utf-8")
    assert len(list((out / "cif").glob("*.cif"))) == len(energies)
    # nothing is overwritten unasked; a resumed run does nothing again, and refuses other settings
    assert command("generate", *options, "--out", "gen", "--fmax", "0.02") == 1
    before = (out / "relax" / "journal.jsonl").read_bytes()
    assert command("generate", *options, "--out", "gen", "--fmax", "0.02", "--resume") == 0
    assert (out / "relax" / "journal.jsonl").read_bytes() == before
    assert command("generate", *options, "--out", "gen", "--fmax", "0.5", "--resume") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--formula", "Xy"), "formula"),
        (("--formula", "Cu", "--sources", "nothing"), "no generator"),
        (("--formula", "Cu", "--hull", "gone.json"), "no hull"),
        (("--formula", "Cu", "--space-groups", "231"), "230"),
    ],
)
def test_bad_input(command, capsys, options, words) -> None:
    assert command("generate", *options, "--calculator", "ase.calculators.emt:EMT") == 1
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A generator trained for a moment on rock salt with different lattice constants."""
    folder = tmp_path_factory.mktemp("generator")
    write(folder / "salt.extxyz", [bulk("CuAu", "rocksalt", a=4.2 + 0.01 * k) for k in range(8)])
    config = GeneratorConfig(
        "salt", ("salt.extxyz",), 250, batch=32, learning_rate=3e-3, warmup=10, average=0.98,
        model=SparseConfig(width=32, heads=2, layers=2, slots=2),
    )  # fmt: skip
    return train_generator(config, folder / "run", folder), config


def test_training_learns_and_generator_is_checked(trained, command, tmp_path) -> None:
    folder, _ = trained
    generator = Generator.load(folder)
    crystals = generator.sample(Composition.of("CuAu"), 8, seed=0)
    again = generator.sample(Composition.of("CuAu"), 8, seed=0)
    for a, b in zip(crystals, again, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
    shifts = np.array([a.get_scaled_positions()[1] - a.get_scaled_positions()[0] for a in crystals])
    # Cu at the corner and Au in the middle, where noise alone would be uniform
    assert np.abs(np.abs(shifts) - 0.5).mean() < 0.1
    volumes = [a.get_volume() for a in crystals]
    assert np.mean(volumes) == pytest.approx(4.235**3 / 4, rel=0.15)
    with pytest.raises(ValueError, match="at most 2"):
        generator.sample(Composition.of("CuAu", 3), 1, seed=0)
    assert (
        command(
            "generate",
            "--formula",
            "CuAu",
            "--z",
            "1,3",
            "--n",
            "4",
            "--sources",
            folder,
            "--calculator",
            "ase.calculators.emt:EMT",
            "--steps",
            "5",
            "--out",
            "gen",
        )
        == 0
    )
    table = rows(tmp_path / "gen")
    assert any("at most 2" in r["reason"] for r in table)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("config.json", "weights.safetensors"):
        content = bytearray((folder / name).read_bytes())
        if name != "config.json":
            content[-1] ^= 1
        (damaged / name).write_bytes(content)
    with pytest.raises(IntegrityError, match="SHA-256"):
        Generator.load(damaged)


def test_training_goes_on_from_its_checkpoint(trained, tmp_path) -> None:
    from dataclasses import replace

    folder, config = trained
    data = folder.parent.parent
    short = replace(config, steps=6)
    assert train_generator(short, tmp_path / "run", data, stop_after=3) is None
    assert not (tmp_path / "run/model").exists()
    with pytest.raises(CheckpointError, match="different: \\['steps'\\]"):
        train_generator(replace(short, steps=7), tmp_path / "run", data)
    train_generator(short, tmp_path / "run", data)
    recorded = json.loads((tmp_path / "run/model/config.json").read_text())["training"]
    assert recorded["steps_done"] == 6
    assert recorded["crystals"] == 8


def test_saved_weights_are_those_of_the_model(tmp_path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UniMatSparse(SparseConfig(width=16, heads=2, layers=1, slots=3))
    save_generator(tmp_path, model, {})
    loaded = Generator.load(tmp_path).model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
