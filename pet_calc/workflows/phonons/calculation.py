"""Phonons of a crystal from its structure and an ASE calculator."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.units import BOHR, HARTREE
from pet_calc.workflows.phonons.cells import (
    IntMatrix,
    Primitive,
    find_primitive,
    shortest_translation,
    supercell_matrix,
)
from pet_calc.workflows.phonons.config import PhononConfig
from pet_calc.workflows.phonons.force_constants import ForceConstantReport, force_constants
from pet_calc.workflows.phonons.forces import forces_of
from pet_calc.workflows.phonons.relaxation import relax_crystal
from pet_calc.workflows.phonons.spectrum import Spectrum, spectrum
from pet_calc.workflows.progress import OnProgress, Progress

if TYPE_CHECKING:
    from phonopy import Phonopy
    from phonopy.harmonic.dynamical_matrix import NacParams

Array = NDArray[np.float64]

#: Force constants at the edge of the supercell above this part of the largest are worth a warning.
EDGE = 0.02
#: A frequency at Γ that symmetrization moves by more than this, in THz, is worth a warning.
GAMMA_SHIFT = 0.1


@dataclass(frozen=True)
class BornCharges:
    """What the non-analytical correction for a polar insulator needs.

    Attributes
    ----------
    charges : array, shape (n_primitive, 3, 3)
        Born effective charges of the atoms of the primitive cell, in e.
    dielectric : array, shape (3, 3)
        High-frequency dielectric tensor.
    """

    charges: Array
    dielectric: Array


@dataclass(frozen=True)
class PhononResult:
    """Phonons, and what they were made of.

    Attributes
    ----------
    primitive : Primitive
        The (relaxed) primitive cell.
    energy : float
        Of the primitive cell, eV.
    force : float
        Largest force component in the primitive cell, eV/Å.
    supercell : array, shape (3, 3), integer
        In rows of primitive lattice vectors.
    report : ForceConstantReport
    spectrum : Spectrum
    phonon : Phonopy
        For everything that phonopy can do besides.
    config : PhononConfig
    """

    primitive: Primitive
    energy: float
    force: float
    supercell: IntMatrix
    report: ForceConstantReport
    spectrum: Spectrum
    phonon: Phonopy
    config: PhononConfig

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before using the numbers."""
        found = []
        s, r = self.spectrum, self.report
        if not s.stable:
            found.append(
                f"imaginary modes: the lowest frequency is {s.lowest:.2f} THz at {s.lowest_place} "
                f"(negative: imaginary). The structure is no minimum of this potential, or the "
                f"supercell is too small; {100 * s.thermal.left_out:.2g} % of the modes are "
                f"missing in the thermal properties"
            )
        if s.dos.smearing is not None:
            found.append(
                f"the tetrahedra of so skewed a cell lose states: the density of states is a sum "
                f"of Gaussians of {s.dos.smearing:.3f} THz instead; a reduced cell has sharp ones"
            )
        if r.edge > EDGE:
            found.append(
                f"force constants at the edge of the supercell still have {100 * r.edge:.1f} % of "
                f"the largest; check with a larger one (--min-length)"
            )
        if r.gamma_shift > GAMMA_SHIFT:
            found.append(
                f"symmetrization moved a frequency at Γ by {r.gamma_shift:.2f} THz: the potential "
                f"breaks the symmetry of the crystal; --displacements full averages over it"
            )
        return tuple(found)


def phonons(
    atoms: Atoms,
    config: PhononConfig | None = None,
    *,
    born: BornCharges | Path | None = None,
    on_progress: OnProgress | None = None,
) -> PhononResult:
    """Relax a crystal, displace its atoms, and compute its harmonic phonons.

    Parameters
    ----------
    atoms : Atoms
        A crystal, primitive or not, with a calculator (float64).
    config : PhononConfig, optional
    born : BornCharges or Path, optional
        For the non-analytical correction; a path names a ``BORN`` file of phonopy for the
        primitive cell.
    on_progress : callable, optional
        Called with the `Progress` of each part of the work, and of the supercells.

    Raises
    ------
    InvalidStructureError, UnsupportedElementError
        For a structure that has no phonons, or that the potential does not cover.
    SimulationError
        If the relaxation does not converge or the potential fails.
    ValueError
        For a supercell that is too small, or Born charges that do not fit.
    """
    config = config or PhononConfig()
    require_phonopy()
    primitive = prepared(atoms, config, on_progress)
    matrix = supercell_matrix(primitive, config.supercell, config.min_length)
    return phonons_of(primitive, matrix, config, born=born, on_progress=on_progress)


