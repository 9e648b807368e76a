"""Every shipped generator loads, agrees with its card, and knows what it was trained on."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from pet_calc import pretrained
from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.generation import Composition, Generator, propose_random, propose_substituted
from pet_calc.crystals.generation.config import DEFAULT_SOURCES, GenerateConfig
from pet_calc.crystals.generation.fingerprint import distance, fingerprint
from pet_calc.crystals.generation.geometry_window import GeometryWindow, closest_contact
from pet_calc.crystals.generation.proposals import propose
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256

POTENTIALS = Path(__file__).resolve().parents[2] / "potentials"
ENTRIES = tomllib.loads((POTENTIALS / "index.toml").read_text(encoding="utf-8"))
NAMES = [e["name"] for e in ENTRIES.get("generator", [])]


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (POTENTIALS,))


def nearest(compositions, proposals, types: int) -> np.ndarray:
    """How near one of four proposals for each composition is to a common structure type."""
    found = []
    for k, c in enumerate(compositions):
        ideal = [fingerprint(a) for a in propose_substituted(c, types)]
        own = [fingerprint(a) for a in proposals[4 * k : 4 * k + 4]]
        found.append(min(distance(a, b) for a in own for b in ideal))
    return np.array(found)


@pytest.mark.parametrize("name", NAMES)
def test_files_card_and_size(name) -> None:
    entry = pretrained.find_shipped(name, "generator")
    folder = entry.folder
    assert set(entry.sha256) == {CONFIG, WEIGHTS}
    for file, digest in entry.sha256.items():
        assert sha256(folder / file) == digest
    assert (folder / WEIGHTS).stat().st_size < 20e6
    card = pretrained.read_card(folder)
    generator = Generator.load(name)
    assert card.front["kind"] == entry.kind == "generator"
    assert card.front["sha256"] == generator.digest
    assert card.front["parameters"] == sum(p.numel() for p in generator.model.parameters())
    assert entry.status in ("experimental", "stable")
    for heading in (
        "Use",
        "Out of scope",
        "Known failures",
        "How it was checked",
        "How to retrain",
    ):
        assert f"## {heading}" in card.text
    # generators are no potentials
    assert name not in [e.name for e in pretrained.list_potentials()]
    assert Generator.load(name.rsplit("-v", 1)[0]).digest == generator.digest


@pytest.mark.skipif("unimat-perov-v2" not in NAMES, reason="unimat-perov-v2 does not ship")
def test_chosen_compositions_are_those_of_perovskites() -> None:
    generator = Generator.load("unimat-perov")
    chosen = generator.compositions(100, seed=0)
    assert sum(c.n_atoms == 5 for c in chosen) >= 90
    assert len(set(chosen)) > 50
    bounded = generator.compositions(10, seed=0, elements=["Sr", "Ba", "Ti", "Zr", "O"])
    assert {e for c in bounded for e in c.elements} <= {"Sr", "Ba", "Ti", "Zr", "O"}


@pytest.mark.skipif("unimat-perov-v2" not in NAMES, reason="unimat-perov-v2 does not ship")
def test_perovskites_are_found_where_random_search_fails() -> None:
    compositions = [Composition.of(f) for f in ("SrTiO3", "CaTiO3", "BaSnO3", "KTaO3", "LaAlO3")]
    sampler = SamplerConfig(guidance=2.0)
    made = Generator.load("unimat-perov").sample(compositions, 4, seed=0, sampler=sampler)
    random = [a for c in compositions for a in propose_random(c, 4, seed=0)]

    assert np.median(nearest(compositions, made, 2)) < 0.1
    assert np.median(nearest(compositions, random, 2)) > 0.1
    assert np.mean([closest_contact(a, 0.5) >= 0.5 for a in made]) > 0.8


@pytest.mark.skipif("unimat-mp-v1" not in NAMES, reason="unimat-mp-v1 does not ship")
def test_simple_crystals_are_found_where_random_search_fails() -> None:
    formulas = ("NaCl", "CsCl", "NiAl", "SrTiO3", "MgO", "CaF2", "Cu3Au", "TiC", "LiF")
    compositions = [Composition.of(f) for f in formulas]
    made = Generator.load("unimat-mp").sample(compositions, 4, seed=0)
    random = [a for c in compositions for a in propose_random(c, 4, seed=0)]

    assert np.mean(nearest(compositions, made, 4) < 0.02) > 0.8
    assert np.mean(nearest(compositions, random, 4) < 0.02) < 0.2


@pytest.mark.skipif("unimat-mp-v1" not in NAMES, reason="unimat-mp-v1 does not ship")
def test_compositions_of_crystals_are_chosen_within_bounds() -> None:
    generator = Generator.load("unimat-mp")
    chosen = generator.compositions(50, seed=0)
    assert len(set(chosen)) > 45
    assert max(c.n_atoms for c in chosen) <= 20
    assert all(generator.knows(c) for c in chosen)
    oxides = generator.compositions(10, seed=0, elements=["Li", "Fe", "O", "P"])
    assert {e for c in oxides for e in c.elements} <= {"Li", "Fe", "O", "P"}


@pytest.mark.skipif("unimat-mp-v1" not in NAMES, reason="unimat-mp-v1 does not ship")
def test_a_generator_is_asked_for_no_larger_cells_than_it_knows() -> None:
    def sources(z: tuple[int, ...], names: tuple[str, ...] = DEFAULT_SOURCES) -> dict[str, set]:
        found = propose(GenerateConfig("NaCl", z, 12, names, symprec=0.0))
        assert len(found) == 12
        return {s: {p.z for p in found if p.source == s} for s in names}

    assert sources((1, 2))["unimat-mp"] == {1, 2}
    mixed = sources((2, 14))
    assert mixed["unimat-mp"] == {2}
    assert mixed["random"] == {2, 14}
    assert sources((14,))["unimat-mp"] == set()
    # nobody else makes them
    assert sources((14,), ("unimat-mp",))["unimat-mp"] == {14}


@pytest.mark.skipif("unimat-mp-v1" not in NAMES, reason="unimat-mp-v1 does not ship")
def test_what_is_outside_of_the_window_is_drawn_again() -> None:
    generator, window = Generator.load("unimat-mp"), GeometryWindow()
    wanted = [Composition.of("LiFePO4"), Composition.of("K2GeH2O5")]

    def refused(made) -> int:
        return sum(bool(window.objection(a)) for a in made)

    first = generator.sample(wanted, 8, seed=0)
    again = generator.sample(wanted, 8, seed=0, window=window)
    assert refused(first) >= 3 * max(1, refused(again))
    kept = [k for k, a in enumerate(first) if not window.objection(a)]
    # what was good stays as it is, and what was not has the same composition
    assert kept
    for k, (a, b) in enumerate(zip(first, again, strict=True)):
        assert (k in kept) is np.array_equal(a.positions, b.positions)
        assert a.get_chemical_formula() == b.get_chemical_formula()
