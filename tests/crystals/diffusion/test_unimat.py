"""The representation is lossless and does not depend on the order of equal atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from crystals.diffusion.crystals_for_tests import CRYSTALS, mp20like, random_crystal

from pet_calc.crystals.diffusion.periodic_table import (
    ANGLES_PLACE,
    LENGTHS_PLACE,
    NUMBERS,
    PLACES,
    place,
)
from pet_calc.crystals.diffusion.sparse import crystals_from, from_diffusion
from pet_calc.crystals.diffusion.unimat import (
    NULL,
    Crystal,
    canonical,
    decode,
    encode,
    lattice_symmetry,
    order,
    rebased,
    wrapped,
)
from pet_calc.crystals.generation.fingerprint import distance, fingerprint
from pet_calc.crystals.io.unimat import (
    atoms_from_crystal,
    decode_atoms,
    encode_atoms,
    niggli_reduced,
)
from pet_calc.crystals.training.generator import Examples
from pet_calc.errors import InvalidStructureError


def assert_same(a: Crystal, b: Crystal, tolerance: float = 1e-12, atol: float = 0.0) -> None:
    i, j = (order(c.numbers, wrapped(c.fractional)) for c in (a, b))
    np.testing.assert_array_equal(a.numbers[i], b.numbers[j])
    np.testing.assert_allclose(a.cellpar, b.cellpar, rtol=tolerance)
    np.testing.assert_allclose(wrapped(a.fractional)[i], b.fractional[j], rtol=0, atol=atol)


def test_every_element_has_a_cell_of_its_own() -> None:
    assert len({tuple(p) for p in PLACES[1:].tolist()}) == 118
    assert (NUMBERS > 0).sum() == 118
    assert NUMBERS[LENGTHS_PLACE] == NUMBERS[ANGLES_PLACE] == 0
    known = {1: (0, 0), 2: (0, 17), 5: (1, 12), 26: (3, 7), 57: (7, 2), 71: (7, 16), 72: (5, 3),
             89: (8, 2), 92: (8, 5), 118: (6, 17)}  # fmt: skip
    assert {z: place(z) for z in known} == known
    with pytest.raises(ValueError, match="between 1 and 118"):
        place(119)


def test_round_trip_of_all_elements() -> None:
    for z in range(1, 119):
        crystal = random_crystal([z, z, 119 - z])
        assert_same(crystal, decode(encode(crystal)))


def test_round_trip_of_a_data_set() -> None:
    for crystal in mp20like("val"):
        assert_same(crystal, decode(encode(crystal, slots=20)))


def test_order_of_equal_atoms_does_not_matter() -> None:
    crystal = random_crystal([8, 8, 8, 22, 38])
    shuffled = Crystal(crystal.numbers[::-1], crystal.fractional[::-1], crystal.cellpar)
    np.testing.assert_array_equal(encode(crystal), encode(shuffled))
    # the comparison notices an exchange of unequal atoms
    wrong = Crystal(crystal.numbers[::-1], crystal.fractional, crystal.cellpar)
    assert not np.array_equal(encode(crystal), encode(wrong))


def test_canonical_description_forgets_translations() -> None:
    rng = np.random.default_rng(1)
    for crystal in CRYSTALS:
        moved = Crystal(crystal.numbers, crystal.fractional + rng.random(3), crystal.cellpar)
        a, b = canonical(crystal), canonical(moved)
        np.testing.assert_array_equal(a.numbers, b.numbers)
        np.testing.assert_allclose(a.fractional, b.fractional, atol=1e-9)


def test_canonical_description_forgets_the_choice_of_axes() -> None:
    """Any symmetry of the lattice gives the same description, which is the same crystal."""
    assert [len(lattice_symmetry(np.array(c, dtype=float))) for c in (
        (4, 4, 4, 90, 90, 90), (4, 4, 5, 90, 90, 90), (4, 4, 5, 90, 90, 120), (4, 5, 6, 90, 90, 90),
        (4, 5, 6, 80, 85, 95), (4, 4, 4, 60, 60, 60))] == [48, 16, 24, 8, 2, 48]  # fmt: skip
    rng = np.random.default_rng(0)
    for cell in ((4, 4, 4, 90, 90, 90), (4, 4, 5, 90, 90, 120)):
        numbers = np.array([8, 8, 22, 38, 38])
        crystal = Crystal(numbers, rng.random((5, 3)), np.array(cell, dtype=float))
        first = canonical(crystal)
        operations = lattice_symmetry(crystal.cellpar)
        for w in operations[rng.permutation(len(operations))[:8]]:
            turned = crystal.fractional @ w.T + rng.random(3)
            again = canonical(Crystal(numbers, turned, rebased(crystal.cellpar, w)))
            np.testing.assert_allclose(again.cellpar, first.cellpar, atol=1e-6)
            np.testing.assert_allclose(again.fractional, first.fractional, atol=1e-9)
        same = distance(*(fingerprint(atoms_from_crystal(c)) for c in (crystal, first)))
        assert same < 1e-6
    # axes of slightly different length count as equal, and the crystal stays exactly what it was
    near = Crystal(numbers, crystal.fractional, np.array([4.0, 4.02, 5, 90, 90, 90]))
    same = distance(*(fingerprint(atoms_from_crystal(c)) for c in (near, canonical(near))))
    assert same < 1e-6


def test_null_entries_and_bad_input() -> None:
    m = encode(CRYSTALS[0])
    assert (m == NULL).all(-1).sum() == m[..., 0].size - len(CRYSTALS[0].numbers) - 2
    with pytest.raises(InvalidStructureError, match="no atom"):
        decode(np.full((2, 9, 18, 3), NULL))
    with pytest.raises(ValueError, match="slots"):
        encode(random_crystal([6, 6, 6]), slots=2)
    with pytest.raises(InvalidStructureError, match="positive"):
        Crystal(np.array([6]), np.zeros((1, 3)), np.array([1.0, 1, -1, 90, 90, 90]))


def test_occupied_slots_hold_the_whole_crystal() -> None:
    """The values that a denoiser is trained on become the same crystals again, padded or not."""
    crystals = [canonical(c) for c in CRYSTALS]
    values, occupied = Examples.of(crystals).batch(torch.arange(len(crystals)))
    found = crystals_from(from_diffusion(values), occupied)
    for crystal, back in zip(crystals, found, strict=True):
        assert isinstance(back, Crystal)
        assert_same(crystal, back, 1e-5, 1e-6)


def test_atoms_in_and_out_by_the_niggli_cell() -> None:
    pytest.importorskip("spglib")
    skewed = bulk("NaCl", "rocksalt", a=5.64)
    skewed = Atoms(
        skewed.numbers,
        positions=skewed.positions,
        cell=np.array([[1, 0, 0], [2, 1, 0], [1, -1, 1]]) @ skewed.cell.array,
        pbc=True,
    )
    back = decode_atoms(encode_atoms(skewed))
    assert distance(fingerprint(back), fingerprint(skewed)) < 1e-6
    np.testing.assert_allclose(back.cell.lengths(), 5.64 / np.sqrt(2), rtol=1e-6)
    as_given = decode_atoms(encode_atoms(skewed, reduce=False))
    np.testing.assert_allclose(as_given.cell.cellpar(), skewed.cell.cellpar())
    rng = np.random.default_rng(0)
    for k in range(20):
        crystal = atoms_from_crystal(random_crystal([8, 8, 22, 38], k))
        matrix = np.array([[1, 0, 0], [rng.integers(-2, 3), 1, 0], [*rng.integers(-2, 3, 2), 1]])
        other = crystal.copy()
        other.set_cell(matrix @ crystal.cell.array)
        a, b = (niggli_reduced(x) for x in (crystal, other))
        np.testing.assert_allclose(a.cell.cellpar(), b.cell.cellpar(), rtol=1e-6)
        assert distance(fingerprint(a), fingerprint(crystal)) < 1e-6
        assert distance(fingerprint(b), fingerprint(crystal)) < 1e-6
