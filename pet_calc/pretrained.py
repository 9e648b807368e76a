"""Potentials by name or path: name -> card -> checked SHA-256 -> model.

``index.toml`` lists those that ship with pet_calc. It is looked for in the installed package first
(``pet_calc/_potentials``) and in a checkout second (``potentials`` beside the package). The names
of the public PET family stand for files of a hub, which are downloaded once
(`pet_calc.io.foreign.hub`). Nothing is unpickled.

A potential of the index must have the digests that the index records, of ``config.json`` and of
``weights.safetensors``. A potential in any other folder is checked as well: its ``config.json``
records the digest of the weights (see `pet_calc.io.models.weights`).

The card is the ``README.md`` in a potential's folder. It begins with front matter between two
lines ``---``, one ``key: value`` per line, where the value is JSON (thus YAML as well) or plain
text.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from ase.data import chemical_symbols

from pet_calc.errors import (
    CheckpointError,
    IntegrityError,
    PotentialNotFoundError,
    UnsupportedElementError,
)
from pet_calc.io.foreign.detection import ForeignModel, convert_foreign, find_foreign
from pet_calc.io.foreign.hub import fetch
from pet_calc.io.foreign.published import find_published
from pet_calc.io.models.domain import TrainingDomain
from pet_calc.io.models.expected import EXPECTED, Deviation, compare_expected
from pet_calc.io.models.weights import (
    CONFIG,
    WEIGHTS,
    dtype_from_name,
    load_model,
    read_config,
    read_domain,
    sha256,
)
from pet_calc.models.architectures import Model

_log = logging.getLogger("pet_calc")

INDEX: Final = "index.toml"
CARD: Final = "README.md"

# in the wheel, then in a checkout
ROOTS: tuple[Path, ...] = (
    Path(__file__).resolve().parent / "_potentials",
    Path(__file__).resolve().parents[1] / "potentials",
)


@dataclass(frozen=True)
class PotentialEntry:
    """A potential on disk, not loaded yet.

    Attributes
    ----------
    name : str
        Such as "pet-water-v1"; for a folder outside of the index, its path.
    folder : Path
        Where its files are.
    elements : tuple of str
        Chemical symbols covered, by atomic number.
    sha256 : dict
        File name to recorded digest; empty for a folder outside of the index.
    summary, method : str
        What it is for; the first-principles method of its data.
    status : str
        "experimental" or "stable".
    architecture : str
        "pet", "pet-original" or "crystalformer".
    kind : str
        "energy", or "property" for a model of properties of crystals, which is no potential.
    targets : tuple of str
        The properties of such a model.
    crystals_only : bool
        Its data are periodic in three dimensions throughout, and it may be far off elsewhere.
    systems : frozenset of frozenset of str
        Sets of elements that occur together in its data; empty for all subsets of `elements`. A
        potential for magnesium oxide covers Mg, but knows nothing of the metal.
    formation_energies : bool
        Its energies count from the elements in their reference states, whose energy is thus zero.
    """

    name: str
    folder: Path
    elements: tuple[str, ...]
    sha256: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    method: str = ""
    status: str = "stable"
    architecture: str = "pet"
    kind: str = "energy"
    targets: tuple[str, ...] = ()
    crystals_only: bool = False
    systems: frozenset[frozenset[str]] = frozenset()
    formation_energies: bool = False

    def suits(self, elements: Collection[str]) -> bool:
        """Whether structures of exactly these elements are like those of its data."""
        return suits(self, elements)

    @property
    def family(self) -> str:
        """The name without its version: "pet-water"."""
        return split_version(self.name)[0]

    @property
    def version(self) -> int:
        """The number behind "-v"; 0 without one."""
        return split_version(self.name)[1]

    @property
    def size(self) -> int:
        """Size of the weights in bytes.

        Raises
        ------
        PotentialNotFoundError
            If there is no weights file.
        """
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise PotentialNotFoundError(
                f"the potential {self.name} has no weights file {path}; install the package "
                f"again, or restore the file"
            )
        return path.stat().st_size


@dataclass(frozen=True)
class Card:
    """A potential's ``README.md``.

    Attributes
    ----------
    front : dict
        The machine-read front matter.
    text : str
        What follows it.
    """

    front: dict[str, Any]
    text: str


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
        return suits(self, elements)


def suits(potential: PotentialEntry | LoadedPotential, elements: Collection[str]) -> bool:
    """Whether a potential covers all `elements`, and they occur together in its data."""
    wanted = frozenset(elements)
    if not wanted <= set(potential.elements):
        return False
    return not potential.systems or wanted in potential.systems


def list_potentials(kind: str = "energy") -> list[PotentialEntry]:
    """The shipped potentials, or models of another kind, in the order of the index.

    Parameters
    ----------
    kind : {"energy", "property"}

    Raises
    ------
    PotentialNotFoundError
        If there is no index, neither in the package nor in a checkout.
    CheckpointError
        If the index is damaged.
    """
    for root in ROOTS:
        path = root / INDEX
        if path.is_file():
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CheckpointError(f"{path} is not valid TOML: {error}") from error
            # [[potential]] and [[property]], so that neither is ever taken for the other
            values = table.get("potential" if kind == "energy" else kind, [])
            return [entry_from_table(root, v | {"kind": kind}) for v in values]
    places = " nor ".join(str(root / INDEX) for root in ROOTS)
    raise PotentialNotFoundError(
        f"the list of shipped potentials is missing: there is neither {places}; install the "
        f"package again, or name a potential's folder"
    )


def entry_from_table(root: Path, values: dict[str, Any]) -> PotentialEntry:
    """An entry of the index; `CheckpointError` for one that lacks a key."""
    try:
        name, elements, digests = values["name"], values["elements"], values["sha256"]
        missing = sorted({CONFIG, WEIGHTS} - set(digests))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"each entry of {root / INDEX} needs name, elements and a table sha256, got {values}"
        ) from error
    if missing:
        raise CheckpointError(f"{root / INDEX} records no SHA-256 of {missing} for {name}")
    return PotentialEntry(
        name=name,
        folder=root / name,
        elements=tuple(sorted(elements, key=chemical_symbols.index)),
        sha256=dict(digests),
        summary=values.get("summary", ""),
        method=values.get("method", ""),
        status=values.get("status", "stable"),
        architecture=values.get("architecture", "pet"),
        kind=values.get("kind", "energy"),
        targets=tuple(values.get("targets", ())),
        crystals_only=bool(values.get("crystals_only", False)),
        systems=frozenset(frozenset(s.split("-")) for s in values.get("systems", ())),
        formation_energies=bool(values.get("formation_energies", False)),
    )


def split_version(name: str) -> tuple[str, int]:
    """Family and version of a name: "pet-water-v1" is ("pet-water", 1); 0 without a version."""
    match = re.fullmatch(r"(.+)-v(\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


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
    entry = find_shipped(name_or_path) if isinstance(name_or_path, str) else None
    if entry is None:
        path = Path(name_or_path).expanduser()
        published = find_published(str(name_or_path)) if not path.exists() else None
        if published is None:
            entry = entry_from_path(path)
        else:
            folder = fetch(published, cache_folder())
            entry = replace(entry_from_path(folder), name=published.name, method=published.method)
    _ = entry.size  # a missing weights file is an error here rather than at the first use
    return entry


def find_property_model(name: str) -> PotentialEntry | None:
    """The shipped property model of that name, the newest version if none is named."""
    entries = list_potentials("property")
    named = [e for e in entries if e.name == name] or [e for e in entries if e.family == name]
    return max(named, key=lambda e: e.version) if named else None


def find_shipped(name: str) -> PotentialEntry | None:
    """The potential of that name in the index, the newest version if none is named."""
    try:
        entries = list_potentials()
    except PotentialNotFoundError:
        # without an index a path is still a path; a name gets the error of the missing index
        if Path(name).expanduser().exists() or find_published(name) is not None:
            return None
        raise
    exact = [e for e in entries if e.name == name]
    family = [e for e in entries if e.family == name]
    if exact:
        return exact[0]
    if family:
        return max(family, key=lambda e: e.version)
    if not Path(name).expanduser().exists() and find_published(name) is None:
        known = ", ".join(e.name for e in entries) or "none"
        raise PotentialNotFoundError(
            f"no potential is named {name!r} (shipped: {known}) and no such path exists; "
            f"`pet-calc models list` shows what there is, published models included"
        )
    return None


def cache_folder() -> Path:
    """Where converted checkpoints are kept: ``PET_CALC_CACHE``, else the user's cache folder."""
    if named := os.environ.get("PET_CALC_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pet_calc"


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


def entry_from_path(path: Path) -> PotentialEntry:
    """The potential in a folder; a file in it names it too, and a foreign model its own."""
    if not path.exists():
        raise PotentialNotFoundError(f"there is no {path}; check the path of the potential")
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
    if any(folder.parent == root.resolve() for root in ROOTS):
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
    entries = [e for e in list_potentials() if e.architecture == architecture]
    fitting = [e for e in entries if all(map(e.suits, sets))]
    if not fitting:
        covered = "; ".join(f"{e.name}: {', '.join(e.elements)}" for e in entries)
        others = [e.name for e in list_potentials() if wanted <= set(e.elements)]
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
    digest = entry.sha256.get(WEIGHTS) or read_config(entry.folder)["weights_sha256"]
    card = read_card(entry.folder) if (entry.folder / CARD).is_file() else None
    domain = read_domain(entry.folder)
    return LoadedPotential(
        entry.name,
        model,
        elements,
        digest,
        entry.folder,
        card,
        domain,
        entry.crystals_only,
        entry.systems,
        entry.formation_energies,
    )


def read_card(folder: Path) -> Card:
    """A potential's card.

    Raises
    ------
    PotentialNotFoundError
        If there is none.
    CheckpointError
        If its front matter is malformed.
    """
    path = folder / CARD
    if not path.is_file():
        raise PotentialNotFoundError(f"there is no card {path}")
    content = path.read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?)\n---\n(.*)", content, flags=re.DOTALL)
    if match is None:
        raise CheckpointError(f"{path} must begin with front matter between two lines ---")
    front: dict[str, Any] = {}
    for line in match[1].splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise CheckpointError(f"front matter is `key: value` per line, but {path} has {line!r}")
        front[key.strip()] = card_value(value.strip())
    return Card(front, match[2])


