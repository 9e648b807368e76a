"""The errors that pet_calc raises for states a caller may want to handle.

::

    PetCalcError                    (Exception)
    ├── InvalidStructureError       (also ValueError)
    ├── UnsupportedElementError     (also ValueError)
    ├── DatasetError                (also ValueError)
    ├── PotentialNotFoundError
    ├── IntegrityError
    ├── CheckpointError
    ├── SimulationError
    ├── OutputError
    └── MissingDependencyError      (also ImportError)

Plain misuse of a function (a wrong argument, a wrong shape) raises the built-in ``ValueError`` or
``TypeError``. A message states the rule, what was found, and what to do about it.
"""

__all__ = [
    "CheckpointError",
    "DatasetError",
    "IntegrityError",
    "InvalidStructureError",
    "MissingDependencyError",
    "OutputError",
    "PetCalcError",
    "PotentialNotFoundError",
    "SimulationError",
    "UnsupportedElementError",
]


class PetCalcError(Exception):
    """Base of every error defined by pet_calc."""


class InvalidStructureError(PetCalcError, ValueError):
    """A structure has no meaning as it stands, such as one with NaN or overlapping positions."""


class UnsupportedElementError(PetCalcError, ValueError):
    """A structure holds an element that the potential was not trained on."""


class DatasetError(PetCalcError, ValueError):
    """A data set is empty, unreadable, or lacks the labels that it is asked for."""


class PotentialNotFoundError(PetCalcError):
    """No potential, or no weights file, exists under the given name or path."""


class IntegrityError(PetCalcError):
    """A file's content does not match its recorded SHA-256."""


class CheckpointError(PetCalcError):
    """A saved model or training state is damaged, or belongs to another configuration."""


class SimulationError(PetCalcError):
    """A simulation left the range in which its numbers mean anything and was stopped."""


class OutputError(PetCalcError):
    """A result cannot be written where it was asked for."""


class MissingDependencyError(PetCalcError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
