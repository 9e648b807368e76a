"""Tests of the winners, compositions that a generator chooses, and runs that are killed."""

import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.io import read

from pet_calc.crystals.diffusion.occupancy import OccupancyConfig, OccupancyModel
from pet_calc.crystals.diffusion.sparse import SparseConfig, UniMatSparse
from pet_calc.crystals.generation import Generator, GeometryWindow
from pet_calc.crystals.generation.config import GenerateConfig
from pet_calc.crystals.generation.pipeline import generate
from pet_calc.crystals.generation.results import write_results
from pet_calc.crystals.io.generators import save_generator
from pet_calc.crystals.training.occupancy import OccupancyTraining, train_occupancy
from pet_calc.workflows.relax import RelaxConfig

QUICK = RelaxConfig(cell="free", fmax=0.05, steps=60)
COPPER = {"formula": "Cu", "z": (1,), "sources": ("substitution",), "relax": QUICK}


def rows(folder):
    with (folder / "candidates.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def chooser(tmp_path_factory):
    """A generator with an untrained denoiser whose occupancy model knows alloys of Cu and Au."""
    folder = tmp_path_factory.mktemp("chooser")
    data = [((29, a), (79, b)) for a in range(1, 4) for b in range(1, 4)] + [((29, 2),)]
    occupancy = train_occupancy(
        data, OccupancyTraining(epochs=40, batch=10, learning_rate=1e-2), slots=3
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UniMatSparse(SparseConfig(width=24, heads=2, layers=1, slots=3, form=2))
    save_generator(folder, model, {}, occupancy)
    return folder


def test_phonons_and_dynamics_of_the_winner(tmp_path) -> None:
    """Fcc copper with EMT: no imaginary mode, and NVT and NPT runs that last."""
    pytest.importorskip("phonopy")
    wide = GeometryWindow(volume=(0.3, 3.0))
    config = GenerateConfig(**COPPER, n=2, window=wide, phonons=1, md=1, md_steps=5)
    found = generate(config, EMT(), tmp_path / "nvt")
    best = found.kept[0]
    assert best.space_group == "Fm-3m (225)"
    assert best.lowest_frequency == pytest.approx(0.0, abs=0.1)
    assert best.md.startswith("5 steps, ")
    assert read(tmp_path / "nvt/md" / best.proposal.id / "trajectory.traj", "-1").info
    assert all(np.isnan(c.lowest_frequency) and not c.md for c in found.kept[1:])
    write_results(found, tmp_path / "nvt", {"formula": "Cu"}, 0.1)
    assert float(rows(tmp_path / "nvt")[0]["lowest_frequency_THz"]) == best.lowest_frequency
    npt = GenerateConfig(**COPPER, n=1, md=1, md_steps=5, md_ensemble="npt-mtk-iso")
    found = generate(npt, EMT(), tmp_path / "npt")
    assert found.kept[0].md.startswith("5 steps, ")
    with pytest.raises(ValueError, match="ensemble"):  # before anything is relaxed
        GenerateConfig(**COPPER, n=1, md=1, md_ensemble="no-such")


class Soft(EMT):
    """EMT that fails after so many calculations."""

    left = 10**9

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the potential is gone")
        super().calculate(atoms, properties, system_changes)


def test_failed_tests_of_a_winner_do_not_lose_it(tmp_path, monkeypatch) -> None:
    from pet_calc.crystals.generation import pipeline

    monkeypatch.setattr(pipeline, "elemental_hull", lambda *_: (pipeline.Hull(()), {}))
    calculator = Soft()
    config = GenerateConfig(**COPPER, n=1, phonons=1, md=1, md_steps=5)

    def gone(stage):
        if stage.startswith("phonons"):
            calculator.left = 0

    found = generate(config, calculator, tmp_path, on_stage=gone)
    (best,) = found.kept
    assert np.isnan(best.lowest_frequency)
    assert "the potential is gone" in best.reason
    assert best.md.startswith("failed")
    assert np.isfinite(best.energy)


class Slow(EMT):
    """EMT that takes long for structures of more than one atom."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if len(atoms) > 1:
            time.sleep(1.2)
        super().calculate(atoms, properties, system_changes)


def test_time_out_of_one_candidate(tmp_path) -> None:
    capped = RelaxConfig(cell="free", fmax=1e-6, steps=3, seconds=1.0)
    config = GenerateConfig("Cu", (1, 2), 4, ("substitution",), relax=capped)
    found = generate(config, Slow(), tmp_path)
    status = {c.proposal.id: c.status for c in found.candidates}
    late = [c for c in found.candidates if c.status == "time"]
    assert late, status
    assert all(c.atoms is not None and len(c.atoms) > 1 for c in late)
    assert any(c.status in ("converged", "steps") for c in found.candidates), status


def test_generator_chooses_compositions(chooser, tmp_path) -> None:
    generator = Generator.load(chooser)
    chosen = generator.compositions(40, seed=0)
    assert chosen == generator.compositions(40, seed=0)
    assert {e for c in chosen for e in c.elements} == {"Cu", "Au"}
    assert {c.n_atoms for c in generator.compositions(5, seed=0, atoms=[4])} == {4}
    assert {c.elements for c in generator.compositions(3, seed=0, elements=["Cu"])} == {("Cu",)}
    source = str(chooser)
    window = GeometryWindow(contact=0.0, volume=(0.01, 100.0), aspect=1e6, angles=(1, 179))
    still = RelaxConfig(cell="free", steps=0)
    config = GenerateConfig(
        n=6, sources=(source, "random"), atoms=(3, 4), relax=still, window=window, symprec=0.0
    )
    found = generate(config, EMT(), tmp_path)
    assert len(found.candidates) == 6
    assert len({c.proposal.id for c in found.candidates}) == 6
    for c in found.candidates:
        assert c.proposal.atoms is None or len(c.proposal.atoms) in (3, 4)
    assert sum(c.proposal.source == "random" for c in found.candidates) == 3
    # without a formula a generator that has learnt compositions is needed
    with pytest.raises(ValueError, match="has to choose"):
        GenerateConfig(n=2, sources=("random",))
    with torch.random.fork_rng(devices=[]):
        mute = UniMatSparse(SparseConfig(width=24, heads=2, layers=1, slots=3))
    save_generator(tmp_path / "mute", mute, {})
    with pytest.raises(ValueError, match="has not learnt"):
        generate(GenerateConfig(n=2, sources=(str(tmp_path / "mute"),)), EMT(), tmp_path / "no")


def test_known_bounds(tmp_path) -> None:
    """Numbers of atoms, cell lengths, chemical system and space group are kept."""
    still = RelaxConfig(cell="free", steps=0)
    config = GenerateConfig("Cu-Au", (1, 2), 6, ("random",), atoms=(4,), relax=still,
                            window=GeometryWindow(lengths=(3.0, 7.0)))  # fmt: skip
    assert {c.n_atoms for c in config.compositions} == {4}
    assert {c.formula for c in config.compositions} == {"AuCu", "Au3Cu", "AuCu3"}
    found = generate(config, EMT(), tmp_path)
    for c in found.candidates:
        lengths = c.proposal.atoms.cell.lengths()
        assert c.proposal.objection or (lengths.min() >= 3.0 and lengths.max() <= 7.0)
    wanted = GenerateConfig("Cu", (1, 2), 4, ("substitution",), relax=QUICK, space_groups=(225,))
    groups = {c.space_group for c in generate(wanted, EMT(), tmp_path / "fcc").kept}
    assert groups == {"Fm-3m (225)"}
    for words, options in (
        ("atoms", {"formula": "NaCl", "z": (1,), "atoms": (5,)}),
        ("symbol", {"sources": ("x",), "within": ("Xy",)}),
        ("within", {"formula": "NaCl", "within": ("Na",)}),
    ):
        with pytest.raises(ValueError, match=words):
            GenerateConfig(**options)


SCRIPT = """
import sys, time
from ase.calculators.emt import EMT
from pet_calc.crystals.generation.config import GenerateConfig
from pet_calc.crystals.generation.pipeline import generate
from pet_calc.workflows.relax import RelaxConfig
config = GenerateConfig("CuAu", (1, 2), 8, relax=RelaxConfig(cell="free", steps=5))
def told(k, _):
    print(k, flush=True)
    time.sleep(0.2)
generate(config, EMT(), sys.argv[1], resume=sys.argv[2] == "resume", on_result=told)
"""


def test_run_goes_on_after_a_kill(tmp_path) -> None:
    def command(mode):
        return [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), mode]

    with subprocess.Popen(command("new"), stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        seen = [first.stdout.readline().strip() for _ in range(3)]
        first.send_signal(signal.SIGKILL)
    assert seen == ["0", "1", "2"]
    done = subprocess.run(command("resume"), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "4", "5", "6", "7"]


def test_occupancy_is_part_of_the_generator(chooser) -> None:
    generator = Generator.load(chooser)
    assert isinstance(generator.occupancy, OccupancyModel)
    assert generator.occupancy.config == OccupancyConfig(slots=3, atoms=6)
    assert bulk("Cu").symbols[0] in generator.compositions(1, seed=0)[0].elements
