"""Proposals may begin closer than the guards allow, and must not end there."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from pet_calc.crystals.generation import GeometryWindow
from pet_calc.crystals.generation.geometry_window import closest_contact
from pet_calc.crystals.generation.relaxation import judged, relax_proposals
from pet_calc.workflows.relax import RelaxConfig, relax_all, with_calculator

RELAX = RelaxConfig(cell="free", fmax=0.1, steps=200)


def copper(contact: float) -> Atoms:
    """Four atoms of fcc, one of them moved until it is at `contact` of the sum of two radii."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    direction = atoms.positions[1] - atoms.positions[0]
    low, high = 0.0, 0.9
    for _ in range(60):  # the contact falls with the distance moved
        middle = 0.5 * (low + high)
        atoms.positions[0] = middle * direction
        if closest_contact(atoms, 2.0) > contact:
            low = middle
        else:
            high = middle
    return atoms


def test_close_atoms_of_a_proposal_are_pushed_apart() -> None:
    inside, outside = copper(0.52), copper(0.4)
    assert closest_contact(inside) == pytest.approx(0.52)
    told = {}
    window = GeometryWindow()
    assert not window.objection(inside)
    found = relax_proposals(
        [inside, outside], EMT(), RELAX, window=window, on_result=told.__setitem__
    )
    assert [o.status for o in found] == ["converged", "failed"]
    assert found[0].atoms is not None
    assert closest_contact(found[0].atoms, 2.0) > 0.9
    assert "nearly touch" in found[1].reason
    assert {k: o.status for k, o in told.items()} == {0: "converged", 1: "failed"}
    # as guards are for what a potential has brought about, without the window both fail
    plain = relax_all(with_calculator([inside, outside], EMT()), RELAX)
    assert [o.status for o in plain] == ["failed", "failed"]
    # a wider window lets the other one through too
    wide = relax_proposals([outside], EMT(), RELAX, window=GeometryWindow(contact=0.3))
    assert wide[0].converged


def test_what_stays_too_close_is_stopped() -> None:
    """No step is made, so that the atoms are at the end where they were."""
    still = RelaxConfig(cell="fixed", fmax=0.01, steps=0)
    told = {}
    close, far = copper(0.52), copper(0.8)
    found = relax_proposals([close, far], EMT(), still, on_result=told.__setitem__)
    assert [o.status for o in found] == ["stopped", "steps"]
    assert found[0].reason.startswith("still too close at the end: atom 0 (Cu)")
    assert "0.6 times" in found[0].reason
    assert told[0].status == "stopped"
    assert np.allclose(found[0].atoms.positions, close.positions)
    assert judged(found[0], still) is found[0]
    assert judged(found[1], still) is found[1]