def phonons_of(
    primitive: Primitive,
    matrix: IntMatrix,
    config: PhononConfig,
    *,
    born: BornCharges | Path | None = None,
    on_progress: OnProgress | None = None,
) -> PhononResult:
    """Phonons of a primitive cell as it is; see `phonons`."""
    calculator = primitive.atoms.calc
    energies, forces = forces_of(calculator, [primitive.atoms])
    cell = matrix @ primitive.atoms.cell.array
    n_atoms = round(abs(np.linalg.det(matrix))) * len(primitive.atoms)
    image = f"an atom is {shortest_translation(cell):.1f} Å from its nearest image"
    report_stage(on_progress, "supercells", f"{n_atoms} atoms, {image}")
    phonon, report = force_constants(primitive, matrix, calculator, config, on_progress=on_progress)
    if born is not None:
        phonon.nac_params = nac_parameters(phonon, born, config.symprec)
    report_stage(on_progress, "spectrum", "bands, density of states and thermal properties")
    return PhononResult(
        primitive=primitive,
        energy=float(energies[0]),
        force=float(np.abs(forces).max()),
        supercell=matrix,
        report=report,
        spectrum=spectrum(phonon, config),
        phonon=phonon,
        config=config,
    )


def report_stage(on_progress: OnProgress | None, stage: str, text: str) -> None:
    """Report that a part of the work begins."""
    if on_progress is not None:
        on_progress(Progress(stage, text=text))


def prepared(atoms: Atoms, config: PhononConfig, on_progress: OnProgress | None) -> Primitive:
    """The primitive cell, relaxed if asked for, after a first look at the calculator."""
    if atoms.calc is None:
        raise ValueError("`atoms` must carry a calculator; set atoms.calc")
    primitive = find_primitive(atoms, config.symprec)
    name = f"{primitive.spacegroup} (no. {primitive.number})"
    report_stage(on_progress, "primitive cell", f"{name}, {len(primitive.atoms)} atoms")
    # a calculator that cannot compute it fails here
    forces_of(atoms.calc, [primitive.atoms])
    if not config.relax:
        return primitive
    relaxed = relax_crystal(primitive.atoms, config, config.cell, on_progress)
    # a distortion can vanish on the way, and with it lattice vectors that were needed before
    final = find_primitive(relaxed, config.symprec)
    if final.number != primitive.number:
        report_stage(on_progress, "relaxed cell", f"{final.spacegroup} (no. {final.number})")
    return replace(final, given=primitive.given @ final.given)


def nac_parameters(phonon: Phonopy, born: BornCharges | Path, symprec: float) -> NacParams:
    """Parameters of the non-analytical correction, symmetrized.

    The charges get the site symmetry and the sum rule Σ Z* = 0; the dielectric tensor that of the
    crystal. Their unit is e, so that the factor is e²/4πε₀ in eV Å, unless a file has its own.

    Raises
    ------
    ValueError
        If they do not fit the primitive cell.
    """
    from phonopy.file_IO import parse_BORN
    from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

    n = len(phonon.primitive)
    if isinstance(born, BornCharges):
        read: Any = {"born": np.array(born.charges), "dielectric": np.array(born.dielectric)}
    else:
        try:
            read = parse_BORN(phonon.primitive, symprec=symprec, filename=born)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{born} cannot be read as a BORN file of the primitive cell ({n} atoms): {error}"
            ) from error
    charges, dielectric = read["born"], read["dielectric"]
    if charges.shape != (n, 3, 3) or dielectric.shape != (3, 3):
        raise ValueError(
            f"Born charges must have shape ({n}, 3, 3) and the dielectric tensor (3, 3), got "
            f"{charges.shape} and {dielectric.shape}"
        )
    if not (np.isfinite(charges).all() and np.isfinite(dielectric).all()):
        raise ValueError("Born charges and dielectric tensor must be finite numbers")
    charges, dielectric = symmetrize_borns_and_epsilon(
        charges, dielectric, phonon.primitive, symprec=symprec
    )
    parameters: Any = {"factor": HARTREE * BOHR, **read}
    parameters.update(born=charges, dielectric=dielectric)
    return parameters


def require_phonopy() -> None:
    """Raise if the packages of the extra ``phonons`` are not installed."""
    packages = ("phonopy", "seekpath", "spglib", "symfc")
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise ValueError(
            f"phonons need {', '.join(missing)}, which is not installed; "
            f'run pip install "pet-calc[phonons]"'
        )
