"""What follows from force constants: bands, modes at special points, densities of states, F(T).

Frequencies are in THz; an imaginary frequency iν is written as -ν.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pet_calc.units import EV_TO_KJ_PER_MOL
from pet_calc.workflows.phonons.config import PhononConfig

if TYPE_CHECKING:
    from phonopy import Phonopy

Array = NDArray[np.float64]
GAMMA = "Γ"

#: A mode is imaginary below -IMAGINARY THz. Interpolation between the q-points that fit into the
#: supercell leaves ripples of a few hundredths of a THz around zero frequency near Γ.
IMAGINARY = 0.05

#: Part of the modes that a density of states may lack: its edges are coarse.
LOST_STATES = 0.1


@dataclass(frozen=True)
class Segment:
    """A straight line through reciprocal space.

    Attributes
    ----------
    start, end : str
        Labels of its ends.
    qpoints : array, shape (n_points, 3)
        In reciprocal lattice vectors of the primitive cell.
    distance : array, shape (n_points,)
        Length of the path up to each point, 1/Å (with 2π).
    frequencies : array, shape (n_points, n_bands)
    """

    start: str
    end: str
    qpoints: Array
    distance: Array
    frequencies: Array


@dataclass(frozen=True)
class Point:
    """Modes at a high-symmetry point.

    Attributes
    ----------
    label : str
    q : array, shape (3,)
        In reciprocal lattice vectors of the primitive cell.
    frequencies : array, shape (n_bands,)
        Without the non-analytical correction at Γ, where it depends on the direction.
    groups : tuple of tuple of int
        Bands that the space group (with time reversal) makes degenerate.
    irreps : tuple of str
        Irreducible representation of each group, Mulliken symbols; at Γ only, else empty.
    """

    label: str
    q: Array
    frequencies: Array
    groups: tuple[tuple[int, ...], ...]
    irreps: tuple[str, ...]


@dataclass(frozen=True)
class Splitting:
    """Frequencies at Γ in the limit of q → 0 along a direction, with the macroscopic field.

    Attributes
    ----------
    towards : str
        The special point that the direction leads to.
    frequencies : array, shape (n_bands,)
    largest : float
        Largest rise of a frequency over that without the field, THz.
    """

    towards: str
    frequencies: Array
    largest: float


@dataclass(frozen=True)
class DensityOfStates:
    """Density of states of one primitive cell, which integrates to three per atom.

    Attributes
    ----------
    frequency : array, shape (n,)
    total : array, shape (n,)
        1/THz.
    projected : dict of str to array, shape (n,)
        Part of each element; empty for a crystal of one element.
    smearing : float or None
        Width in THz of the Gaussians that it is a sum of; None for linear tetrahedra, which are
        exact on a fine mesh. phonopy's tetrahedra find no state in some very skewed cells.
    """

    frequency: Array
    total: Array
    projected: dict[str, Array]
    smearing: float | None = None

    @property
    def n_modes(self) -> float:
        """Its integral."""
        return float(np.trapezoid(self.total, self.frequency))


@dataclass(frozen=True)
class ThermalProperties:
    """Harmonic thermodynamics at constant volume, each per atom.

    Attributes
    ----------
    temperature : array, shape (n,)
        K.
    free_energy : array, shape (n,)
        Helmholtz energy of the vibrations with their zero-point energy, eV/atom.
    entropy, heat_capacity : array, shape (n,)
        J/(K mol) of atoms.
    zero_point_energy : float
        eV/atom.
    left_out : float
        Part of the modes that is imaginary and therefore left out.
    """

    temperature: Array
    free_energy: Array
    entropy: Array
    heat_capacity: Array
    zero_point_energy: float
    left_out: float


@dataclass(frozen=True)
class Spectrum:
    """All of the above for one set of force constants.

    Attributes
    ----------
    segments, points, splittings : tuple
        Along the path of seekpath [Hinuma et al., Comput. Mater. Sci. 128, 140 (2017)].
    dos : DensityOfStates
    thermal : ThermalProperties
    lowest : float
        Lowest frequency on the path and the mesh, THz.
    lowest_q : array, shape (3,)
        Where it is.
    """

    segments: tuple[Segment, ...]
    points: tuple[Point, ...]
    splittings: tuple[Splitting, ...]
    dos: DensityOfStates
    thermal: ThermalProperties
    lowest: float
    lowest_q: Array

    @property
    def stable(self) -> bool:
        """Whether no mode is imaginary beyond the noise of the interpolation."""
        return self.lowest >= -IMAGINARY

    @property
    def lowest_place(self) -> str:
        """The q-point of the lowest frequency, with the label if it is a special one."""
        for point in self.points:
            difference = point.q - self.lowest_q
            if np.abs(difference - np.rint(difference)).max() < 1e-4:
                return point.label
        return "q = (" + ", ".join(f"{x:.3f}" for x in self.lowest_q) + ")"


def spectrum(phonon: Phonopy, config: PhononConfig) -> Spectrum:
    """Bands, special points, density of states and thermal properties."""
    coordinates, path = high_symmetry_path(phonon, config.symprec)
    segments = band_structure(phonon, coordinates, path, config.q_spacing)
    names = dict.fromkeys(name for ends in path for name in ends)
    points = tuple(modes_at(phonon, label(name), coordinates[name]) for name in names)
    dos, thermal, (mesh_q, mesh_lowest) = on_mesh(phonon, config)
    candidates = [(mesh_lowest, mesh_q)]
    for segment in segments:
        k = int(segment.frequencies[:, 0].argmin())
        candidates.append((float(segment.frequencies[k, 0]), segment.qpoints[k]))
    lowest, q = min(candidates, key=lambda c: c[0])
    return Spectrum(
        segments=segments,
        points=points,
        splittings=lo_to_splittings(phonon, coordinates, path),
        dos=dos,
        thermal=thermal,
        lowest=lowest,
        lowest_q=np.asarray(q),
    )


def high_symmetry_path(
    phonon: Phonopy, symprec: float
) -> tuple[dict[str, Array], list[tuple[str, str]]]:
    """Special points in reciprocal vectors of this very primitive cell, and the path of seekpath.

    seekpath's own points are those of its standardized cell, which may be turned.
    """
    import seekpath
    from seekpath.hpkot import EdgeCaseWarning

    with warnings.catch_warnings():
        # of two paths that differ by the rounding of the cell, either will do
        warnings.simplefilter("ignore", EdgeCaseWarning)
        found = seekpath.get_path_orig_cell(phonon.primitive.totuple(), symprec=symprec)
    coordinates = {name: np.array(q) for name, q in found["point_coords"].items()}
    return coordinates, list(found["path"])


def label(name: str) -> str:
    """A name of seekpath as it is written: Γ for GAMMA."""
    for latin, greek in (("GAMMA", GAMMA), ("SIGMA", "Σ"), ("DELTA", "Δ"), ("LAMBDA", "Λ")):
        name = name.replace(latin, greek)
    return name


def band_structure(
    phonon: Phonopy, coordinates: dict[str, Array], path: list[tuple[str, str]], spacing: float
) -> tuple[Segment, ...]:
    """Frequencies along each part of the path, at points at most `spacing` (1/Å) apart."""
    reciprocal = 2 * np.pi * np.linalg.inv(phonon.primitive.cell).T  # rows
    lines = []
    for a, b in path:
        length = np.linalg.norm((coordinates[b] - coordinates[a]) @ reciprocal)
        n = max(2, int(np.ceil(length / spacing)) + 1)
        lines.append(np.linspace(coordinates[a], coordinates[b], n))
    bands = phonon.run_band_structure(lines)
    segments, traveled = [], 0.0
    for (a, b), q, frequencies in zip(path, lines, bands.frequencies, strict=True):
        steps = np.linalg.norm(np.diff(q, axis=0) @ reciprocal, axis=1)
        distance = traveled + np.concatenate([[0.0], np.cumsum(steps)])
        traveled = float(distance[-1])
        segments.append(Segment(label(a), label(b), q, distance, np.array(frequencies)))
    return tuple(segments)


def modes_at(phonon: Phonopy, name: str, q: Array) -> Point:
    """Frequencies at a special point with their degeneracies, and symbols at Γ."""
    # the modes of run_irreps are averaged over each group, these are not
    frequencies = phonon.run_qpoints(np.array([q])).frequencies[0]
    found = phonon.run_irreps(q, symmetry_adapted=True)
    irreps: tuple[str, ...] = ()
    if name == GAMMA:
        irreps = mulliken_symbols(phonon, found.characters, found.conventional_rotations)
    return Point(
        label=name,
        q=np.array(q),
        frequencies=np.array(frequencies),
        groups=tuple(tuple(int(i) for i in group) for group in found.band_indices),
        irreps=irreps,
    )


def mulliken_symbols(
    phonon: Phonopy, characters: NDArray[np.complex128], rotations: NDArray[np.int64]
) -> tuple[str, ...]:
    """Symbols of the groups of modes at Γ; "?" for one that the table does not name."""
    from phonopy.phonon.irreps import IrRepLabels

    point_group = phonon.primitive_symmetry.pointgroup_symbol
    try:
        found = IrRepLabels(characters, rotations, point_group, False).irrep_labels
    except RuntimeError:  # phonopy has no character table of this point group
        found = None
    return tuple(x or "?" for x in found or [None] * len(characters))


def lo_to_splittings(
    phonon: Phonopy, coordinates: dict[str, Array], path: list[tuple[str, str]]
) -> tuple[Splitting, ...]:
    """Γ with the macroscopic field along each direction in which the path leaves it."""
    if phonon.nac_params is None:
        return ()
    ends = [b if a == "GAMMA" else a for a, b in path if "GAMMA" in (a, b)]
    at_gamma = [[0.0, 0.0, 0.0]]
    bare = phonon.run_qpoints(at_gamma).frequencies[0]
    result = []
    for name in dict.fromkeys(ends):
        found = phonon.run_qpoints(at_gamma, nac_q_direction=coordinates[name]).frequencies[0]
        result.append(Splitting(label(name), np.array(found), float((found - bare).max())))
    return tuple(result)


def density_of_states(
    phonon: Phonopy, elements: Sequence[str], smearing: float | None = None
) -> DensityOfStates:
    """On the mesh that was run: in total, and for each of `elements`."""
    how: dict[str, Any] = {"sigma": smearing, "use_tetrahedron_method": smearing is None}
    total = phonon.run_total_dos(**how)
    projected = {}
    if elements:
        parts: Any = phonon.run_projected_dos(**how).projected_dos
        symbols = np.array(phonon.primitive.symbols)
        projected = {e: np.array(parts[symbols == e].sum(axis=0)) for e in elements}
    return DensityOfStates(
        np.array(total.frequency_points), np.array(total.dos), projected, smearing
    )


def on_mesh(
    phonon: Phonopy, config: PhononConfig
) -> tuple[DensityOfStates, ThermalProperties, tuple[Array, float]]:
    """Density of states and thermal properties, and the q-point of the lowest frequency."""
    from phonopy.phonon.mesh import MeshGRGridFallbackWarning

    elements = list(dict.fromkeys(phonon.primitive.symbols))
    several = len(elements) > 1
    # projections need eigenvectors at all points, not only at inequivalent ones
    with warnings.catch_warnings():
        # phonopy says when it builds a mesh for the symmetry of the conventional cell: as it should
        warnings.simplefilter("ignore", MeshGRGridFallbackWarning)
        mesh = phonon.run_mesh(config.mesh, with_eigenvectors=several, is_mesh_symmetry=not several)
    dos = density_of_states(phonon, elements if several else [])
    if abs(dos.n_modes / (3 * len(phonon.primitive)) - 1.0) > LOST_STATES:
        width = float(np.ptp(mesh.frequencies)) / 100
        dos = density_of_states(phonon, elements if several else [], smearing=width)
    temperatures = np.arange(0.0, config.t_max + 0.5 * config.t_step, config.t_step)
    thermal: Any = phonon.run_thermal_properties(
        temperatures=temperatures, exclude_gamma_acoustic=True
    )
    n = len(phonon.primitive)
    modes = int(thermal.number_of_modes)
    translations = 3 if mesh.gamma_index is not None else 0
    q, band = np.unravel_index(mesh.frequencies.argmin(), mesh.frequencies.shape)
    return (
        dos,
        ThermalProperties(
            temperature=np.array(thermal.temperatures),
            free_energy=np.array(thermal.free_energy) / EV_TO_KJ_PER_MOL / n,
            entropy=np.array(thermal.entropy) / n,
            heat_capacity=np.array(thermal.heat_capacity) / n,
            zero_point_energy=float(thermal.zero_point_energy) / EV_TO_KJ_PER_MOL / n,
            left_out=(modes - translations - int(thermal.number_of_integrated_modes)) / modes,
        ),
        (np.array(mesh.qpoints[q]), float(mesh.frequencies[q, band])),
    )
