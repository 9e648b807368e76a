"""Labeled structures from extxyz files, and a census of their labels.

Energies are in eV, forces in eV/Å, stress in eV/Å³ (tension positive). A virial W in eV is turned
into a stress by σ = -W / V.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import get_compression, open_with_compression
from numpy.typing import NDArray

from pet_calc.errors import DatasetError
from pet_calc.io.data.crystals import TABLES, structures_of_table
from pet_calc.io.structures.charge_and_spin import INFO_KEYS

#: Names under which each label is looked for, in this order.
LABEL_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "energy": ("energy", "REF_energy", "dft_energy", "DFT_energy", "ref_energy"),
    "energy_per_atom": (),  # only if named: what it counts from differs from table to table
    "forces": ("forces", "force", "REF_forces", "dft_forces", "DFT_forces", "ref_forces"),
    "stress": ("stress", "REF_stress", "dft_stress", "DFT_stress", "ref_stress"),
    "virial": ("virial", "virials", "REF_virial", "dft_virial", "DFT_virial"),
    "energy_floor": ("energy_floor",),
    "least_rise": ("least_rise",),
}
#: Direction that `least_rise` belongs to: an array of the atoms and a strain of the cell.
RISE_KEYS: Final = ("rise_displacement", "rise_strain")

# labels that are other forms of one
_FORM_OF: Final = {"virial": "stress", "energy_per_atom": "energy"}


@dataclass(frozen=True, eq=False)
class LeastRise:
    """A lower bound on how fast the energy rises in one direction.

    Attributes
    ----------
    displacement : array, shape (n_atoms, 3)
        Of the atoms in Å, beside what the strain moves.
    strain : array, shape (6,)
        Symmetric, Voigt order without factors of two.
    least : float
        Bound on the derivative of the energy along both, eV.
    """

    displacement: NDArray[np.float64]
    strain: NDArray[np.float64]
    least: float


@dataclass(frozen=True, eq=False)
class LabeledFrame:
    """A structure and the first-principles labels that its file gave.

    Attributes
    ----------
    atoms : ase.Atoms
        Without calculator and constraints; ``info`` has charge and spin only, where given.
    energy : float or None
        In eV.
    forces : array or None, shape (n_atoms, 3)
        In eV/Å, as computed: constraints in the file do not zero them.
    stress : array or None, shape (6,)
        In eV/Å³, Voigt order xx, yy, zz, yz, xz, xy, tension positive.
    constrained : array or None, shape (n_atoms,), bool
        Atoms that constraints in the file acted on; None if there were none.
    level : str or None
        Level of theory of the labels, where a training run has several.
    rise : LeastRise or None
        A lower bound on how fast the energy rises.
    floor : float or None
        A lower bound of the energy, in eV.
    """

    atoms: Atoms
    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    constrained: NDArray[np.bool_] | None = None
    level: str | None = None
    rise: LeastRise | None = None
    floor: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there are bounds: such a structure is made up, no sample of what occurs."""
        return self.rise is not None or self.floor is not None


@dataclass(frozen=True)
class LabelCensus:
    """How many labels of each kind were found, and under which key.

    Attributes
    ----------
    n_frames, n_atoms : int
        Frames and atoms read.
    found : dict
        ``{"energy": {"REF_energy": 120}, ...}``: frames per label and key.
    elements : dict
        Atoms per chemical symbol.
    """

    n_frames: int
    n_atoms: int
    found: dict[str, dict[str, int]]
    elements: dict[str, int]

    def count(self, label: str) -> int:
        """Frames that carry `label` under any key."""
        return sum(self.found.get(label, {}).values())

    def __add__(self, other: LabelCensus) -> LabelCensus:
        """The census of both sets of frames."""
        labels = sorted({*self.found, *other.found})
        return LabelCensus(
            n_frames=self.n_frames + other.n_frames,
            n_atoms=self.n_atoms + other.n_atoms,
            found={
                k: dict(Counter(self.found.get(k, {})) + Counter(other.found.get(k, {})))
                for k in labels
            },
            elements=dict(sorted((Counter(self.elements) + Counter(other.elements)).items())),
        )

    def rows(self) -> list[tuple[str, str, int]]:
        """(label, key, frames) for a table; a label that no frame has is listed with 0."""
        rows: list[tuple[str, str, int]] = []
        bounds = [label for label in ("energy_floor", "least_rise") if self.count(label)]
        for label in ("energy", "forces", "stress", *bounds):
            found = self.found.get(label, {})
            rows.extend((label, key, n) for key, n in sorted(found.items()))
            if not found:
                rows.append((label, "-", 0))
        return rows


