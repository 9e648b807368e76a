"""The errors that a potential's card states, measured again from its files.

``metrics`` in the front matter of a card maps the name of a set to its numbers, and names the files
they were measured on, relative to a data folder::

    metrics: {"relative_tolerance": 0.01,
              "test": {"files": ["water/test.extxyz.xz"], "energy_mae_meV_atom": 0.606, ...}}

A file may be a table with the options of ``[[data.sets]]``, such as which of its frames are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ase.units import GPa

from pet_calc.errors import CheckpointError
from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.models.interface import EnergyModel
from pet_calc.models.pet import PET
from pet_calc.pretrained import LoadedPotential
from pet_calc.training.core.config_reader import build
from pet_calc.training.potentials.data import Batch, prepare
from pet_calc.training.potentials.data_config import DataSet
from pet_calc.training.potentials.evaluate import Evaluation, evaluate_frames
from pet_calc.training.potentials.splits import at_level, read_set

#: Name in the card to the error in its unit.
NUMBERS: Final[dict[str, Callable[[Evaluation], float]]] = {
    "energy_mae_meV_atom": lambda e: e.energy.mae,
    "energy_rmse_meV_atom": lambda e: e.energy.rmse,
    "force_mae_meV_A": lambda e: e.forces.mae,
    "force_rmse_meV_A": lambda e: e.forces.rmse,
    "stress_mae_GPa": lambda e: 1e-3 * e.stress.mae / GPa,
}

#: Of the numbers of a card that names none; they are printed with three digits.
RELATIVE_TOLERANCE: Final = 0.01


@dataclass(frozen=True)
class CardNumber:
    """One number of a card beside what was found.

    Attributes
    ----------
    split, name : str
        The set and the number's name, which carries its unit (`NUMBERS`).
    stated, found, tolerance : float
        ``tolerance`` is the largest accepted difference of the two.
    """

    split: str
    name: str
    stated: float
    found: float
    tolerance: float

    @property
    def within(self) -> bool:
        """Whether the found number is one, and as near as the card promises."""
        return abs(self.found - self.stated) <= self.tolerance


def measure(
    potential: LoadedPotential,
    files: Sequence[str | dict[str, Any]],
    data: Path,
    on_frame: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Errors of a potential on the labeled frames of files in the folder `data`.

    `on_frame` is told how many of how many frames are begun.
    """
    model = potential.model
    frames = []
    for file in files:
        options = {"file": file} if isinstance(file, str) else dict(file)
        frames += read_set(build(DataSet, options, "files"), data, model.atomic_numbers)[0]
    state = isinstance(model, PET) and model.config.system_conditioning
    leveled = has_levels(model, frames)

    def prepared() -> Iterator[Batch]:
        for k, frame in enumerate(frames):
            if on_frame is not None:
                on_frame(k, len(frames))
            batch = prepare(frame, model.cutoff, state=state)
            if leveled and isinstance(model, PET):
                batch = at_level(batch, frame, model.config, model.energy_head)
            yield batch

    return evaluate_frames(model, prepared())


def has_levels(model: EnergyModel, frames: Sequence[LabeledFrame]) -> bool:
    """Whether frames name levels of theory.

    Raises
    ------
    CheckpointError
        If the model has no energy head for one of them.
    """
    levels = {frame.level for frame in frames} - {None}
    heads = model.config.energy_heads if isinstance(model, PET) else ()
    if not levels <= set(heads):
        raise CheckpointError(
            f"the `level` of a file must be one of the energy heads of the potential, "
            f"{list(heads)}, got {sorted(map(str, levels))}"
        )
    return bool(levels)


def measure_card(
    potential: LoadedPotential,
    data: Path,
    *,
    on_frame: Callable[[str, int, int], None] | None = None,
) -> list[CardNumber]:
    """Every number of ``metrics`` in a potential's card, measured again.

    Parameters
    ----------
    potential : LoadedPotential
    data : Path
        Folder where the paths of the card start.
    on_frame : callable, optional
        Told the set, and how many of how many of its frames are begun.

    Raises
    ------
    CheckpointError
        If there is no card, it names no files, or it states a number of an unknown name.
    DatasetError
        If a file is missing.
    """
    metrics: Any = potential.card.front.get("metrics") if potential.card else None
    sets = (
        {k: v for k, v in metrics.items() if isinstance(v, dict) and "files" in v}
        if isinstance(metrics, dict)
        else {}
    )
    if not sets:
        raise CheckpointError(
            f"the card of {potential.name} names no files that its errors were measured on; "
            f"`metrics` needs a set with `files`"
        )
    relative = float(metrics.get("relative_tolerance", RELATIVE_TOLERANCE))
    numbers = []
    for split, values in sets.items():
        stated = {k: float(v) for k, v in values.items() if k != "files"}
        unknown = sorted(set(stated) - set(NUMBERS))
        if unknown:
            raise CheckpointError(
                f"the card of {potential.name} states {unknown} of {split}; known are "
                f"{sorted(NUMBERS)}"
            )
        told = None if on_frame is None else partial(on_frame, split)
        evaluation = measure(potential, values["files"], data, told)
        numbers += [
            CardNumber(split, name, value, NUMBERS[name](evaluation), relative * abs(value))
            for name, value in stated.items()
        ]
    return numbers
