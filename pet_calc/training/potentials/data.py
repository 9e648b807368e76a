"""Labeled frames as tensors: edges found once, batches, O(3) augmentation, reference energies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray
from torch import Tensor

from pet_calc.errors import DatasetError
from pet_calc.geometry import Edges, System, edge_vectors
from pet_calc.geometry.cell import matrix_from_voigt, voigt_from_matrix
from pet_calc.geometry.graph import BATCH_EDGES
from pet_calc.io.data.datasets import LabeledFrame, LeastRise
from pet_calc.io.structures.atoms import system_from_atoms
from pet_calc.io.structures.separation import require_separation
from pet_calc.models import EnergyModel, evaluate
from pet_calc.neighbors import neighbor_list
from pet_calc.training.core.parallel import ALONE, Team


@dataclass(frozen=True, eq=False)
class Rise:
    """Lower bounds on derivatives of energies, see `LeastRise`.

    Attributes
    ----------
    displacement : Tensor, shape (n_atoms, 3), Å
    strain : Tensor, shape (n_systems, 6)
    least : Tensor, shape (n_systems,), eV
        NaN for systems without a bound.
    """

    displacement: Tensor
    strain: Tensor
    least: Tensor

    @classmethod
    def of(cls, known: LeastRise) -> Rise:
        """That of a single frame."""
        return cls(
            torch.from_numpy(known.displacement.copy()),
            torch.from_numpy(known.strain.copy())[None],
            torch.tensor([known.least], dtype=torch.float64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Batch]) -> Rise | None:
        """Those of several batches; None if none has any."""
        if all(p.rise is None for p in parts):
            return None
        given = [p.rise or cls.none(p) for p in parts]
        return cls(
            torch.cat([r.displacement for r in given]),
            torch.cat([r.strain for r in given]),
            torch.cat([r.least for r in given]),
        )

    @classmethod
    def none(cls, batch: Batch) -> Rise:
        """No bound for any system of a batch."""
        return cls(
            torch.zeros_like(batch.forces),
            torch.zeros_like(batch.stress),
            torch.full_like(batch.energy, torch.nan),
        )

    def transformed(self, matrix: Tensor) -> Rise:
        """Under x -> x @ matrix with an orthogonal matrix (3, 3)."""
        strain = matrix.T @ matrix_from_voigt(self.strain) @ matrix
        return replace(
            self, displacement=self.displacement @ matrix, strain=voigt_from_matrix(strain)
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames ready for a model, with their labels; NaN where a label is absent.

    Attributes
    ----------
    system : System
    edges : Edges
        At the model's cutoff.
    energy : Tensor, shape (n_systems,), eV
    forces : Tensor, shape (n_atoms, 3), eV/Å
    stress : Tensor, shape (n_systems, 6), eV/Å³
    n_atoms : Tensor, shape (n_systems,)
        Atoms in each system.
    floor : Tensor, shape (n_systems,), eV
        Lower bounds of the energy.
    rise : Rise or None
        None where no energy is known to rise.
    """

    system: System
    edges: Edges
    energy: Tensor
    forces: Tensor
    stress: Tensor
    n_atoms: Tensor
    floor: Tensor
    rise: Rise | None = None

    @property
    def level(self) -> int | None:
        """Energy head of a single frame, by its index; None for the one in use."""
        head = self.system.energy_head
        return None if head is None else int(head)

    @property
    def has_derivatives(self) -> bool:
        """Whether any force or stress is known, or a bound on a derivative."""
        return self.rise is not None or any(
            bool(torch.isfinite(x).any()) for x in (self.forces, self.stress)
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Batch]) -> Batch:
        """One batch from several."""
        return cls(
            system=System.concatenate([p.system for p in parts]),
            edges=Edges.concatenate([p.edges for p in parts], [p.system.n_atoms for p in parts]),
            energy=torch.cat([p.energy for p in parts]),
            forces=torch.cat([p.forces for p in parts]),
            stress=torch.cat([p.stress for p in parts]),
            n_atoms=torch.cat([p.n_atoms for p in parts]),
            floor=torch.cat([p.floor for p in parts]),
            rise=Rise.concatenate(parts),
        )

    def transformed(self, matrix: Tensor) -> Batch:
        """The batch under x -> x @ matrix with an orthogonal matrix (3, 3)."""
        stress = matrix.T @ matrix_from_voigt(self.stress) @ matrix
        return replace(
            self,
            system=replace(
                self.system,
                positions=self.system.positions @ matrix,
                cell=self.system.cell @ matrix,
            ),
            forces=self.forces @ matrix,
            stress=voigt_from_matrix(stress),
            rise=None if self.rise is None else self.rise.transformed(matrix),
        )


