"""The measures tell good proposals from random ones; the script writes them side by side."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from crystal_generation import main
from generators.comparison import ComparisonConfig, compare
from generators.measures import measure, measure_free, random_proposals
from generators.stability import stability

from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.diffusion.sparse import SparseConfig, UniMatSparse
from pet_calc.crystals.generation import Composition, Generator, propose_substituted
from pet_calc.crystals.generation.fingerprint import distance, fingerprint
from pet_calc.crystals.generation.hull import Hull
from pet_calc.crystals.generation.references import build_hull
from pet_calc.crystals.io.generators import save_generator
from pet_calc.crystals.io.unimat import crystal_from_atoms
from pet_calc.crystals.training.occupancy import OccupancyTraining, train_occupancy
from pet_calc.workflows.relax import RelaxConfig

SALTS = [bulk(f, "rocksalt", a=a) for f, a in (("NaCl", 5.64), ("MgO", 4.21), ("KBr", 6.6))]
QUICK = RelaxConfig(cell="free", fmax=0.1, steps=40)
REFERENCES = [crystal_from_atoms(a) for a in SALTS]


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


def test_perfect_and_random_proposals() -> None:
    wanted = [Composition.from_numbers(c.numbers) for c in REFERENCES]
    plain = measure("random", random_proposals(wanted, 2, 1), REFERENCES)
    best = measure("perfect", [[a.copy(), a.copy()] for a in SALTS], REFERENCES)
    assert best.made == best.apart_half_angstrom == best.apart_half_radii == best.coverage == 1.0
    assert best.unique == 0.5  # the second is a copy of the first
    assert best.p1 == 0.0
    assert best.density_distance == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(best.match_rate)
    assert plain.p1 > 0.3
    assert plain.unique == 1.0
    assert plain.density_distance > 0.01


def test_broken_proposals_count_against_the_source() -> None:
    close = SALTS[0].copy()
    close.positions[1] = close.positions[0] + [0.2, 0, 0]
    found = measure("broken", [[close, ValueError("none")]], REFERENCES[:1])
    assert found.made == 0.5
    assert found.apart_half_angstrom == found.apart_half_radii == 0.0
    assert found.coverage == 0.0


def test_free_compositions_are_measured() -> None:
    other = bulk("CuAu", "rocksalt", a=5.0)
    big = SALTS[0].repeat((2, 1, 1))
    found = measure_free("free", [*SALTS, SALTS[0], other, big, ValueError("none")], REFERENCES)
    assert found.made == pytest.approx(6 / 7)
    assert found.coverage == 1.0
    assert found.atoms_known == pytest.approx(5 / 7)  # not the doubled cell
    assert found.unique == pytest.approx(4 / 6)  # the doubled cell is the same crystal
    assert found.elements_distance == 0.0


class Exact:
    """A matcher by fingerprints, in the place of pymatgen's."""

    label = "fingerprints"

    def rms(self, first, second):
        d = distance(fingerprint(first), fingerprint(second))
        return d if d < 0.05 else None


def test_stable_unique_and_novel_are_counted() -> None:
    """Known outcomes in Cu-Au with EMT: L1_2 is stable, a copy is not unique, bcc is not stable."""
    (stable,) = propose_substituted(Composition.of("Cu3Au"), 1)
    relaxed = [bulk("Cu", "fcc", a=3.6), bulk("Au", "fcc", a=4.06), stable]
    hull, reasons = build_hull(relaxed, EMT(), QUICK)
    assert not reasons
    copy = stable.repeat((1, 1, 2))
    copy.rattle(0.02, seed=0)
    unstable = stable.copy()
    unstable.numbers = [79, 79, 79, 29]
    squeezed = bulk("CuAu", "zincblende", a=5.6)
    proposals = [[stable, copy], [squeezed, ValueError("none")]]
    common = {"relax": QUICK, "hull": hull, "threshold": 0.02, "matcher": Exact()}
    found = stability("test", proposals, EMT(), **common)
    assert found.proposals == 4
    assert found.failed == 0.25
    assert (found.stable, found.stable_unique, found.sun) == (0.5, 0.25, 0.25)
    assert found.energy_drop > 0
    assert found.judged == 0.75
    again = stability("test", proposals, EMT(), known=[stable], references=[stable, stable],
                      **common)  # fmt: skip
    assert (again.stable_unique, again.sun) == (0.25, 0.0)
    assert again.match_rate == 0.5
    # with all competitors gone there is nothing to be stable against
    elements = Hull(tuple(p for p in hull.phases if len(p.composition.counts) == 1), hull.origin)
    alone = stability("test", proposals, EMT(), relax=QUICK, hull=elements)
    assert math.isnan(alone.sun)
    assert np.isfinite(alone.above_hull)


