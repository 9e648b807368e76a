"""Compositions, proposals, windows, fingerprints and hulls."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from calculators.small_potentials import small_pet

from pet_calc import PETCalculator
from pet_calc.crystals.generation import (
    Composition,
    Generator,
    GeometryWindow,
    propose_random,
    propose_substituted,
    references,
)
from pet_calc.crystals.generation.fingerprint import distance, duplicates, fingerprint
from pet_calc.crystals.generation.hull import Hull, Phase
from pet_calc.crystals.generation.proposals import symmetrized
from pet_calc.crystals.generation.references import build_hull, elemental_hull, reference_structure
from pet_calc.errors import DatasetError, PotentialNotFoundError, SimulationError
from pet_calc.io.models.weights import save_model
from pet_calc.workflows.relax import RelaxConfig
from pet_calc.workflows.relax.symmetry import find_symmetry


def phase(formula: str, energy: float) -> Phase:
    return Phase(Composition.of(formula), energy, formula)


def test_composition() -> None:
    c = Composition.of("Ca(OH)2", z=2)
    assert c.counts == ((1, 4), (8, 4), (20, 2))
    assert (c.n_atoms, c.units, c.anonymous) == (10, 2, (1, 2, 2))
    assert c.numbers.tolist() == [1] * 4 + [8] * 4 + [20] * 2
    assert Composition.from_numbers(c.numbers) == c
    for bad in ("", "Xy2", "not a formula"):
        with pytest.raises(ValueError, match="formula"):
            Composition.of(bad)
    with pytest.raises(ValueError, match="at least 1"):
        Composition.of("NaCl", 0)


def test_chemical_system() -> None:
    found = Composition.all_of("Na-Cl, KCl")
    assert Composition.of("Na2Cl3") in found
    assert Composition.of("KCl") == found[-1]
    assert len(found) == 7 + 1  # pairs of 1 to 3 without a common divisor
    with pytest.raises(ValueError, match="chemical system"):
        Composition.all_of("Na-Na")


def test_random_cells_keep_their_distance_and_seed() -> None:
    c = Composition.of("SrTiO3", 2)
    found = propose_random(c, 4, seed=5)
    again = propose_random(c, 4, seed=5)
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        assert sorted(a.numbers) == c.numbers.tolist()
        assert not GeometryWindow(contact=0.7).objection(a)
    assert not np.array_equal(found[0].positions, propose_random(c, 1, seed=6)[0].positions)
    with pytest.raises(SimulationError, match="fits"):
        propose_random(c, 1, seed=0, window=GeometryWindow(lengths=(0, 1)))


def test_window_names_what_is_wrong() -> None:
    window = GeometryWindow()
    good = bulk("NaCl", "rocksalt", a=5.64)
    assert window.objection(good) == ""
    close = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True)
    flat = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0, 0, 0.5]], cell=[1.9, 1.9, 20], pbc=True)
    wide = good.copy()
    wide.set_cell(wide.cell * 2, scale_atoms=True)
    nan = good.copy()
    nan.positions[0] = np.nan
    # an atom and its own image are a contact too
    thin = Atoms("Cs", cell=[1.5, 10, 10], pbc=True)
    for atoms, word in ((close, "radii"), (flat, "aspect"), (wide, "volume"), (nan, "finite"),
                        (thin, "aspect|radii")):  # fmt: skip
        assert any(w in window.objection(atoms) for w in word.split("|")), word
    assert "length" in GeometryWindow(lengths=(5, 6)).objection(good)


def test_substitution_makes_known_structure_types() -> None:
    found = propose_substituted(Composition.of("KTaO3"), 10)
    assert {a.info["prototype"] for a in found} == {"perovskite"}
    assert len(found) == 2  # A and B may be exchanged
    assert find_symmetry(found[0], 1e-3).number == 221
    names = [a.info["prototype"] for a in propose_substituted(Composition.of("MgO"), 10)]
    assert {"rocksalt", "CsCl", "zincblende", "L1_0"} <= set(names)
    heusler = propose_substituted(Composition.of("NbTaW2"), 10)
    assert {a.info["prototype"] for a in heusler} == {"Heusler"}
    assert {find_symmetry(a, 1e-3).number for a in heusler} == {225}
    assert len(propose_substituted(Composition.of("TiNiSn"), 10)) == 6
    own = propose_substituted(Composition.of("KTaO3"), 10, [bulk("NaCl", "rocksalt", a=5.6)])
    assert own == []


def test_fingerprints_know_a_crystal_in_any_cell() -> None:
    cubic = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    primitive = bulk("NaCl", "rocksalt", a=5.64)
    turned = cubic.copy()
    turned.rotate(35, (1, 2, 3), rotate_cell=True)
    turned.translate([0.3, 0.2, 0.9])
    other = bulk("NaCl", "cesiumchloride", a=3.4)
    rattled = cubic.copy()
    rattled.rattle(0.3, seed=1)
    assert distance(fingerprint(cubic), fingerprint(primitive)) < 1e-10
    assert duplicates([cubic, other, turned, primitive, rattled]) == [0, 1, 0, 0, 4]
    assert distance(fingerprint(cubic), fingerprint(bulk("MgO", "rocksalt", a=4.2))) == np.inf


def test_symmetry_is_imposed() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.02, seed=0)
    assert find_symmetry(atoms, 1e-3).number == 1
    assert find_symmetry(symmetrized(atoms, 0.15), 1e-3).number == 225


def test_hull_of_a_binary_system() -> None:
    hull = Hull((phase("Na", -1.0), phase("Cl", -2.0), phase("NaCl", -3.5), phase("NaCl3", -2.0)))
    assert hull.above(Composition.of("NaCl"), -3.4).energy == pytest.approx(0.1)
    # Na3Cl = 2 Na + NaCl: (2 * -1.0 + 2 * -3.5) / 4
    above = hull.above(Composition.of("Na3Cl"), -2.0)
    assert above.energy == pytest.approx(-2.0 + 2.25)
    assert dict(above.decomposition) == pytest.approx({"Na": 0.5, "NaCl": 0.5})
    # below all competitors
    assert hull.above(Composition.of("NaCl", 2), -3.7).energy == pytest.approx(-0.2)
    assert hull.compounds
    elements = Hull(hull.phases[:2])
    assert not elements.compounds
    # above the elements alone is the formation energy
    assert elements.above(Composition.of("NaCl"), -3.5).energy == pytest.approx(-2.0)
    missing = hull.above(Composition.of("KCl"), -3.0)
    assert np.isnan(missing.energy)
    assert "K" in missing.reason


def test_hull_equals_a_convex_hull_in_three_elements() -> None:
    """Against the definition: all decompositions into three phases, at random energies."""
    rng = np.random.default_rng(0)
    formulas = ["Li", "Fe", "O", "LiFe", "LiO", "FeO", "LiFeO", "Li2FeO3", "LiFe2O4", "Fe2O3"]
    phases = [
        phase(f, e) for f, e in zip(formulas, rng.normal(-1, 0.5, len(formulas)), strict=True)
    ]
    target = Composition.of("Li3Fe2O5")

    def fractions(c: Composition) -> list[float]:
        counts = dict(c.counts)
        return [counts.get(z, 0) / c.n_atoms for z in (3, 8, 26)]

    best = np.inf
    x = np.array(fractions(target))
    from itertools import combinations

    for three in combinations(phases, 3):
        a = np.array([fractions(p.composition) for p in three]).T
        if abs(np.linalg.det(a)) > 1e-9:
            shares = np.linalg.solve(a, x)
            if shares.min() > -1e-12:
                best = min(best, float(shares @ [p.energy for p in three]))
    assert Hull(tuple(phases)).above(target, 0.0).energy == pytest.approx(-best, abs=1e-10)


def test_hull_file(tmp_path) -> None:
    hull = Hull((phase("Na", -1.0), phase("NaCl", -3.0)), {"model": "x", "sha256": "0"})
    hull.save(tmp_path / "hull.json")
    assert Hull.load(tmp_path / "hull.json") == hull
    (tmp_path / "bad.json").write_text('{"format": "other"}')
    for name in ("bad.json", "gone.json"):
        with pytest.raises(DatasetError, match="no hull"):
            Hull.load(tmp_path / name)
    with pytest.raises(ValueError, match="finite"):
        phase("Na", float("nan"))


def test_references_come_from_the_calculator() -> None:
    hull, reasons = elemental_hull(["Cu", "Au", "Mn"], EMT())
    assert [p.composition.formula for p in hull.phases] == ["Cu", "Au"]
    assert "Mn" in reasons
    cu = next(p for p in hull.phases if p.composition.formula == "Cu")
    assert cu.energy == pytest.approx(-0.007, abs=0.01)  # EMT counts from the fcc metal
    full, _ = build_hull([bulk("CuAu", "cesiumchloride", a=3.1)], EMT())
    assert full.compounds
    assert reference_structure("O").get_chemical_formula() == "O2"


def test_references_are_kept_by_the_hash_of_the_weights(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    save_model(folder, small_pet(), dtype=torch.float64)
    still = RelaxConfig(steps=0)
    first, _ = elemental_hull(["H", "O"], PETCalculator(model=folder), still)
    assert {p.composition.formula for p in first.phases} == {"H", "O"}

    def never(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(references, "relax_all", never)
    assert elemental_hull(["H", "O"], PETCalculator(model=folder), still)[0] == first
    # other weights are another calculator
    save_model(folder, small_pet(seed=1), dtype=torch.float64)
    with pytest.raises(AssertionError, match="again"):
        elemental_hull(["H"], PETCalculator(model=folder), still)


def test_generator_that_is_not_there() -> None:
    with pytest.raises(PotentialNotFoundError, match="no generator"):
        Generator.load("no-such-generator")
