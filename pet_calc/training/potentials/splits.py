"""Frames of training, validation and test, read from the files of a configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from pet_calc.errors import DatasetError
from pet_calc.io.data.datasets import LabelCensus, LabeledFrame, read_frames
from pet_calc.models.architectures import TrainableModel
from pet_calc.models.pet import PET, PETConfig
from pet_calc.training.potentials.config import StageConfig, TrainConfig
from pet_calc.training.potentials.data import Batch, prepare
from pet_calc.training.potentials.data_config import DataSet, Split
from pet_calc.training.potentials.frame_order import Order, replayed_frames


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Frames of each split and what was found in their files.

    Attributes
    ----------
    train, validation, test : list of LabeledFrame
        Those to train on end with the replayed ones.
    census : dict
        Split to what its files hold.
    order : Order
        Which of `train` an epoch sees.
    replay_test : list of LabeledFrame
        What a fine-tuned potential should not forget.
    """

    train: list[LabeledFrame]
    validation: list[LabeledFrame]
    test: list[LabeledFrame]
    census: dict[str, LabelCensus]
    order: Order
    replay_test: list[LabeledFrame] = field(default_factory=list)

    @property
    def measured(self) -> dict[str, list[LabeledFrame]]:
        """The frames that errors are measured on at the end, by the name of the split."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        splits["replay test"] = self.replay_test
        return {name: frames for name, frames in splits.items() if frames}

    @property
    def trained_on(self) -> list[LabeledFrame]:
        """Those to train on that have labels and no bounds."""
        return [f for f in self.train if not f.bounded]


def load_data(config: TrainConfig, folder: Path, *, beside: Path | None = None) -> TrainingData:
    """Read all splits of a configuration; relative paths start at `folder`.

    Parameters
    ----------
    config : TrainConfig
    folder : Path
    beside : Path, optional
        Folder of the configuration: files that `folder` lacks are taken from there.

    Raises
    ------
    DatasetError
        If a file is missing or empty, or if a label with a positive loss weight is not in the
        training files at all.
    """
    data = config.data
    census: dict[str, LabelCensus] = {}
    if not data.of_split("train"):
        raise DatasetError(
            "there is nothing to train on: neither `data.train` nor [[data.sets]] names a file"
        )
    train: list[LabeledFrame] = []
    repeats: list[int] = []

    def home(file: str) -> Path:
        if beside is not None and not (folder / file).is_file() and (beside / file).is_file():
            return beside
        return folder

    for source in data.of_split("train"):
        frames, found = read_set(source, home(source.file), config.model.elements)
        train += frames
        repeats += [source.repeat] * len(frames)
        census["train"] = census["train"] + found if "train" in census else found
    held: dict[Split, list[LabeledFrame]] = {"validation": [], "test": []}
    for split, frames in held.items():
        for source in data.of_split(split):
            more, found = read_set(source, home(source.file), config.model.elements)
            frames += more
            census[split] = census[split] + found if split in census else found
    if not held["validation"]:
        n = data.validation_frames
        # those without labels measure nothing
        labeled = [k for k, f in enumerate(train) if not f.bounded]
        if not 0 < n < len(labeled):
            raise DatasetError(
                f"`data.validation_frames` must lie between 1 and the {len(labeled)} labeled "
                f"training frames minus one, got {n}"
            )
        places = np.linspace(0, len(labeled) - 1, n).round().astype(int)
        chosen = {labeled[k] for k in places.tolist()}
        held["validation"] = [f for k, f in enumerate(train) if k in chosen]
        kept = [k for k in range(len(train)) if k not in chosen]
        train, repeats = [train[k] for k in kept], [repeats[k] for k in kept]
    new = tuple(k for k, r in enumerate(repeats) for _ in range(r))
    order = Order(new)
    replay_test: list[LabeledFrame] = []
    tune = config.fine_tune
    if tune is not None and tune.replay:
        replay, census["replay"] = read_frames([home(p) / p for p in tune.replay], data.keys)
        old = tuple(range(len(train), len(train) + len(replay)))
        order = Order(new, old, replayed_frames(len(new), tune.replay_fraction))
        train += replay
    if tune is not None and tune.replay_test:
        replay_test, census["replay test"] = read_frames(
            [home(p) / p for p in tune.replay_test], data.keys
        )
    check_labels(census["train"], config.stages)
    return TrainingData(train, held["validation"], held["test"], census, order, replay_test)


def read_set(
    source: DataSet, folder: Path, elements: Collection[int]
) -> tuple[list[LabeledFrame], LabelCensus]:
    """Frames of one file with the labels that are known beside those in it, and their census.

    `elements` are those that the model covers.
    """
    frames, census = read_frames(
        [folder / source.file], source.keys, partial(source.choose, elements=elements)
    )
    limit = source.max_force
    frames = [
        replace(f, level=source.level) for f in frames if limit is None or largest_force(f) <= limit
    ]
    if not frames:
        raise DatasetError(
            f"no frame of {source.file} is left by `frames`, `max_atoms`, `max_force` and "
            f"`covered_only`"
        )
    found_in = {z for f in frames for z in f.atoms.numbers.tolist()}
    if missing := sorted(found_in - set(elements)):
        raise DatasetError(
            f"`model.elements` must cover all data, but {source.file} has "
            f"{', '.join(chemical_symbols[z] for z in missing)} too; add them, or leave such "
            f"structures out with `covered_only = true` in [[data.sets]]"
        )
    if source.stationary == "no":
        return frames, census
    relaxed = [at_rest(f, f"frame {k} of {source.file}", cell=source.stationary == "cell")
               for k, f in enumerate(frames)]  # fmt: skip
    found = {label: dict(keys) for label, keys in census.found.items()}
    for label in ("forces", "stress"):
        added = sum(
            getattr(a, label) is None and getattr(b, label) is not None
            for a, b in zip(frames, relaxed, strict=True)
        )
        if added:
            found[label] = found.get(label, {}) | {"(stationary)": added}
    return relaxed, replace(census, found=found)


def largest_force(frame: LabeledFrame) -> float:
    """Largest force on an atom in eV/Å; 0 without forces."""
    return 0.0 if frame.forces is None else float(np.linalg.norm(frame.forces, axis=1).max())


def at_rest(frame: LabeledFrame, where: str, *, cell: bool) -> LabeledFrame:
    """A relaxed structure with zero forces, and zero stress if its cell was relaxed too.

    Labels that it has are kept. Atoms under a constraint have no label (NaN), as it holds the force
    on them.

    Raises
    ------
    DatasetError
        If the cell is said to be relaxed where there is none in three dimensions.
    """
    forces, stress = frame.forces, frame.stress
    if forces is None:
        forces = np.zeros((len(frame.atoms), 3))
        if frame.constrained is not None:
            forces[frame.constrained] = np.nan
    if cell and stress is None:
        if not frame.atoms.pbc.all():
            raise DatasetError(
                f'stationary = "cell" needs structures that are periodic in three dimensions, but '
                f'{where} is not; say stationary = "atoms"'
            )
        stress = np.zeros(6)
    return replace(frame, forces=forces, stress=stress)


def check_labels(census: LabelCensus, stages: Sequence[StageConfig]) -> None:
    """Refuse to train on labels that no frame carries."""
    if census.count("energy") + census.count("forces") + census.count("stress") == 0:
        raise DatasetError(
            "the training files hold no label (no energy, forces or stress under any known key); "
            "name the keys in [data.keys]"
        )
    for label in ("energy", "forces", "stress", "rise"):
        carried = {"rise": "least_rise"}.get(label, label)
        wanted = any(getattr(w, label) > 0 for s in stages for w in (s.loss, s.last_loss))
        if wanted and census.count(carried) == 0:
            raise DatasetError(
                f"the loss asks for {label}, but no training frame carries it; name the key of "
                f"{carried} in [data.keys], or set its loss weight to 0"
            )


def prepare_all(frames: Sequence[LabeledFrame], config: TrainConfig) -> list[Batch]:
    """Frames as the model of a configuration needs them."""
    model = config.model
    state = isinstance(model, PETConfig) and model.system_conditioning
    prepared = [prepare(f, model.cutoff, state=state) for f in frames]
    if not config.levels or not isinstance(model, PETConfig):
        return prepared
    return [
        at_level(batch, frame, model, config.main_level)
        for batch, frame in zip(prepared, frames, strict=True)
    ]


def at_level(batch: Batch, frame: LabeledFrame, model: PETConfig, main: str) -> Batch:
    """A frame's batch with the energy head of its level, by default `main`."""
    place = model.energy_heads.index(frame.level or main)
    return replace(batch, system=replace(batch.system, energy_head=torch.tensor([place])))


def by_level(
    model: TrainableModel, frames: Sequence[Batch]
) -> list[tuple[TrainableModel, list[Batch]]]:
    """Single frames by their level of theory, each with the model read through its head."""
    levels = {f.level for f in frames if f.level is not None}
    if not levels or not isinstance(model, PET):
        return [(model, list(frames))]
    heads = model.config.energy_heads
    return [
        (model.with_energy_head(heads[k]), [f for f in frames if f.level == k])
        for k in sorted(levels)
    ]


def split_by_level(
    model: TrainableModel, measured: Mapping[str, Sequence[Batch]]
) -> dict[str, list[Batch]]:
    """Splits by name; where there are several levels, as "test, <level>"."""
    found = {}
    for name, frames in measured.items():
        for head, part in by_level(model, frames):
            leveled = isinstance(head, PET) and part[0].level is not None
            found[f"{name}, {head.energy_head}" if leveled else name] = part
    return found