def card_value(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    digests : dict
        File name to (recorded digest, found digest).
    deviations : dict
        Precision to deviations from ``expected.json``; empty where a digest is wrong.
    """

    digests: dict[str, tuple[str, str]]
    deviations: dict[str, list[Deviation]]

    def require(self, name: str) -> None:
        """Raise `IntegrityError` unless everything agrees."""
        for file, (recorded, found) in self.digests.items():
            if recorded != found:
                raise IntegrityError(
                    f"{file} of {name} must have the SHA-256 {recorded}, but has {found}: it is "
                    f"damaged or was exchanged; install the package again"
                )
        for dtype, deviations in self.deviations.items():
            for d in deviations:
                if not d.within:
                    raise IntegrityError(
                        f"{name} must reproduce its recorded results, but in {dtype} the "
                        f"{d.quantity} of {d.structure!r} is off by {d.found:.3g} (limit "
                        f"{d.tolerance:.3g}); use the versions of pet_calc and torch that it was "
                        f"published with, and report this"
                    )


def verify(
    name_or_path: str | Path, dtypes: Sequence[str] = ("float32", "float64")
) -> Verification:
    """Compare digests with the recorded ones and results with ``expected.json``.

    A folder outside of the index may lack ``expected.json``; then the digest is compared and the
    model is loaded.
    """
    entry = resolve(name_or_path)
    recorded = entry.sha256 or {WEIGHTS: read_config(entry.folder)["weights_sha256"]}
    digests = {file: (d.lower(), sha256(entry.folder / file)) for file, d in recorded.items()}
    if any(a != b for a, b in digests.values()):
        return Verification(digests, {})
    if not entry.sha256 and not (entry.folder / EXPECTED).is_file():
        load(entry)  # there is nothing to compare with, but it must be readable
        return Verification(digests, {})
    deviations = {
        dtype: compare_expected(entry.folder, load(entry, dtype).model) for dtype in dtypes
    }
    return Verification(digests, deviations)
