"""Models as other packages write them: what lies at a path, and its conversion.

Four forms are known: metatrain's checkpoint (``.ckpt``, ``.ckpt.gz``) and that of the public
Crystalformer, the calculation folder of the first public PET, and pet-kokkos' pair of files
``<name>.json`` and ``<name>.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError

from pet_calc.errors import CheckpointError, PotentialNotFoundError
from pet_calc.io.foreign.calc_folder import calc_folder_files, load_calc_folder
from pet_calc.io.foreign.checkpoints import convert_checkpoint, model_of
from pet_calc.io.foreign.crystalformer import convert_crystalformer, holds_crystalformer
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.models.weights import exact_dtype, load_model, save_model
from pet_calc.models.architectures import Model
from pet_calc.models.pet.published.kokkos import import_kokkos
from pet_calc.models.pet.published.original import OriginalPET

Form = Literal["checkpoint", "calculation folder", "pet-kokkos"]

#: In the folder of a first public PET: the folder of the invariant model that ECSE falls back to.
AUXILIARY: Final = "auxiliary"


@dataclass(frozen=True)
class ForeignModel:
    """A model that is not in this package's format yet.

    Attributes
    ----------
    form : {"checkpoint", "calculation folder", "pet-kokkos"}
    name : str
        What its author called it, for the name of a folder.
    files : tuple of Path
        Those that define it. Of a pair the JSON file comes first.
    """

    form: Form
    name: str
    files: tuple[Path, ...]

    def digest(self) -> str:
        """SHA-256 of a single file, or over the digests of several."""
        digests = [sha256(file) for file in self.files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join([self.form, *digests]).encode()).hexdigest()


def find_foreign(path: Path) -> ForeignModel | None:
    """The foreign model at a path: a checkpoint, a folder, or a file of a pair; None if none.

    Raises
    ------
    PotentialNotFoundError
        If half of a pair is missing, a folder holds several models, or a calculation folder lacks
        a file.
    """
    if path.is_dir():
        if (path / CONFIG).is_file():
            return None
        if (path / "hypers_used.yaml").is_file():
            return ForeignModel("calculation folder", path.resolve().name, calc_folder_files(path))
        pairs = [f for f in sorted(path.glob("*.safetensors")) if f.with_suffix(".json").is_file()]
        if len(pairs) > 1:
            raise PotentialNotFoundError(
                f"{path} holds {len(pairs)} models ({', '.join(f.stem for f in pairs)}); name one "
                f"of their files"
            )
        return find_foreign(pairs[0]) if pairs else None
    if path.name in (CONFIG, WEIGHTS):
        return None
    for ending in (".ckpt", ".ckpt.gz"):
        if path.name.endswith(ending):
            return ForeignModel("checkpoint", path.name.removesuffix(ending), (path,))
    if path.suffix not in (".json", ".safetensors"):
        return None
    pair = (path.with_suffix(".json"), path.with_suffix(".safetensors"))
    for file in pair:
        if not file.is_file():
            raise PotentialNotFoundError(
                f"a model in the form of pet-kokkos is a pair {pair[0].name} and {pair[1].name}, "
                f"but there is no {file}"
            )
    return ForeignModel("pet-kokkos", path.stem, pair)


def convert_foreign(foreign: ForeignModel, folder: Path) -> list[str]:
    """Write a foreign model as a model folder; nothing in its files is executed.

    Parameters
    ----------
    foreign : ForeignModel
    folder : Path
        Made if absent; a model in it is replaced.

    Returns
    -------
    list of str
        What was found, for people.

    Raises
    ------
    CheckpointError
        If the files are damaged or ask for what is not known here.
    OutputError
        If the folder cannot be written.
    """
    if foreign.form == "checkpoint" and holds_crystalformer(foreign.files[0]):
        return convert_crystalformer(foreign.files[0], folder)
    if foreign.form == "checkpoint":
        imported = convert_checkpoint(foreign.files[0], folder)
        found = [
            f"PET for {len(imported.config.elements)} elements, cutoff "
            f"{imported.config.cutoff:g} Å, from a checkpoint of format {imported.version}"
        ]
        if len(imported.config.energy_heads) > 1:
            found.append(f"energy heads: {', '.join(imported.config.energy_heads)}")
        if imported.wrapper:
            found.append("with its uncertainties (LLPR)")
        if imported.ignored:
            found.append(f"left out: {', '.join(imported.ignored)}")
        return found
    model: Model
    if foreign.form == "pet-kokkos":
        model = read_kokkos(*foreign.files)
        kind = "PET"
    else:
        model = load_calc_folder(foreign.files[0].parent, torch.float64)
        kind = "the first public PET"
    save_model(folder, model, {"imported_from": origin(foreign)}, dtype=exact_dtype(model))
    return [
        f"{kind} for {len(model.atomic_numbers)} elements, cutoff {model.cutoff:g} Å, from a "
        f"model in the form of a {foreign.form}"
    ]


def origin(foreign: ForeignModel) -> dict[str, Any]:
    """Names and digests of the files, for ``config.json``."""
    return {"form": foreign.form, "files": {f.name: sha256(f) for f in foreign.files}}


def read_kokkos(description: Path, tensors: Path) -> Model:
    """The model of a pair of files of pet-kokkos, frozen, in float64.

    Raises
    ------
    CheckpointError
        If they are damaged, do not fit each other, or ask for what is not known here.
    """
    try:
        values = json.loads(description.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{description} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{description} must hold a JSON object")
    try:
        imported = import_kokkos(values, safetensors.torch.load(tensors.read_bytes()))
    except SafetensorError as error:
        raise CheckpointError(f"{tensors} is not a readable safetensors file: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{description}: {error}") from error
    return model_of(imported, tensors, torch.float64)


def add_auxiliary(folder: Path, source: Path) -> None:
    """Store beside a first public PET the invariant model that ECSE needs.

    ECSE hands over to it where no coordinate system is defined, as for collinear atoms, so that it
    must see lengths alone, and cover the same elements within the same cutoff.

    Parameters
    ----------
    folder : Path
        A model folder of the architecture "pet-original".
    source : Path
        Calculation folder of the invariant model.

    Raises
    ------
    CheckpointError
        If either is of another kind or they do not belong together.
    """
    foreign = find_foreign(source)
    if foreign is None or foreign.form != "calculation folder":
        raise CheckpointError(f"an auxiliary model must be a calculation folder, got {source}")
    auxiliary = load_calc_folder(source, torch.float64)
    require_auxiliary(source, load_model(folder, torch.float64), auxiliary)
    save_model(
        folder / AUXILIARY,
        auxiliary,
        {"imported_from": origin(foreign)},
        dtype=exact_dtype(auxiliary),
    )


def load_auxiliary(folder: Path | str, dtype: torch.dtype = torch.float32) -> OriginalPET | None:
    """The invariant model beside a first public PET, frozen; None if there is none.

    Raises
    ------
    IntegrityError, CheckpointError
        See `load_model`.
    """
    place = Path(folder) / AUXILIARY
    if not place.is_dir():
        return None
    auxiliary = load_model(place, dtype)
    require_auxiliary(place, load_model(folder, dtype), auxiliary)
    assert isinstance(auxiliary, OriginalPET)
    return auxiliary


def require_auxiliary(place: Path, main: Model, auxiliary: Model) -> None:
    """Raise `CheckpointError` unless one model can be the auxiliary one of the other."""
    if not isinstance(main, OriginalPET) or not isinstance(auxiliary, OriginalPET):
        raise CheckpointError(f"{place}: both models must be of the first public PET")
    if auxiliary.config.geometry != "length":
        raise CheckpointError(
            f"{place}: an auxiliary model must see lengths alone (USE_ONLY_LENGTH), but sees "
            f"{auxiliary.config.geometry}"
        )
    for name in ("elements", "cutoff"):
        a, b = getattr(main.config, name), getattr(auxiliary.config, name)
        if a != b:
            raise CheckpointError(
                f"{place}: an auxiliary model must have the main model's {name} {a}, got {b}"
            )
