"""Conversion constants against ASE's, an independent table."""

import ase.units
import pytest

from pet_calc import units


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (units.K_B, ase.units.kB),
        (units.GPA, ase.units.GPa),
        (units.EV_PER_A3_TO_GPA, 1 / ase.units.GPa),
        (units.FS, ase.units.fs),
        (units.PS, 1e3 * ase.units.fs),
        (units.NS, 1e6 * ase.units.fs),
        (units.INTERNAL_TIME_TO_FS, 1 / ase.units.fs),
        (units.HARTREE, ase.units.Hartree),
        (units.BOHR, ase.units.Bohr),
        (units.EV_TO_KJ_PER_MOL, ase.units.mol / ase.units.kJ),
        (units.THZ_TO_INVERSE_CM, 1e12 * ase.units._hplanck / ase.units._e / ase.units.invcm),
        (units.THZ_TO_MEV, 1e15 * ase.units._hplanck / ase.units._e),
        (units.AMU_PER_A3_TO_G_PER_CM3, ase.units._amu * 1e27),
    ],
)
def test_constant_agrees_with_ase(ours: float, theirs: float) -> None:
    # ASE uses CODATA 2014, SciPy a later set; they differ by up to 4e-7 (Boltzmann's constant).
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_every_constant_is_public_and_sorted() -> None:
    names = [n for n, v in vars(units).items() if isinstance(v, float) and not n.startswith("_")]
    assert units.__all__ == sorted(names)
