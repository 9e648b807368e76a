"""All that a run needs to go on as if it had never stopped, in one file.

``checkpoint.npz`` holds arrays and one JSON text, nothing pickled. It is written beside its place
and moved there in one step, so that there is a whole one at every moment. Beside the state it
records what the run was made of; a run is only continued with the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

import pet_calc
from pet_calc.errors import CheckpointError
from pet_calc.io.runs.provenance import calculator_record, installed
from pet_calc.io.structures.charge_and_spin import state_text
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.records import Mark
from pet_calc.workflows.md.swaps import CARRIED

CHECKPOINT = "checkpoint.npz"
SCHEMA = 1

#: Another potential gives another energy than the recorded one by more than this, in eV per atom,
#: and other forces, in eV/Å; other hardware or threads round differently by far less.
ENERGY_TOLERANCE, FORCE_TOLERANCE = 1e-5, 1e-3

#: Settings that may change when a run is continued: they do not change its trajectory.
FREE = ("steps", "guards")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a run after one of its steps.

    Attributes
    ----------
    step : int
    config : dict
        Settings of the run, as plain values.
    model : dict
        Description of the calculator.
    structure : str
        Digest of the structure that the run began with.
    mark : Mark
        State of trajectory and log.
    rng : dict
        State of each random generator.
    versions : dict
        Of the packages that compute.
    atoms : dict of arrays
        positions, cell, and the arrays that swaps exchange.
    integrator, swaps : dict of arrays
        See their ``state``.
    energy : float
        Potential energy, eV.
    forces : array, shape (n_atoms, 3)
        eV/Å.
    """

    step: int
    config: dict[str, Any]
    model: dict[str, Any]
    structure: str
    mark: Mark
    rng: dict[str, Any]
    versions: dict[str, str]
    atoms: dict[str, NDArray[Any]]
    integrator: dict[str, NDArray[np.float64]]
    swaps: dict[str, NDArray[np.float64]]
    energy: float
    forces: NDArray[np.float64]


_TABLES = ("atoms", "integrator", "swaps")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the place of the last one, in one step."""
    arrays = {
        f"{table}/{name}": array
        for table in _TABLES
        for name, array in getattr(checkpoint, table).items()
    }
    plain = {
        name: getattr(checkpoint, name)
        for name in checkpoint.__dataclass_fields__
        if name not in (*_TABLES, "forces", "mark")
    }
    plain |= {"schema": SCHEMA, "mark": asdict(checkpoint.mark)}
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        np.savez(file, plain=np.array(json.dumps(plain)), forces=checkpoint.forces, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If it is absent, damaged, or of another version of the format.
    """
    if not path.is_file():
        raise CheckpointError(
            f"a run is continued from its checkpoint, but there is no {path}; name the folder of "
            "the run, or start it without resuming"
        )
    try:
        # opened here, since NumPy leaves a damaged file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        plain = json.loads(str(arrays.pop("plain")))
        schema = plain.pop("schema")
        if schema == SCHEMA:
            fields: dict[str, Any] = {**plain, **{name: {} for name in _TABLES}}
            fields |= {"forces": arrays.pop("forces"), "mark": Mark(**plain["mark"])}
            for key, array in arrays.items():
                table, _, name = key.partition("/")
                fields[table][name] = array
            return Checkpoint(**fields)
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}); start the run anew"
        ) from error
    raise CheckpointError(
        f"{path} has version {schema} of the checkpoint format, but this pet_calc reads version "
        f"{SCHEMA}; continue the run with the pet_calc that began it"
    )


def structure_digest(atoms: Atoms) -> str:
    """SHA-256 of all of a structure that a simulation depends on."""
    digest = hashlib.sha256()
    parts: dict[str, NDArray[Any]] = {
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "positions": atoms.positions,
        **{name: atoms.arrays[name] for name in CARRIED if name in atoms.arrays},
    }
    for name, array in parts.items():
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for constraint in atoms.constraints:
        digest.update(repr(constraint.todict()).encode())
    digest.update(state_text(atoms).encode())
    return digest.hexdigest()


def model_record(calculator: Any) -> dict[str, Any]:
    """What identifies a potential; the device is left out, since a run may move to another."""
    return {k: v for k, v in calculator_record(calculator).items() if k != "device"}


def config_record(config: MDConfig) -> dict[str, Any]:
    """Settings as plain values, with the length of a ramp resolved."""
    values = asdict(config)
    if config.temperature_end is not None or config.pressure_end is not None:
        values["ramp_steps"] = config.steps if config.ramp_steps is None else config.ramp_steps
    return values


def versions() -> dict[str, str]:
    """Of the packages that a trajectory depends on."""
    return {"pet_calc": pet_calc.__version__, **installed(("ase", "numpy", "torch", "vesin"))}


def continued_config(checkpoint: Checkpoint, config: MDConfig) -> MDConfig:
    """The settings for continuing a run, if they are those that it began with.

    A ramp keeps the length that it had, however long the run becomes.

    Raises
    ------
    CheckpointError
        If a setting differs that the trajectory depends on, or the run is already longer.
    """
    if config.ramp_steps is None:
        config = replace(config, ramp_steps=checkpoint.config["ramp_steps"])
    now = config_record(config)
    changed = [
        f"{name} was {checkpoint.config.get(name)} and is {value}"
        for name, value in now.items()
        if name not in FREE and checkpoint.config.get(name) != value
    ]
    if changed:
        raise CheckpointError(
            f"a run continues with the settings that it began with, but {'; '.join(changed)}; "
            "restore them, or start anew in another folder"
        )
    if config.steps < checkpoint.step:
        raise CheckpointError(
            f"the run has come to step {checkpoint.step} already, beyond `steps` = {config.steps}; "
            "ask for more steps to continue it"
        )
    return config


def require_same_structure(checkpoint: Checkpoint, atoms: Atoms) -> None:
    """Raise `CheckpointError` if the run began with another structure."""
    if structure_digest(atoms) != checkpoint.structure:
        raise CheckpointError(
            "a run continues from the structure that it began with, but the input structure has "
            "changed since; restore it, or start anew in another folder"
        )


def require_same_model(
    checkpoint: Checkpoint, calculator: Any, energy: float, forces: NDArray[np.float64]
) -> None:
    """Raise `CheckpointError` if the calculator is not the one that the run began with.

    Parameters
    ----------
    checkpoint : Checkpoint
    calculator : ase calculator
        Its description is compared, so that a new version of a potential is named.
    energy, forces : float, array of shape (n_atoms, 3)
        Computed now for the structure of the checkpoint, eV and eV/Å; compared with the recorded
        ones, so that no change goes unseen, of whatever calculator.
    """
    advice = "continue with the same potential, or start anew in another folder"
    now = model_record(calculator)
    changed = [
        f"{name} was {checkpoint.model.get(name)} and is {now.get(name)}"
        for name in {**checkpoint.model, **now}
        if checkpoint.model.get(name) != now.get(name)
    ]
    if changed:
        raise CheckpointError(f"the potential has changed: {'; '.join(changed)}; {advice}")
    shift = (energy - checkpoint.energy) / len(forces)
    error = float(np.abs(forces - checkpoint.forces).max())
    if not (abs(shift) <= ENERGY_TOLERANCE and error <= FORCE_TOLERANCE):
        raise CheckpointError(
            f"the potential has changed: at step {checkpoint.step} its energy differs by "
            f"{1e3 * shift:.3g} meV/atom from the recorded one, and forces by up to {error:.3g} "
            f"eV/Å; {advice}"
        )
