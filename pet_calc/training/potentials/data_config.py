"""Configuration of what a training run starts from: data files and another potential."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from ase import Atoms

from pet_calc.training.core.config_reader import build

Split = Literal["train", "validation", "test"]
Stationary = Literal["no", "atoms", "cell"]
Method = Literal["full", "heads", "lora"]


@dataclass(frozen=True)
class DataSet:
    """One file, with what there is to say about it alone; a table ``[[data.sets]]``.

    Attributes
    ----------
    file : str
    split : {"train", "validation", "test"}
    repeat : int
        How often an epoch sees its frames, so that a small hard set is not drowned by a large easy
        one.
    stationary : {"no", "atoms", "cell"}
        Its structures were relaxed, so that labels that it lacks are known: zero forces, and with
        "cell" zero stress too. Labels that it has are kept. Atoms under a constraint of the file
        get no label.
    level : str, optional
        Level of theory of its labels: one of ``model.energy_heads``, by default the main one.
    keys : dict
        Label to key, beside and before those of [data].
    frames : str
        Which of its frames, as a slice: ":900" are the first 900, "::10" every tenth.
    max_atoms : int, optional
        Leave out larger structures.
    covered_only : bool
        Leave out structures with elements that the model does not cover, instead of refusing them.
    max_force : float, optional
        Leave out structures where the force on an atom is larger, in eV/Å.
    """

    file: str
    split: Split = "train"
    repeat: int = 1
    stationary: Stationary = "no"
    level: str | None = None
    keys: dict[str, str] = field(default_factory=dict)
    frames: str = ":"
    max_atoms: int | None = None
    covered_only: bool = False
    max_force: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"-?\d*:-?\d*(:-?[1-9]\d*)?", self.frames):
            raise ValueError(
                f"`frames` in [[data.sets]] must be a slice such as ':900' or '::10', got "
                f"{self.frames!r}"
            )
        if self.max_atoms is not None and self.max_atoms < 1:
            raise ValueError(f"`max_atoms` must be at least 1, got {self.max_atoms}")
        if self.max_force is not None and not self.max_force > 0:
            raise ValueError(f"`max_force` must be a positive number of eV/Å, got {self.max_force}")
        for name, allowed in (("split", get_args(Split)), ("stationary", get_args(Stationary))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"`{name}` in [[data.sets]] must be one of {list(allowed)}, got "
                    f"{getattr(self, name)!r}"
                )
        if self.repeat < 1:
            raise ValueError(f"`repeat` in [[data.sets]] must be at least 1, got {self.repeat}")

    def choose(self, frames: list[Atoms], elements: Collection[int]) -> list[Atoms]:
        """The frames that are wanted of those in the file, for a model that covers `elements`."""
        found = frames[slice(*(int(x) if x else None for x in self.frames.split(":")))]
        if self.max_atoms is not None:
            found = [a for a in found if len(a) <= self.max_atoms]
        if self.covered_only:
            found = [a for a in found if set(a.numbers.tolist()) <= set(elements)]
        return found


@dataclass(frozen=True)
class DataConfig:
    """Files and labels.

    Attributes
    ----------
    train, test : tuple of str
        Structure files; relative paths start at the data folder of the run.
    validation : tuple of str
        Files to validate on; if empty, `validation_frames` frames spread evenly over the
        training files are held out.
    validation_frames : int
        Number of held-out frames.
    keys : dict
        Label to key, where the usual names do not serve.
    sets : tuple of DataSet
        Further files.
    """

    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    validation_frames: int = 10
    keys: dict[str, str] = field(default_factory=dict)
    sets: tuple[DataSet, ...] = ()

    def of_split(self, split: Split) -> list[DataSet]:
        """The files of a split, first those that are only named."""
        names = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        named = [DataSet(f, split) for f in names]
        further = [s for s in self.sets if s.split == split]
        return [replace(s, keys=self.keys | s.keys) for s in [*named, *further]]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataConfig:
        """Config from the table of a file."""
        sets = tuple(build(DataSet, dict(s), "data.sets") for s in values.get("sets", ()))
        return build(cls, values | {"sets": sets}, "data")


@dataclass(frozen=True)
class FineTuneConfig:
    """Start from the weights of another potential instead of random ones.

    Attributes
    ----------
    source : str
        Name or folder of that potential; ``from`` in the file.
    method : {"full", "heads", "lora"}
        Train all weights; or only the last layers that read energies (and direct forces and
        stress) off the features, which cannot forget much; or an update of low rank of every
        linear layer (`pet_calc.training.potentials.lora`).
    rank : int
        Of the update, with "lora".
    alpha : float
        The update is multiplied by alpha / rank, with "lora".
    replay : tuple of str
        Files of data that the potential was trained on. Frames of them are mixed with the new
        ones, so that less is forgotten.
    replay_fraction : float
        Share of such frames in an epoch, of which each draws others until all have been seen.
    replay_test : tuple of str
        Files of the old kind, to measure on them what is forgotten.
    """

    source: str
    method: Method = "full"
    rank: int = 8
    alpha: float = 16.0
    replay: tuple[str, ...] = ()
    replay_fraction: float = 0.3
    replay_test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(
                f"`fine_tune.method` must be 'full', 'heads' or 'lora', got {self.method!r}"
            )
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(
                f"`fine_tune.rank` must be at least 1 and `fine_tune.alpha` positive, got "
                f"{self.rank} and {self.alpha}"
            )
        if not 0 < self.replay_fraction < 1:
            raise ValueError(
                f"`fine_tune.replay_fraction` must lie between 0 and 1, got {self.replay_fraction}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the file; options without effect are left out."""
        values = asdict(self)
        if self.method != "lora":
            del values["rank"], values["alpha"]
        if not self.replay:
            del values["replay_fraction"]
        return {"from": values.pop("source"), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuneConfig:
        """Config from the table of a file, where `source` is called ``from``."""
        if "from" not in values:
            raise ValueError("[fine_tune] needs `from`: the name or folder of a potential")
        for names, needed, present in (
            ({"rank", "alpha"}, 'method = "lora"', values.get("method") == "lora"),
            ({"replay_fraction"}, "replay = [files]", bool(values.get("replay"))),
        ):
            idle = sorted(names & set(values))
            if idle and not present:
                raise ValueError(f"the option(s) {idle} in [fine_tune] need {needed}")
        return build(
            cls,
            {"source" if k == "from" else k: v for k, v in values.items()},
            "fine_tune",
        )
