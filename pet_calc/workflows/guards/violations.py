"""What a guard finds, and the error that ends a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pet_calc.errors import SimulationError

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Violation:
    """What a guard found: the cause in plain language, and the atoms concerned."""

    cause: str
    atoms: tuple[int, ...] = ()


class SimulationStopped(SimulationError):
    """A guard stopped the simulation; the last good frame is kept.

    Attributes
    ----------
    cause : str
        What happened, in plain language.
    step : int
        The step at which it was found.
    atoms : tuple of int
        Indices of the atoms concerned; empty if it concerns them all.
    last_good_step : int or None
        The last step that passed the guards; None if the start did not.
    last_good : Atoms or None
        That frame (positions, momenta, energy, forces).
    last_good_frame : Path or None
        The file with it; None for a run that writes nothing.
    """

    def __init__(
        self,
        cause: str,
        *,
        step: int,
        time_fs: float,
        atoms: Sequence[int] = (),
        last_good_step: int | None = None,
        last_good: Atoms | None = None,
        last_good_frame: Path | None = None,
    ) -> None:
        self.cause = cause
        self.step = step
        self.time_fs = time_fs
        self.atoms = tuple(atoms)
        self.last_good_step = last_good_step
        self.last_good = last_good
        self.last_good_frame = last_good_frame
        kept = " No step passed the checks, so that there is no good frame to keep."
        if last_good_frame is not None:
            kept = f" The last good frame, step {last_good_step}, is in {last_good_frame}."
        elif last_good is not None:
            kept = f" The last good frame, step {last_good_step}, is `last_good` of this error."
        super().__init__(f"stopped at step {step} ({time_fs:.2f} fs): {cause}.{kept}")