def prepare(frame: LabeledFrame, cutoff: float, *, state: bool = False) -> Batch:
    """A frame as a batch of one, with its edges; these stay valid under rotation.

    Parameters
    ----------
    frame : LabeledFrame
    cutoff : float
        Of the model, in Å.
    state : bool
        With charge and spin, for models made with `system_conditioning`.

    Raises
    ------
    InvalidStructureError
        For a structure without atoms or without meaning, for overlapping atoms, and with
        `state` for a charge or spin that means nothing.
    """
    system = system_from_atoms(frame.atoms, state=state)
    edges = neighbor_list(system, cutoff)
    require_separation(system, edges)
    n = system.n_atoms
    nan = float("nan")
    return Batch(
        system=system,
        edges=edges,
        energy=torch.tensor([nan if frame.energy is None else frame.energy], dtype=torch.float64),
        forces=torch.full((n, 3), nan, dtype=torch.float64)
        if frame.forces is None
        else torch.from_numpy(frame.forces.copy()),
        stress=torch.full((1, 6), nan, dtype=torch.float64)
        if frame.stress is None
        else torch.from_numpy(frame.stress.copy())[None],
        n_atoms=torch.tensor([n]),
        floor=torch.tensor([nan if frame.floor is None else frame.floor], dtype=torch.float64),
        rise=None if frame.rise is None else Rise.of(frame.rise),
    )


def random_orthogonal(generator: np.random.Generator) -> Tensor:
    """Matrix (3, 3) drawn uniformly from O(3): rotations and rotary reflections alike.

    QR of a Gaussian matrix with the signs of R's diagonal fixed is Haar-distributed
    [Mezzadri, Not. Am. Math. Soc. 54, 592 (2007)].
    """
    q, r = np.linalg.qr(generator.standard_normal((3, 3)))
    return torch.from_numpy(q * np.sign(np.diag(r)))


def turned(frames: Sequence[Batch], step: int, seed: int) -> list[Batch]:
    """The frames of a step, each under its own random element of O(3)."""
    generator = np.random.default_rng((seed, 2, step))
    return [f.transformed(random_orthogonal(generator)) for f in frames]


def fit_reference_energies(frames: Sequence[LabeledFrame], elements: Sequence[int]) -> Tensor:
    """Energy per atom of each element by least squares of the total energies on composition.

    Returns
    -------
    Tensor, shape (n_elements,), float64, eV
        The solution of least norm where the compositions do not determine it (a data set of one
        stoichiometry).

    Raises
    ------
    DatasetError
        If no frame has an energy, or an element outside `elements` occurs.
    """
    labeled = [f for f in frames if f.energy is not None]
    if not labeled:
        raise DatasetError("reference energies need at least one frame with an energy, got none")
    for frame in labeled:
        outside = sorted(set(frame.atoms.numbers.tolist()) - set(elements))
        if outside:
            raise DatasetError(f"the model covers {list(elements)}, but the data hold {outside}")
    energies = np.array([f.energy for f in labeled], float)
    return fit_composition([f.atoms.numbers for f in labeled], energies, elements)