def test_comparison_at_equal_cost(tmp_path) -> None:
    (alloy,) = propose_substituted(Composition.of("CuAu3"), 1)
    rivals = [crystal_from_atoms(a) for a in (alloy, *SALTS)]
    config = ComparisonConfig(n=2, relax=replace(QUICK, steps=5))
    found = compare(None, rivals[:1], config, calculator=EMT(), rivals=rivals)
    assert [m.source for m in found.proposed] == [m.source for m in found.relaxed] == ["random"]
    assert found.relaxed[0].proposals == found.proposed[0].samples == 2
    # of the competitors only the one in the chemical system is relaxed
    assert [p.composition.formula for p in found.hull.phases] == ["Au", "Cu", "Au3Cu"]
    assert 0 <= found.relaxed[0].sun <= 1
    with pytest.raises(ValueError, match="free"):
        compare(None, rivals[:1], ComparisonConfig(free=True))


def test_chosen_compositions_are_compared_with_random_search(chooser) -> None:
    references = [crystal_from_atoms(bulk("CuAu", "cesiumchloride", a=3.1))] * 4
    config = ComparisonConfig(free=True, sampler=SamplerConfig(steps=5))
    own, random = compare(Generator.load(chooser), references, config).proposed
    assert (own.compositions, random.compositions) == (4, 4)
    assert own.elements_distance == random.elements_distance
    assert random.apart_half_radii == 1.0


def test_comparison_draws_again_what_is_out_of_bounds(chooser, monkeypatch) -> None:
    """As `generate` does; with one attempt every draw counts."""
    generator = Generator.load(chooser)
    good = bulk("CuAu", "cesiumchloride", a=3.1)
    draws = []

    def every_third_is_good(self, compositions, sampler, random):
        draws.append(len(compositions))
        return [good if k % 3 == 0 else ValueError("bad") for k in range(len(compositions))]

    monkeypatch.setattr(Generator, "_denoise", every_third_is_good)
    references = [crystal_from_atoms(good)] * 9
    for attempts, made, asked in ((1, 3 / 9, [9]), (2, 5 / 9, [9, 6]), (3, 7 / 9, [9, 6, 4])):
        draws.clear()
        found = compare(generator, references, ComparisonConfig(attempts=attempts)).proposed[0]
        assert (found.made, draws) == (pytest.approx(made), asked)


def test_match_rate() -> None:
    pytest.importorskip("pymatgen", reason="pymatgen is not installed")
    from generators.matching import Matcher

    matcher = Matcher()
    turned = SALTS[0].repeat((2, 1, 1))
    turned.rotate(20, "x", rotate_cell=True)
    turned.rattle(0.02, seed=0)
    assert 0 < matcher.rms(SALTS[0], turned) < 0.05
    assert matcher.rms(SALTS[0], bulk("NaCl", "cesiumchloride", a=3.4)) is None


def test_script(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write("salts.extxyz", SALTS)
    common = [".", "--references", "salts.extxyz", "--no-match", "--out", "out.csv"]
    main([*common, "--generator", "random", "--n", "2"])
    (row,) = rows("out.csv")
    assert (row["source"], row["compositions"], row["matching"]) == ("random", "3", "")
    assert np.isfinite(float(row["coverage"]))
    with pytest.raises(SystemExit):
        main([*common, "--generator", "random", "--free"])
    assert "--free needs a generator" in capsys.readouterr().err


def test_script_relaxes_and_judges(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (alloy,) = propose_substituted(Composition.of("CuAu3"), 1)
    write("alloy.extxyz", alloy)
    main([".", "--generator", "random", "--references", "alloy.extxyz", "--train", "alloy.extxyz",
          "--competitors", "alloy.extxyz", "--calculator", "ase.calculators.emt:EMT", "--no-match",
          "--n", "1", "--steps", "3", "--out", "out.csv"])  # fmt: skip
    (row,) = rows("out.csv")
    assert 0 <= float(row["relaxed_sun"]) <= 1


def rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))
