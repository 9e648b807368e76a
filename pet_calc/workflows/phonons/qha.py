r"""Thermal expansion and what follows from it, in the quasi-harmonic approximation.

.. math:: G(T, p) = \min_V \left[ E(V) + F_\mathrm{vib}(T; V) + pV \right]

[Togo, Chaput, Tanaka and Hug, Phys. Rev. B 81, 174301 (2010)]. At each volume the phonons are
harmonic; their frequencies know the temperature through the volume only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.errors import SimulationError
from pet_calc.units import EV_PER_A3_TO_GPA, EV_TO_KJ_PER_MOL
from pet_calc.workflows.phonons.calculation import prepared, require_phonopy
from pet_calc.workflows.phonons.cells import Primitive, supercell_matrix
from pet_calc.workflows.phonons.config import PhononConfig, QHAConfig
from pet_calc.workflows.phonons.force_constants import force_constants
from pet_calc.workflows.phonons.forces import forces_of
from pet_calc.workflows.phonons.relaxation import relax_crystal
from pet_calc.workflows.phonons.spectrum import IMAGINARY
from pet_calc.workflows.progress import OnProgress, Progress

if TYPE_CHECKING:
    from phonopy import Phonopy

Array = NDArray[np.float64]


@dataclass(frozen=True)
class QHAResult:
    """Thermodynamics at constant pressure; energies and volumes per atom.

    Attributes
    ----------
    primitive : Primitive
        The cell relaxed without vibrations.
    volumes, energies, lowest : array, shape (n_volumes,)
        Å³/atom, static energy in eV/atom, and lowest frequency on the mesh in THz.
    static_volume, static_bulk_modulus, static_b_prime : float
        Of the equation of state of E(V): Å³/atom, GPa, and dB/dp.
    temperature : array, shape (n,)
        K.
    free_energy : array, shape (n, n_volumes)
        F(T, V) + pV, eV/atom.
    volume : array, shape (n,)
        At the minimum of it, Å³/atom.
    lattice : array, shape (n, 3)
        Lengths of the conventional lattice vectors, Å.
    thermal_expansion : array, shape (n,)
        Of the volume: (1/V) dV/dT, 1/K.
    bulk_modulus : array, shape (n,)
        Isothermal, GPa.
    gibbs : array, shape (n,)
        eV/atom.
    entropy, heat_capacity_p : array, shape (n,)
        J/(K mol) of atoms.
    gruneisen : array, shape (n,)
        Thermodynamic Grüneisen parameter; 0 at 0 K, where it is not defined.
    fit_residual : float
        Largest difference between free energies and their equation of state, eV/atom.
    warnings : tuple of str
    """

    primitive: Primitive
    volumes: Array
    energies: Array
    lowest: Array
    static_volume: float
    static_bulk_modulus: float
    static_b_prime: float
    temperature: Array
    free_energy: Array
    volume: Array
    lattice: Array
    thermal_expansion: Array
    bulk_modulus: Array
    gibbs: Array
    entropy: Array
    heat_capacity_p: Array
    gruneisen: Array
    fit_residual: float
    warnings: tuple[str, ...]

    def at(self, temperature: float, name: str) -> float:
        """A column at a temperature by linear interpolation; NaN beyond the last one."""
        values = getattr(self, name)
        return float(np.interp(temperature, self.temperature, values, right=np.nan))


def quasi_harmonic(
    atoms: Atoms,
    config: QHAConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> QHAResult:
    """Phonons at several volumes and the quasi-harmonic thermodynamics from them.

    At each volume the positions are relaxed, unless ``config.phonons.relax`` is off, and with a
    `cell` that may change its shape, "free" or "shape", the shape as well.

    Parameters
    ----------
    atoms : Atoms
        A crystal with a calculator (float64).
    config : QHAConfig, optional
    on_progress : callable, optional
        Called with the `Progress` of the relaxation and of the volumes.

    Raises
    ------
    SimulationError
        If a volume has imaginary modes, whose free energy is not defined, or the free energy has
        no minimum among the volumes.
    InvalidStructureError, UnsupportedElementError, ValueError
        As `phonons`.
    """
    config = config or QHAConfig()
    settings = config.phonons
    require_phonopy()
    first = prepared(atoms, settings, on_progress)
    matrix = supercell_matrix(first, settings.supercell, settings.min_length)
    # the same points at all volumes: a change of the mesh would be a step in F(V)
    mesh = mesh_numbers(first, settings.mesh)
    computed = []
    for k, scale in enumerate(np.linspace(*config.span, config.points)):
        primitive = at_volume(first, float(scale), settings)
        phonon, _ = force_constants(primitive, matrix, atoms.calc, settings)
        lowest = float(phonon.run_mesh(mesh).frequencies.min())
        require_stable(lowest, float(scale), primitive)
        energy, _ = forces_of(atoms.calc, [primitive.atoms])
        lengths = np.linalg.norm(primitive.conventional @ primitive.atoms.cell.array, axis=1)
        computed.append(_Volume(phonon, float(energy[0]), lowest, lengths))
        if on_progress is not None:
            text = f"{scale:.3f} V₀, {primitive.atoms.get_volume():.3f} Å³"
            on_progress(Progress("volumes", k + 1, config.points, text))
    return thermodynamics(first, computed, mesh, config)


class _Volume(NamedTuple):
    """Phonons at one volume: energy of the cell in eV, frequency in THz, lengths (3,) in Å."""

    phonon: Phonopy
    energy: float
    lowest: float
    lengths: Array


def thermodynamics(
    first: Primitive, computed: list[_Volume], mesh: NDArray[np.int64], config: QHAConfig
) -> QHAResult:
    """The quasi-harmonic approximation from the phonons of several volumes."""
    from phonopy import run_qha
    from phonopy.qha.core import BulkModulus
    from phonopy.qha.eos import get_eos

    n, settings = len(first.atoms), config.phonons
    # central differences consume one temperature at the end
    temperatures = np.arange(0.0, settings.t_max + 1.5 * settings.t_step, settings.t_step)
    volumes = np.array([v.phonon.primitive.volume for v in computed])
    energies = [v.energy for v in computed]
    static = BulkModulus(volumes, energies, pressure=None, eos=config.eos)
    with warnings.catch_warnings():
        # of the primitive cell's vectors, which are not used
        warnings.filterwarnings("ignore", message="Lattice parameter")
        found = run_qha(
            [v.phonon for v in computed],
            temperatures,
            internal_energies=energies,
            mesh=mesh,
            pressure=config.pressure or None,
            eos=config.eos,
            exclude_gamma_acoustic=True,
        )
    kept, notes = within_range(found, volumes, first.atoms.get_volume(), config)
    if len(found.temperatures) < len(temperatures) - 1:
        notes.append(f"the fit of the equation of state failed above {found.temperatures[-1]:g} K")
    part = slice(0, kept)
    form = get_eos(config.eos)
    residual = found.helmholtz_volume[part] - np.array(
        [form(volumes, parameters) for parameters in found.eos_parameters[part]]
    )
    per_mole = 1000.0 * EV_TO_KJ_PER_MOL / n
    equilibrium = np.array(found.equilibrium_volumes[part])
    return QHAResult(
        primitive=first,
        volumes=volumes / n,
        energies=np.array(energies) / n,
        lowest=np.array([v.lowest for v in computed]),
        static_volume=float(static.equilibrium_volume) / n,
        static_bulk_modulus=float(static.bulk_modulus) * EV_PER_A3_TO_GPA,
        static_b_prime=float(static.b_prime),
        temperature=np.array(found.temperatures[part]),
        free_energy=np.array(found.helmholtz_volume[part]) / n,
        volume=equilibrium / n,
        lattice=lattice_lengths(volumes, np.array([v.lengths for v in computed]), equilibrium),
        thermal_expansion=np.array(found.thermal_expansion[part]),
        bulk_modulus=np.array(found.bulk_moduli[part]) * EV_PER_A3_TO_GPA,
        gibbs=np.array(found.gibbs_free_energies[part]) / n,
        entropy=np.array(found.entropy_temperature[part]) * per_mole,
        heat_capacity_p=np.array(found.heat_capacity_P.heat_capacities[part]) * per_mole,
        gruneisen=np.array(found.gruneisen_parameters[part]),
        fit_residual=float(np.abs(residual).max()) / n,
        warnings=tuple(notes),
    )


def within_range(
    found: Any, volumes: Array, relaxed: float, config: QHAConfig
) -> tuple[int, list[str]]:
    """How many temperatures have their volume within those computed, and what to note.

    Raises
    ------
    SimulationError
        If there are fewer than two.
    """
    inside = (found.equilibrium_volumes > volumes[0]) & (found.equilibrium_volumes < volumes[-1])
    kept = len(inside) if inside.all() else int(np.argmin(inside))
    if kept < 2:
        raise SimulationError(
            f"the free energy must have its minimum between the volumes {config.span[0]:g} and "
            f"{config.span[1]:g} V₀, but at 0 K it is at "
            f"{found.equilibrium_volumes[0] / relaxed:.3f} V₀; move the span"
        )
    if kept == len(inside):
        return kept, []
    return kept, [
        f"the volume leaves the range computed at {found.temperatures[kept]:g} K; results end "
        f"below it (raise the end of --span)"
    ]


def at_volume(first: Primitive, scale: float, config: PhononConfig) -> Primitive:
    """The cell at `scale` times its volume, its shape and positions relaxed if asked for."""
    atoms = first.atoms.copy()
    atoms.calc = first.atoms.calc
    atoms.set_cell(atoms.cell.array * scale ** (1 / 3), scale_atoms=True)
    if config.relax:
        atoms = relax_crystal(
            atoms, config, "shape" if config.cell in ("free", "shape") else "fixed"
        )
    return Primitive(atoms, first.given, first.conventional, first.spacegroup, first.number)


def require_stable(lowest: float, scale: float, primitive: Primitive) -> None:
    """Raise `SimulationError` for imaginary modes: their free energy is not defined."""
    if lowest >= -IMAGINARY:
        return
    volume = primitive.atoms.get_volume() / len(primitive.atoms)
    raise SimulationError(
        f"the quasi-harmonic approximation needs real frequencies at every volume, but at "
        f"{scale:.3f} V₀ ({volume:.2f} Å³/atom) the lowest is {lowest:.2f} THz (negative: "
        f"imaginary); narrow the range of volumes, take a larger supercell, or look at the "
        f"structure with `pet-calc phonons`"
    )


def mesh_numbers(primitive: Primitive, density: float) -> NDArray[np.int64]:
    """Divisions of the reciprocal cell that have the symmetry of the lattice.

    They are odd, so that the mesh has its center at Γ, and equal for a centered lattice, whose
    operations mix the primitive vectors.
    """
    lengths = np.linalg.norm(primitive.atoms.cell.reciprocal().array, axis=1)
    numbers = 2 * (np.ceil(density * lengths).astype(np.int64) // 2) + 1
    centered = round(abs(np.linalg.det(primitive.conventional))) > 1
    return np.full(3, numbers.max()) if centered else numbers


def lattice_lengths(volumes: Array, lengths: Array, equilibrium: Array) -> Array:
    """Lengths (n, 3) at the equilibrium volumes; ln(length) is a parabola in ln(V)."""
    x = np.log(volumes / volumes.mean())
    columns = [np.polynomial.Polynomial.fit(x, np.log(column), 2) for column in lengths.T]
    at = np.log(equilibrium / volumes.mean())
    return np.exp(np.stack([fit(at) for fit in columns], axis=1))
