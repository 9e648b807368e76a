"""Errors on labeled frames, and the error of symmetry."""

import numpy as np
import pytest
from calculators.small_potentials import small_pet

from pet_calc.io.data.datasets import read_frames
from pet_calc.models import LennardJones
from pet_calc.training.potentials.data import prepare
from pet_calc.training.potentials.evaluate import Error, evaluate_frames, rotation_error

LJ = LennardJones((11, 17), epsilon=0.2, sigma=2.3, cutoff=4.0, cutoff_width=2.0)


@pytest.fixture(scope="module")
def frames(data_folder):
    labeled, _ = read_frames([data_folder / "test.extxyz"])
    return [prepare(f, LJ.cutoff) for f in labeled]


def test_errors_are_mean_and_root_mean_square():
    error = Error.of(np.array([3.0, -4.0, np.nan]))
    assert (error.mae, error.rmse, error.count) == (3.5, np.sqrt(12.5), 2)
    assert Error.of(np.array([np.nan])).count == 0


def test_the_model_of_the_labels_has_no_error_in_forces(frames):
    evaluation = evaluate_frames(LJ, frames)
    # positions in the file are rounded to 1e-8 Å
    assert evaluation.forces.rmse < 1e-3
    assert evaluation.stress.rmse < 1e-3
    # the labels hold species energies, which the model lacks: 3 and 5 eV per atom
    assert 3000 < evaluation.energy.mae < 5000
    assert set(evaluation.forces_by_element) == {"Na", "Cl"}
    assert evaluation.forces.count == sum(3 * f.system.n_atoms for f in frames)


def test_rotation_error_is_zero_for_an_invariant_model_only(frames):
    exact = rotation_error(LJ, frames, 3)
    assert exact.energy < 1e-8
    assert exact.forces < 1e-8
    plain = rotation_error(small_pet((11, 17)), [frames[0]], 3)
    assert plain.energy > 1e-3
    assert plain.forces > 1e-3
    with pytest.raises(ValueError, match="at least 2"):
        rotation_error(LJ, frames, 1)
