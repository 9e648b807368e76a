"""PETCalculator: what it is given, what it gives, and what it refuses."""

import copy
import logging
import pickle

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, PropertyNotImplementedError
from calculators.small_potentials import CUTOFF, flip_a_bit, liquid, publish, small_pet

from pet_calc import PETCalculator, pretrained
from pet_calc.calculators.device import choose_device
from pet_calc.errors import (
    IntegrityError,
    InvalidStructureError,
    PotentialNotFoundError,
    SimulationError,
    UnsupportedElementError,
)
from pet_calc.io.models.files import WEIGHTS
from pet_calc.io.models.weights import save_model
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.models import evaluate

NAMES = ["energy", "free_energy", "energies", "forces", "stress"]
# computed only if asked for
DECLARED = [*NAMES, "energy_rotation_std", "forces_rotation_std"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An index with potentials of water, of salt, and of both."""
    return publish(
        tmp_path_factory.mktemp("published"),
        water_v1="H O",
        water_v2="H O",
        salt_v1="Na Cl",
        brine_v1="H O Na Cl",
    )


@pytest.fixture
def shipped(published, monkeypatch):
    """That index as the only one."""
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (published,))
    return published


@pytest.fixture(scope="module")
def model():
    return small_pet()


def properties(atoms, model, **options):
    """All results of a calculator that has seen nothing else."""
    fresh = atoms.copy()
    fresh.calc = PETCalculator(model, **options)
    fresh.get_potential_energy()
    return fresh.calc.results


def assert_equal_results(found, expected, tolerance=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


# what comes out


def test_results_are_all_and_only_the_declared_ones(model):
    atoms = liquid()
    atoms.calc = PETCalculator(model)
    atoms.get_forces()
    results = atoms.calc.results
    assert list(results) == NAMES
    assert atoms.calc.implemented_properties == DECLARED
    assert isinstance(results["energy"], float)
    assert results["free_energy"] == results["energy"]
    shapes = {"energies": (24,), "forces": (24, 3), "stress": (6,)}
    for name, shape in shapes.items():
        assert results[name].shape == shape
        assert results[name].dtype == np.float64
        assert results[name].flags.owndata
    assert results["energies"].sum() == pytest.approx(results["energy"], abs=1e-9)
    assert atoms.get_potential_energy(force_consistent=True) == results["energy"]
    assert (atoms.get_potential_energies() == results["energies"]).all()
    assert atoms.get_stress(voigt=False).shape == (3, 3)


def test_each_calculation_gives_new_results(model):
    atoms = liquid()
    atoms.calc = PETCalculator(model)
    atoms.get_forces()
    first = atoms.calc.results
    kept = copy.deepcopy(first)
    atoms.rattle(0.05, seed=1)
    atoms.get_forces()
    assert atoms.calc.results is not first
    assert_equal_results(first, kept, 0.0)
    assert np.abs(atoms.calc.results["forces"] - first["forces"]).max() > 1e-3


def test_returned_arrays_can_be_changed(model):
    atoms = liquid()
    atoms.calc = PETCalculator(model)
    forces = atoms.get_forces()
    kept = forces.copy()
    forces += 1.0
    assert (atoms.get_forces() == kept).all()


def test_declared_properties_belong_to_one_calculator(model):
    first, second = PETCalculator(model), PETCalculator(model)
    first.implemented_properties.append("dipole")
    assert second.implemented_properties == DECLARED
    assert PETCalculator(model).implemented_properties == DECLARED
    assert PETCalculator.implemented_properties == DECLARED
    assert Calculator.implemented_properties == BaseCalculator.implemented_properties == []


@pytest.mark.parametrize("name", ["dipole", "charges", "magmoms", "stresses"])
def test_other_properties_are_not_implemented(model, name):
    with pytest.raises(PropertyNotImplementedError):
        PETCalculator(model).get_property(name, liquid())


@pytest.mark.parametrize(
    "atoms",
    [
        ase.build.molecule("H2O"),
        Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], cell=[4, 4, 9], pbc=(True, True, False)),
    ],
    ids=["molecule", "slab"],
)
def test_stress_needs_three_periodic_directions(model, atoms):
    atoms = atoms.copy()
    atoms.calc = PETCalculator(model)
    for _ in range(2):
        with pytest.raises(PropertyNotImplementedError, match=r"pbc=\[.*False\]; set atoms.pbc"):
            atoms.get_stress()
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert list(atoms.calc.results) == NAMES[:-1]


def test_one_atom_has_its_own_energy_and_no_force(model):
    atom = Atoms("O")
    results = properties(atom, model)
    assert (results["forces"] == 0).all()
    assert results["energy"] == results["energies"][0]


def test_float32_and_float64_agree_within_rounding(model):
    single = properties(liquid(), model, dtype="float32")
    double = properties(liquid(), model, dtype="float64")
    assert np.abs(single["forces"] - double["forces"]).max() < 1e-3
    # the two are really computed in different precision
    assert np.abs(single["forces"] - double["forces"]).max() > 1e-9


def test_evaluate_is_stateless_and_equal_to_the_shell(model):
    calculator = PETCalculator(model)
    atoms = liquid()
    results = calculator.evaluate(atoms)
    assert calculator.results == {}
    assert calculator.atoms is None
    expected = properties(atoms, model)
    assert results["energy"] == pytest.approx(expected["energy"], abs=1e-9)
    np.testing.assert_allclose(results["forces"], expected["forces"], atol=1e-12)
    np.testing.assert_allclose(results["stress"], expected["stress"], atol=1e-12)


# no stale values


def cell(atoms):
    # by more than the skin: images come within the cutoff that no list had
    atoms.set_cell(atoms.cell * 0.75, scale_atoms=False)


def strain(atoms):
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)


def species(atoms):
    atoms.numbers[0] = 1


def pbc(atoms):
    atoms.pbc = (True, False, True)


def removal(atoms):
    del atoms[3]


def addition(atoms):
    atoms += Atoms("H", [[1.5, 1.5, 1.5]])


def movement(atoms):
    atoms.positions[5, 1] += 1e-7


def translation(atoms):
    atoms.positions += 5.0


def wrapping(atoms):
    atoms.positions[4] -= atoms.cell[1]


def order(atoms):
    atoms.numbers[:] = atoms.numbers[::-1].copy()
    atoms.positions[:] = atoms.positions[::-1].copy()


CHANGES = [
    cell, strain, species, pbc, removal, addition, movement, translation, wrapping, order,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("skin", [0.0, 1.0])
def test_no_value_is_stale_after_a_change_of(model, change, skin):
    atoms = liquid()
    atoms.calc = PETCalculator(model, skin=skin)
    atoms.get_potential_energy()
    before = atoms.calc.results
    change(atoms)
    atoms.get_potential_energy()
    assert_equal_results(atoms.calc.results, properties(atoms, model), 1e-11)
    if change not in (translation, wrapping, order):
        assert atoms.calc.results["energy"] != before["energy"]


def test_two_structures_may_share_a_calculator(model):
    calculator = PETCalculator(model)
    first, second = liquid(seed=1), liquid(seed=2)
    first.calc = second.calc = calculator
    for _ in range(2):
        for atoms in (first, second):
            atoms.get_potential_energy()
            assert_equal_results(calculator.results, properties(atoms, model), 1e-11)


def test_nothing_is_left_of_a_structure_after_a_refusal(model):
    atoms = liquid()
    atoms.calc = PETCalculator(model)
    good = atoms.get_potential_energy()
    atoms.positions[0, 0] += np.nan
    for _ in range(2):
        with pytest.raises(InvalidStructureError):
            atoms.get_potential_energy()
    assert atoms.calc.results == {}
    atoms.calc.calculate(liquid(), ["energy"])
    with pytest.raises(InvalidStructureError):
        atoms.calc.calculate(atoms, ["energy"])
    assert atoms.calc.results == {}
    atoms.positions = liquid().positions
    assert atoms.get_potential_energy() == pytest.approx(good, abs=1e-9)


def test_charges_and_magnetic_moments_do_not_matter(model):
    atoms = liquid()
    atoms.calc = PETCalculator(model)
    atoms.get_potential_energy()
    results = atoms.calc.results
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    atoms.set_initial_charges(np.ones(len(atoms)))
    atoms.get_forces()
    assert atoms.calc.results is results


# the skin


@pytest.mark.parametrize("step", [0.02, 0.4], ids=["small steps", "large steps"])
def test_skin_has_no_effect_on_results(model, step):
    generator = np.random.default_rng(3)
    atoms = liquid()
    with_skin, without = PETCalculator(model, skin=1.0), PETCalculator(model, skin=0.0)
    for k in range(12):
        atoms.positions += step * generator.uniform(-1, 1, atoms.positions.shape)
        if k == 6:
            atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
        found = with_skin.evaluate(atoms)
        for calculator in (with_skin, without):
            calculator.calculate(atoms, ["energy"])
        expected = without.results
        # energies of the size of 1e4 eV carry 1e-12 of rounding each
        assert with_skin.results["energy"] == pytest.approx(expected["energy"], abs=1e-10)
        for name in ("forces", "stress"):
            np.testing.assert_allclose(with_skin.results[name], expected[name], atol=1e-12)
        np.testing.assert_allclose(found["forces"], expected["forces"], atol=1e-12)
    with_builds, without_builds = with_skin._verlet.n_builds, without._verlet.n_builds
    assert without_builds == 12
    assert with_builds < 12 if step < 0.1 else with_builds > 6


def test_a_list_that_is_not_renewed_would_be_seen(model):
    """Control of the test above: edges of a structure long gone give other forces."""
    atoms = liquid()
    calculator = PETCalculator(model, skin=1.0)
    calculator.calculate(atoms, ["energy"])
    stale = calculator._verlet.edges
    atoms.positions += np.random.default_rng(0).uniform(-1, 1, atoms.positions.shape)
    wrong = evaluate(calculator.potential.model, system_from_atoms(atoms), stale)
    right = calculator.evaluate(atoms)
    assert np.abs(wrong.forces.numpy() - right["forces"]).max() > 1e-6


# bad structures


def test_an_unknown_element_is_named_with_what_is_covered(shipped):
    atoms = ase.build.molecule("CH4")
    atoms.calc = PETCalculator("water")
    with pytest.raises(
        UnsupportedElementError, match="water-v2 covers H, O, but the structure contains C;"
    ):
        atoms.get_potential_energy()


def test_a_placeholder_atom_is_an_unknown_element(model):
    with pytest.raises(UnsupportedElementError, match="contains Z=0"):
        properties(Atoms("X"), model)


def test_zero_atoms_are_refused(model):
    with pytest.raises(InvalidStructureError, match="at least one atom"):
        properties(Atoms(), model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_refused(model, value):
    atoms = liquid()
    atoms.positions[7, 0] = value
    with pytest.raises(InvalidStructureError, match="atom 7 is at"):
        properties(atoms, model)


def test_periodicity_without_a_cell_is_refused(model):
    with pytest.raises(InvalidStructureError, match="zero vector"):
        properties(Atoms("O", pbc=True), model)


@pytest.mark.parametrize("distance", [0.0, 1e-9, 0.099])
def test_overlapping_atoms_are_refused(model, distance):
    atoms = liquid()
    atoms += Atoms("H", atoms.positions[[5]] + [[0, distance, 0]])
    with pytest.raises(
        InvalidStructureError, match=r"atoms (5 \(H\) and 24|24 \(H\) and 5) \(H\) are at"
    ):
        properties(atoms, model)


def test_overlapping_images_are_refused(model):
    atoms = Atoms("OH", [[0.02, 1, 1], [2.98, 1, 1]], cell=[3, 3, 3], pbc=True)
    with pytest.raises(InvalidStructureError, match=r"shifted by \[-?1, 0, 0\] cells, are at 0.04"):
        properties(atoms, model)


def test_close_atoms_are_computed(model):
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 0.11]])
    assert np.isfinite(properties(atoms, model)["forces"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_are_not_finite_are_never_returned(dtype):
    broken = small_pet()
    broken.energy_scale.fill_(torch.inf)
    with pytest.raises(SimulationError, match=r"energy of atom 0 is -?(inf|nan) eV \(24 such"):
        properties(liquid(), broken, dtype=dtype)


# which potential


def test_without_arguments_the_potential_is_chosen_and_logged(shipped, caplog):
    atoms = liquid()
    atoms.calc = PETCalculator()
    assert atoms.calc.potential is None
    assert atoms.calc.name == "pet"
    with caplog.at_level(logging.INFO, logger="pet_calc"):
        atoms.get_forces()
        atoms.rattle(0.01, seed=0)
        atoms.get_forces()
    assert [r.getMessage() for r in caplog.records if r.name == "pet_calc"] == [
        "using the potential water-v2 for H, O (float32)"
    ]
    assert atoms.calc.potential.name == atoms.calc.name == "water-v2"
    assert_equal_results(atoms.calc.results, properties(atoms, "water-v2"), 1e-3)


def test_the_choice_follows_the_elements(shipped, caplog):
    calculator = PETCalculator(dtype="float64")
    chosen = []
    for symbols in ("OH", "NaCl", "ClNa", "NaO", "OH"):
        atoms = Atoms(symbols, [[0, 0, 0], [0, 0, 1.5]])
        atoms.calc = calculator
        atoms.get_potential_energy()
        chosen.append(calculator.potential.name)
        assert_equal_results(calculator.results, properties(atoms, chosen[-1], dtype="float64"))
    # a potential stays as long as it covers the structure
    assert chosen == ["water-v2", "salt-v1", "salt-v1", "brine-v1", "brine-v1"]


def test_no_choice_lists_what_each_covers(shipped):
    atoms = ase.build.bulk("Cu")
    atoms.calc = PETCalculator()
    with pytest.raises(UnsupportedElementError, match=r"covers Cu \(water-v1: H, O; "):
        atoms.get_potential_energy()


def test_name_path_and_model_give_the_same(shipped, tmp_path):
    atoms = liquid()
    by_name = properties(atoms, "water-v1", dtype="float64")
    by_path = properties(atoms, shipped / "water-v1", dtype="float64")
    loaded = pretrained.load("water-v1").model
    by_model = properties(atoms, loaded, dtype="float64")
    assert_equal_results(by_path, by_name, 0.0)
    assert_equal_results(by_model, by_name, 0.0)
    save_model(tmp_path / "mine", loaded)
    assert_equal_results(properties(atoms, str(tmp_path / "mine"), dtype="float64"), by_name, 0.0)


def test_the_callers_model_is_left_alone():
    mine = small_pet()
    calculator = PETCalculator(mine, dtype="float32")
    assert mine.dtype == torch.float64
    assert all(p.requires_grad for p in mine.parameters())
    assert not any(p.requires_grad for p in calculator.potential.model.parameters())
    atoms = liquid()
    before = properties(atoms, calculator.potential.model)
    with torch.no_grad():
        mine.node_head[4].bias += 1.0
    atoms.calc = calculator
    assert atoms.get_potential_energy() == before["energy"]


def test_a_model_keeps_its_precision_unless_told(model):
    assert PETCalculator(model).dtype == "float64"
    assert PETCalculator(small_pet(dtype=torch.float32)).dtype == "float32"
    assert PETCalculator(model, dtype="float32").potential.model.dtype == torch.float32


def test_missing_and_changed_potentials_are_refused(shipped, tmp_path):
    with pytest.raises(PotentialNotFoundError, match="shipped: water-v1, water-v2, salt-v1"):
        PETCalculator("ice")
    save_model(tmp_path / "mine", small_pet())
    flip_a_bit(tmp_path / "mine" / WEIGHTS)
    with pytest.raises(IntegrityError, match=r"must have the SHA-256 [0-9a-f]{64}, but has"):
        PETCalculator(tmp_path / "mine")
    (tmp_path / "mine" / WEIGHTS).unlink()
    with pytest.raises(PotentialNotFoundError, match=WEIGHTS):
        PETCalculator(tmp_path / "mine")


# options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "`dtype` must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": torch.float32}, "`dtype` must be 'float32' or 'float64'"),
        ({"ecse": "lokal"}, "`ecse` must be None, False or one of 'auto'"),
        ({"ecse": True}, "`ecse` must be"),
        ({"ecse": 0}, "`ecse` must be"),
        ({"skin": -1.0}, "`skin` must be a number of Å and not negative, got -1"),
        ({"skin": np.nan}, "`skin` must be"),
        ({"device": "tpu"}, "`device` must be 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ({"device": "meta"}, "`device` must be"),
    ],
)
def test_other_options_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        PETCalculator(model, **options)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match=r"must be a name, a path or a PET model, .*got int"):
        PETCalculator(3)
    with pytest.raises(ValueError, match="got bfloat16"):
        PETCalculator(small_pet(dtype=torch.bfloat16))


def test_options_are_fixed(model):
    with pytest.raises(TypeError, match=r"fixed, got \['dtype'\]; make a new PETCalculator"):
        PETCalculator(model).set(dtype="float32")


def test_ecse_false_is_the_plain_model(model):
    assert_equal_results(properties(liquid(), model, ecse=False), properties(liquid(), model), 0.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks a machine without a GPU")
def test_without_a_gpu_the_cpu_is_used_and_cuda_is_refused(model):
    assert PETCalculator(model).device == torch.device("cpu") == choose_device(None)
    with pytest.raises(ValueError, match="'cuda' does not work: torch finds no CUDA device"):
        PETCalculator(model, device="cuda")


@pytest.mark.gpu
def test_gpu_gives_the_results_of_the_cpu(model):
    on_gpu = properties(liquid(), model, device="cuda")
    assert_equal_results(on_gpu, properties(liquid(), model, device="cpu"), 1e-9)


# as an object


def test_repr_and_dictionary_say_what_is_computed(shipped):
    calculator = PETCalculator(skin=0.5)
    options = f"device='{calculator.device}', dtype='float32', ecse=None, skin=0.5"
    assert repr(calculator) == f"PETCalculator('auto', {options})"
    assert calculator.todict()["model"] == "auto"
    calculator.calculate(liquid(), ["energy"])
    assert "'water-v2'" in repr(calculator)
    values = calculator.todict()
    assert values["model"] == "water-v2"
    assert values["sha256"] == pretrained.resolve("water").sha256[WEIGHTS]


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_duplicates_are_independent(model, duplicate):
    atoms = liquid()
    calculator = PETCalculator(model)
    calculator.calculate(atoms, ["energy"])
    kept = copy.deepcopy(calculator.results)
    other = duplicate(calculator)
    assert_equal_results(other.results, kept, 0.0)
    moved = atoms.copy()
    moved.rattle(0.2, seed=4)
    moved.calc = other
    moved.get_forces()
    assert_equal_results(other.results, properties(moved, model), 1e-11)
    assert_equal_results(calculator.results, kept, 0.0)
    atoms.calc = calculator
    assert atoms.get_potential_energy() == kept["energy"]


def test_atoms_can_be_copied_with_their_calculator(model):
    atoms = liquid()
    atoms.calc = PETCalculator(model)
    energy = atoms.get_potential_energy()
    other = copy.deepcopy(atoms)
    other.rattle(0.1, seed=0)
    assert other.get_potential_energy() != energy
    assert atoms.get_potential_energy() == energy


def test_logging_is_not_configured(shipped):
    root, own = logging.getLogger(), logging.getLogger("pet_calc")
    before = (list(root.handlers), root.level, list(own.handlers), own.level, own.propagate)
    PETCalculator().calculate(liquid(), ["energy"])
    assert before == (list(root.handlers), root.level, list(own.handlers), own.level, own.propagate)


def test_global_random_states_stay(shipped):
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    PETCalculator().calculate(liquid(), ["energy"])
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


def test_small_cells_see_their_images(model):
    """A cell below the cutoff equals its supercell: energy per cell, forces and stress."""
    small = liquid(1, length=2.9)
    assert small.cell.lengths().max() < CUTOFF
    one, eight = properties(small, model), properties(small * (2, 2, 2), model)
    assert eight["energy"] == pytest.approx(8 * one["energy"], abs=1e-8)
    np.testing.assert_allclose(eight["forces"], np.tile(one["forces"], (8, 1)), atol=1e-10)
    np.testing.assert_allclose(eight["stress"], one["stress"], atol=1e-11)