def energy_shift(model: EnergyModel, frames: Sequence[Batch], team: Team = ALONE) -> Tensor:
    """Energy per atom of each element (n_elements,) in eV that labels have beyond the model.

    By least squares over the frames with an energy; zero if there are none.

    Parameters
    ----------
    model : EnergyModel
    frames : sequence of Batch
        Of one system each.
    team : Team
        Processes that share the work.
    """
    labeled = [f for f in frames if bool(torch.isfinite(f.energy).all())]
    if not labeled:
        return torch.zeros(len(model.atomic_numbers), dtype=torch.float64)
    return fit_composition(
        [f.system.numbers.numpy() for f in labeled],
        energy_errors(model, labeled, team).numpy(),
        model.atomic_numbers,
    )


def energy_errors(model: EnergyModel, frames: Sequence[Batch], team: Team = ALONE) -> Tensor:
    """What the energy labels of frames (n_frames,) have beyond the model, in eV."""
    errors = torch.zeros(len(frames), dtype=torch.float64)
    mine = team.share(range(len(frames)))
    done = 0
    for group in in_batches(frames[k] for k in mine):
        b = Batch.concatenate(group)
        found = evaluate(model, b.system, b.edges, forces=False, stress=False)
        errors[list(mine[done : done + len(group)])] = b.energy - found.energy
        done += len(group)
    return team.total(errors)


def in_batches(frames: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Successive frames in groups of about `BATCH_EDGES` edges, which are computed at once."""
    group: list[Batch] = []
    size = 0
    for f in frames:
        if group and size + f.edges.n_edges > BATCH_EDGES:
            yield group
            group, size = [], 0
        group.append(f)
        size += f.edges.n_edges
    if group:
        yield group


def with_energies_shifted(
    frames: Sequence[Batch], elements: Sequence[int], shift: Tensor
) -> list[Batch]:
    """Frames of one system each, with an energy per atom of each element added to their labels."""
    counts = torch.tensor([[int((f.system.numbers == z).sum()) for z in elements] for f in frames])
    added = counts.double() @ shift
    return [replace(f, energy=f.energy + a) for f, a in zip(frames, added, strict=True)]


def shortest_distances(
    frames: Sequence[Batch], elements: Sequence[int], fallback: float = 0.8,
    reach: float | None = None,
) -> Tensor:  # fmt: skip
    """Shortest distance of each pair of elements in the data, in Å.

    Parameters
    ----------
    frames : sequence of Batch
    elements : sequence of int
    fallback : float
        Share of the sum of covalent radii for a pair that never comes within the cutoff.
    reach : float, optional
        Share of that sum which the result does not exceed.

    Returns
    -------
    Tensor, shape (n_elements, n_elements), float64
    """
    radii = torch.tensor([covalent_radii[z] for z in elements], dtype=torch.float64)
    place = {z: k for k, z in enumerate(elements)}
    shortest = torch.full((len(elements),) * 2, torch.inf, dtype=torch.float64)
    for frame in frames:
        species = torch.tensor([place[z] for z in frame.system.numbers.tolist()])
        i, j = frame.edges.edge_index
        distances = edge_vectors(frame.system, frame.edges).norm(dim=-1)
        pair = species[i] * len(elements) + species[j]
        flat = shortest.view(-1)
        flat.scatter_reduce_(0, pair, distances, "amin")
    bonds = radii[:, None] + radii[None, :]
    shortest = torch.where(torch.isfinite(shortest), shortest, fallback * bonds)
    return shortest if reach is None else shortest.minimum(reach * bonds)


def fit_composition(
    numbers: Sequence[NDArray[np.int64]], energies: NDArray[np.float64], elements: Sequence[int]
) -> Tensor:
    """Least-squares energy per atom of each element (n_elements,), of least norm, in eV.

    Parameters
    ----------
    numbers : sequence of arrays
        Atomic numbers of each structure.
    energies : array, shape (n_structures,)
        In eV.
    elements : sequence of int
    """
    counts = np.array([[np.sum(z == e) for e in elements] for z in numbers], float)
    solution, *_ = np.linalg.lstsq(counts, energies, rcond=1e-8)
    return torch.from_numpy(solution)