def read_frames(
    paths: Sequence[Path | str],
    keys: dict[str, str] | None = None,
    choose: Callable[[list[Atoms]], list[Atoms]] | None = None,
) -> tuple[list[LabeledFrame], LabelCensus]:
    """Read labeled frames of one or several files and count what they hold.

    Parameters
    ----------
    paths : sequence of path
        Files that ``ase.io.read`` understands, extxyz first of all, also compressed (.xz, .gz);
        and tables of crystals (.npz, .npz.xz; `pet_calc.io.data.crystals`).
    keys : dict, optional
        Label (`LABEL_KEYS`) to the one key to use. A label that is not named is looked for under
        the usual names.
    choose : callable, optional
        The frames of a file that are wanted, of all in it.

    Raises
    ------
    DatasetError
        For a missing or unreadable file, one without frames, labels of a wrong shape, and labels
        that are not finite.
    """
    wanted = {label: (key,) for label, key in (keys or {}).items()}
    unknown = sorted(set(wanted) - set(LABEL_KEYS))
    if unknown:
        raise DatasetError(f"labels are {sorted(LABEL_KEYS)}, but the keys name {unknown}")
    names = LABEL_KEYS | wanted
    frames: list[LabeledFrame] = []
    found: dict[str, Counter[str]] = {label: Counter() for label in LABEL_KEYS}
    elements: Counter[str] = Counter()
    for path in paths:
        in_file = read_file(Path(path))
        for k, atoms in enumerate(choose(in_file) if choose else in_file):
            labels: dict[str, Any] = {}
            for label in LABEL_KEYS:
                key, value = find_label(atoms, names[label])
                if value is None:
                    continue
                target = _FORM_OF.get(label, label)
                if target in labels:
                    continue  # a stress beside a virial is the same label twice
                where = f"frame {k} of {path}, key {key!r}"
                labels[target] = checked(label, value, atoms, where)
                found[target][key] += 1
            elements.update(atoms.get_chemical_symbols())
            bare = Atoms(
                numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc,
                info={key: atoms.info[key] for key in INFO_KEYS if key in atoms.info},
            )  # fmt: skip
            frames.append(
                LabeledFrame(
                    bare,
                    labels.get("energy"),
                    labels.get("forces"),
                    labels.get("stress"),
                    constrained_atoms(atoms),
                    rise=labels.get("least_rise"),
                    floor=labels.get("energy_floor"),
                )
            )
    census = LabelCensus(
        n_frames=len(frames),
        n_atoms=sum(len(f.atoms) for f in frames),
        found={label: dict(c) for label, c in found.items() if c},
        elements=dict(sorted(elements.items())),
    )
    return frames, census


def constrained_atoms(atoms: Atoms) -> NDArray[np.bool_] | None:
    """Atoms that constraints act on; all of them for a constraint that does not say which."""
    if not atoms.constraints:
        return None
    found = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        indices = getattr(constraint, "get_indices", None)
        found[slice(None) if indices is None else np.asarray(indices(), dtype=int)] = True
    return found


def read_file(path: Path) -> list[Atoms]:
    """All frames of a file; `DatasetError` if it is missing, unreadable or empty."""
    if not path.is_file():
        raise DatasetError(f"no data file at {path}; check the path in the [data] section")
    root, compression = get_compression(str(path))
    frames: Atoms | list[Atoms]
    try:
        if path.name.endswith(TABLES):
            frames = list(structures_of_table(path))
        elif compression and root.endswith(("xyz", ".XYZ")):
            # in memory: ASE seeks every frame, which would decompress the file from its beginning
            with open_with_compression(str(path), "rt") as file:
                frames = ase.io.read(io.StringIO(file.read()), ":", format="extxyz")
        else:
            frames = ase.io.read(path, ":")
    except DatasetError:
        raise
    except Exception as error:  # ASE's readers raise many types for a malformed file
        raise DatasetError(f"{path} could not be read as structures: {error!r}") from error
    if not frames:
        raise DatasetError(f"{path} holds no structure")
    assert isinstance(frames, list)
    return frames


def find_label(atoms: Atoms, keys: Sequence[str]) -> tuple[str, Any]:
    """The first of `keys` that the frame carries, with its value; ("", None) if none.

    ASE moves the standard names into a single-point calculator. Its stored results are read
    directly: `Atoms.get_forces` would zero the forces of constrained atoms.
    """
    results = {} if atoms.calc is None else atoms.calc.results
    for key in keys:
        for source in (results, atoms.info, atoms.arrays):
            if key in source:
                return key, source[key]
    return "", None


def checked(
    label: str, value: Any, atoms: Atoms, where: str
) -> float | NDArray[np.float64] | LeastRise:
    """A label in its own shape and finite; a virial comes back as the stress."""
    array = np.asarray(value, dtype=np.float64)
    if not np.isfinite(array).all():
        raise DatasetError(f"{label} must be finite, but {where} holds NaN or infinity")
    if label in ("energy", "energy_per_atom", "energy_floor", "least_rise"):
        if array.size != 1:
            raise DatasetError(f"{label} must be one number, but {where} has shape {array.shape}")
        number = float(array.reshape(())) * (len(atoms) if label == "energy_per_atom" else 1)
        return least_rise(number, atoms, where) if label == "least_rise" else number
    if label == "forces":
        if array.shape != (len(atoms), 3):
            raise DatasetError(
                f"forces must have shape {(len(atoms), 3)}, but {where} has {array.shape}"
            )
        return array
    if array.size == 9:
        m = array.reshape(3, 3)
        m = 0.5 * (m + m.T)
        array = np.array([m[0, 0], m[1, 1], m[2, 2], m[1, 2], m[0, 2], m[0, 1]])
    if array.shape != (6,):
        raise DatasetError(f"{label} must have 6 or 9 components, but {where} has {array.shape}")
    if label == "virial":
        if not atoms.pbc.all() or atoms.cell.volume == 0:
            raise DatasetError(f"a virial needs a cell in three dimensions, but {where} has none")
        return -array / float(atoms.cell.volume)
    return array


def least_rise(least: float, atoms: Atoms, where: str) -> LeastRise:
    """The bound with the direction that it belongs to (`RISE_KEYS`)."""
    if not atoms.pbc.all():
        raise DatasetError(f"least_rise needs a cell in three dimensions, but {where} has none")
    direction = []
    for key, shape in zip(RISE_KEYS, ((len(atoms), 3), (6,)), strict=True):
        part = np.asarray(find_label(atoms, (key,))[1], dtype=np.float64)
        if part.shape != shape or not np.isfinite(part).all():
            raise DatasetError(
                f"least_rise needs {key} of shape {shape} and finite, but {where} has {part.shape}"
            )
        direction.append(part)
    displacement, strain = direction
    return LeastRise(displacement, strain, least)
