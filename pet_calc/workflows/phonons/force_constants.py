r"""Harmonic force constants from finite displacements, and how far from symmetric they were.

.. math:: \Phi_{ia,jb} = \frac{\partial^2 E}{\partial u_{ia} \partial u_{jb}}
          = -\frac{\partial F_{jb}}{\partial u_{ia}}

[Parlinski, Li and Kawazoe, Phys. Rev. Lett. 78, 4063 (1997)]. The projection onto the force
constants that have all symmetries is symfc's [Seko and Togo, Phys. Rev. B 110, 214302 (2024)].
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pet_calc.workflows.phonons.cells import IntMatrix, Primitive, to_ase, to_phonopy
from pet_calc.workflows.phonons.config import PhononConfig
from pet_calc.workflows.phonons.forces import forces_of
from pet_calc.workflows.progress import OnProgress

if TYPE_CHECKING:
    from phonopy import Phonopy

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ForceConstantReport:
    """What went into the force constants.

    Attributes
    ----------
    n_supercells, n_atoms : int
        Displaced supercells, and the atoms of each.
    residual_force : float
        Largest force component left in the undisplaced supercell, eV/Å.
    largest : float
        Largest force constant, eV/Å².
    asymmetry : float
        Largest change of a force constant by the symmetrization, eV/Å²; the symmetry that the
        potential lacks, and the anharmonicity of the displacement.
    gamma_shift : float
        Largest change of a frequency at Γ by the symmetrization, THz.
    edge : float
        Largest norm of the 3x3 force constants of a pair whose distance is within 5 % of the
        longest in the supercell, as a part of the largest between different atoms: whether the
        forces have died away.
    """

    n_supercells: int
    n_atoms: int
    residual_force: float
    largest: float
    asymmetry: float
    gamma_shift: float
    edge: float


def force_constants(
    primitive: Primitive,
    matrix: IntMatrix,
    calculator: Any,
    config: PhononConfig,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[Phonopy, ForceConstantReport]:
    """Symmetrized force constants of a primitive cell.

    Parameters
    ----------
    primitive : Primitive
        The relaxed cell.
    matrix : array, shape (3, 3), integer
        Supercell in rows of primitive lattice vectors.
    calculator : ase calculator
    config : PhononConfig
    on_progress : callable, optional
        See `forces_of`.

    Raises
    ------
    ValueError
        If the supercell breaks the symmetry of the crystal.
    """
    from phonopy import Phonopy

    # phonopy multiplies from the right, with lattice vectors in columns
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning: Point group symmetries of supercell")
        phonon = Phonopy(
            to_phonopy(primitive.atoms),
            supercell_matrix=matrix.T,
            primitive_matrix="P",
            symprec=config.symprec,
        )
    require_full_symmetry(phonon)
    if config.displacements == "full":
        phonon.dataset = full_displacements(phonon, config.distance)
    else:
        phonon.generate_displacements(distance=config.distance)
    displaced: Any = phonon.dataset
    perfect = to_ase(phonon.supercell)
    structures = [perfect]
    for entry in displaced["first_atoms"]:
        structures.append(perfect.copy())
        structures[-1].positions[entry["number"]] += entry["displacement"]
    _, forces = forces_of(
        calculator, structures, batch_edges=config.batch_edges, on_progress=on_progress
    )
    residual, forces = forces[0], forces[1:]
    phonon.forces = forces - residual if config.subtract_residual else forces
    if config.displacements == "full":
        phonon.force_constants = central_differences(np.array(phonon.forces), config.distance)
    else:
        phonon.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    raw = np.array(phonon.force_constants)
    before = phonon.run_qpoints([[0.0, 0.0, 0.0]]).frequencies[0]
    symmetrize(phonon, config)
    final = np.array(phonon.force_constants)
    after = phonon.run_qpoints([[0.0, 0.0, 0.0]]).frequencies[0]
    report = ForceConstantReport(
        n_supercells=len(forces),
        n_atoms=len(perfect),
        residual_force=float(np.abs(residual).max()),
        largest=float(np.abs(final).max()),
        asymmetry=float(np.abs(final - raw).max()),
        gamma_shift=float(np.abs(after - before).max()),
        edge=edge_fraction(phonon),
    )
    return phonon, report


def require_full_symmetry(phonon: Phonopy) -> None:
    """Raise `ValueError` if the supercell has a lower point group than the crystal.

    Its force constants would lack symmetries that the sums over q-points rely on.
    """
    whole = phonon.primitive_symmetry.pointgroup_symbol
    found = phonon.symmetry.pointgroup_symbol
    if found != whole:
        raise ValueError(
            f"the supercell must have the symmetry of the crystal, but its point group is {found} "
            f"and that of the crystal {whole}; take equal multiples along equivalent directions, "
            f"leave the choice to --min-length, or change --symprec"
        )


def full_displacements(phonon: Phonopy, distance: float) -> Any:
    """Every atom of the primitive cell along ±x, ±y and ±z, as phonopy's displacement dataset."""
    steps = [sign * distance * axis for axis in np.eye(3) for sign in (1, -1)]
    atoms = phonon.primitive.p2s_map
    return {
        "natom": len(phonon.supercell),
        "first_atoms": [{"number": int(i), "displacement": u} for i in atoms for u in steps],
    }


def central_differences(forces: Array, distance: float) -> Array:
    """Force constants (n_primitive, n_supercell, 3, 3) in eV/Å² from those of `full_displacements`.

    Parameters
    ----------
    forces : array, shape (6 n_primitive, n_supercell, 3)
        In eV/Å.
    distance : float
        Displacement, Å.
    """
    pairs = forces.reshape(-1, 3, 2, *forces.shape[1:])
    slope = -(pairs[:, :, 0] - pairs[:, :, 1]) / (2 * distance)
    return np.ascontiguousarray(slope.transpose(0, 2, 1, 3))


def symmetrize(phonon: Phonopy, config: PhononConfig) -> None:
    """Impose the symmetries on the force constants in place; see `PhononConfig`."""
    if config.symmetrize == "symfc":
        phonon.symmetrize_force_constants(use_symfc_projector=True, show_drift=False)
    else:
        phonon.symmetrize_force_constants(level=2, show_drift=False)


def edge_fraction(phonon: Phonopy) -> float:
    """See `ForceConstantReport.edge`."""
    shortest, address = phonon.primitive.get_smallest_vectors()
    # dense format: address[j, i] = (count, first index) of the vectors from i to j
    length = np.linalg.norm(shortest @ phonon.primitive.cell, axis=1)
    distance = length[address[:, :, 1]].T  # (n_primitive, n_supercell)
    norm = np.linalg.norm(np.array(phonon.force_constants), axis=(2, 3))
    different = distance > 1e-3
    far = distance >= 0.95 * distance.max()
    return float(norm[far].max() / norm[different].max())
