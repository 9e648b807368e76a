"""From a name or a path to a model in memory, its files compared with their recorded SHA-256.

A folder outside of the index is checked as well: its ``config.json`` records the digest of the
weights (see `pet_calc.io.models.folder`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from ase.data import chemical_symbols

from pet_calc.errors import CheckpointError, PotentialNotFoundError, UnsupportedElementError
from pet_calc.io.cache import cache_folder
from pet_calc.io.foreign.detection import ForeignModel, convert_foreign, find_foreign
from pet_calc.io.foreign.hub import fetch
from pet_calc.io.foreign.published import find_published
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.io.models.files import CONFIG, WEIGHTS
from pet_calc.io.models.weights import dtype_from_name, load_model, read_config, read_domain
from pet_calc.models.architectures import Model
from pet_calc.pretrained import index
from pet_calc.pretrained.card import CARD, Card, read_card
from pet_calc.pretrained.index import (
    PotentialEntry,
    find_shipped,
    list_potentials,
    suits,
    unknown_name,
)

_log = logging.getLogger("pet_calc")

#: Most elements that an error message names one by one.
NAMED_ELEMENTS = 12


@dataclass(frozen=True, eq=False)
class LoadedPotential:
    """A model in memory and where it came from.

    Attributes
    ----------
    name : str
        As in `PotentialEntry`.
    model : PET, OriginalPET or Crystalformer
        With frozen parameters.
    elements : tuple of str
        Chemical symbols covered, by atomic number.
    digest : str or None
        SHA-256 of the weights file; None for a model that was made in memory.
    folder : Path or None
        Where it was read from.
    card : Card or None
        None where there is none.
    domain : TrainingDomain or None
        What it was trained on; None where that was not recorded.
    crystals_only, systems, formation_energies
        As in `PotentialEntry`.
    """

    name: str
    model: Model = field(repr=False)
    elements: tuple[str, ...]
    digest: str | None = None
    folder: Path | None = None
    card: Card | None = field(default=None, repr=False)
    domain: TrainingDomain | None = field(default=None, repr=False)
    crystals_only: bool = False
    systems: frozenset[frozenset[str]] = field(default=frozenset(), repr=False)
    formation_energies: bool = False

    def suits(self, elements: Collection[str]) -> bool:
        """Whether structures of exactly these elements are like those of its data."""
        return suits(elements, self.elements, self.systems)


def resolve(name_or_path: str | Path) -> PotentialEntry:
    """The potential under a name or path.

    Parameters
    ----------
    name_or_path : str or Path
        "pet-water-v1" is that version, "pet-water" the newest one. A path names a folder, one of
        the two files in it, or a model in a form of another package
        (`pet_calc.io.foreign.detection`), which is converted into the cache (`cache_folder`) at its
        first use. A string is a name if the index has it; else a path, if there is one; else a
        published name such as "pet-mad-s" (`pet_calc.io.foreign.published`), which is downloaded
        at its first use.

    Raises
    ------
    PotentialNotFoundError
        If there is no such potential, its weights are missing, or it cannot be downloaded.
    IntegrityError
        If a download does not have its recorded SHA-256.
    """
    path = Path(name_or_path).expanduser()
    published = None if path.exists() else find_published(str(name_or_path))
    entry = None
    if isinstance(name_or_path, str):
        try:
            entry = find_shipped(name_or_path)
        except PotentialNotFoundError:
            # without an index a path is still a path; a name gets the error of the missing index
            if not path.exists() and published is None:
                raise
    if entry is None and path.exists():
        entry = entry_from_path(path)
    elif entry is None and published is not None:
        folder = fetch(published, cache_folder())
        entry = replace(entry_from_path(folder), name=published.name, method=published.method)
    elif entry is None and isinstance(name_or_path, str):
        raise unknown_name(name_or_path)
    elif entry is None:
        raise PotentialNotFoundError(f"there is no {path}; check the path of the potential")
    _ = entry.size  # a missing weights file is an error here rather than at the first use
    return entry


def entry_from_path(path: Path) -> PotentialEntry:
    """The potential in a folder; a file in it names it too, and a foreign model its own."""
    foreign = find_foreign(path)
    if foreign is not None:
        return replace(entry_from_path(converted(foreign)), name=str(path))
    folder = (path if path.is_dir() else path.parent).resolve()
    if path.is_file() and path.name not in (CONFIG, WEIGHTS):
        raise PotentialNotFoundError(
            f"a potential is a folder with {CONFIG} and {WEIGHTS}, a published checkpoint (.ckpt), "
            f"a calculation folder or a pair of .json and .safetensors, but {path} is none of them"
        )
    # the folder of a shipped potential is held to the digests of the index
    if any(folder.parent == root.resolve() for root in index.ROOTS):
        for entry in list_potentials():
            if entry.folder.resolve() == folder:
                return entry
    values = read_config(folder)
    numbers = values["config"].get("elements", [])
    try:
        elements = tuple(chemical_symbols[z] for z in numbers)
    except (IndexError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} must list atomic numbers under 'elements', got {numbers}"
        ) from error
    return PotentialEntry(name=str(path if path.is_dir() else folder), folder=folder,
                          elements=elements, architecture=values["architecture"])  # fmt: skip


def converted(foreign: ForeignModel) -> Path:
    """The folder of a foreign model in the cache, made at its first use.

    The folder is named by the model's SHA-256, so that other files under the same path are another
    potential.
    """
    folder = cache_folder() / "imported" / foreign.digest()
    # the configuration is written last: where it is, the rest is
    if not (folder / CONFIG).is_file():
        convert_foreign(foreign, folder)
        _log.info("converted %s into %s", foreign.files[0], folder)
    return folder


def choose_for(systems: Iterable[Iterable[str]], architecture: str = "pet") -> PotentialEntry:
    """The shipped potential of an architecture that suits structures of several chemical systems.

    It covers all elements, and those of each system occur together in its data. Among several, the
    one with the fewest elements, which is the most specialized; then a stable one before an
    experimental one; then the newest version.

    Parameters
    ----------
    systems : iterable of iterables of str
        Chemical symbols of the elements in each structure.
    architecture : str
        "pet" or "crystalformer".

    Raises
    ------
    UnsupportedElementError
        If none suits them; the message lists what each one covers.
    """
    sets = [frozenset(s) for s in systems]
    wanted = frozenset().union(*sets)
    shipped = list_potentials()
    entries = [e for e in shipped if e.architecture == architecture]
    fitting = [e for e in entries if all(map(e.suits, sets))]
    if not fitting:
        covered = "; ".join(f"{e.name}: {in_short(e.elements)}" for e in entries)
        others = [e.name for e in shipped if wanted <= set(e.elements)]
        remedy = (
            f"name {' or '.join(others)}, of another architecture or made for other structures"
            if others
            else "name the folder of one that does, such as one that `pet-calc train` made"
        )
        raise UnsupportedElementError(
            f"no shipped {architecture} potential covers {', '.join(in_order(wanted))} "
            f"({covered or 'none ships'}); {remedy}"
        )
    chosen = min(fitting, key=lambda e: (len(e.elements), e.status != "stable", -e.version, e.name))
    return resolve(chosen.name)


def in_order(symbols: Iterable[str]) -> list[str]:
    """Chemical symbols by atomic number."""
    return sorted(symbols, key=chemical_symbols.index)


def in_short(symbols: Collection[str]) -> str:
    """Chemical symbols for a message; of many, their number."""
    if len(symbols) > NAMED_ELEMENTS:
        return f"{len(symbols)} elements"
    return ", ".join(symbols)


def load(
    name_or_path: str | Path | PotentialEntry, dtype: torch.dtype | str = torch.float32
) -> LoadedPotential:
    """Load a potential after checking its files against their recorded SHA-256.

    Parameters
    ----------
    name_or_path : str, Path or PotentialEntry
        See `resolve`.
    dtype : torch.dtype or str
        Precision of the computation, float32 or float64.

    Raises
    ------
    PotentialNotFoundError
        If there is no such potential.
    IntegrityError
        If a file does not have the recorded digest.
    CheckpointError
        If the files are damaged, or cover other elements than the index says.
    """
    torch_dtype = dtype_from_name(dtype)
    entry = name_or_path if isinstance(name_or_path, PotentialEntry) else resolve(name_or_path)
    model = load_model(entry.folder, torch_dtype, expected_sha256=entry.sha256)
    elements = tuple(chemical_symbols[z] for z in model.atomic_numbers)
    if elements != entry.elements:
        raise CheckpointError(
            f"{entry.folder} covers {', '.join(elements)}, but the index says "
            f"{', '.join(entry.elements)}"
        )
    return LoadedPotential(
        name=entry.name,
        model=model,
        elements=elements,
        digest=entry.sha256.get(WEIGHTS) or read_config(entry.folder)["weights_sha256"],
        folder=entry.folder,
        card=read_card(entry.folder) if (entry.folder / CARD).is_file() else None,
        domain=read_domain(entry.folder),
        crystals_only=entry.crystals_only,
        systems=entry.systems,
        formation_energies=entry.formation_energies,
    )
