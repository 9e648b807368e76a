"""Frames of training, validation and test, read from the files of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pet_calc.errors import DatasetError
from pet_calc.io.datasets import LabelCensus, LabelledFrame, read_frames
from pet_calc.models.pet import PETConfig
from pet_calc.training.config import StageConfig, TrainConfig
from pet_calc.training.data import Batch, prepare
from pet_calc.training.order import Order, replayed_frames


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Frames of each split and what was found in their files.

    Attributes
    ----------
    train, validation, test : list of LabelledFrame
        Those to train on end with the replayed ones.
    census : dict
        Split to what its files hold.
    order : Order
        Which of `train` an epoch sees.
    replay_test : list of LabelledFrame
        What a fine-tuned potential should not forget.
    """

    train: list[LabelledFrame]
    validation: list[LabelledFrame]
    test: list[LabelledFrame]
    census: dict[str, LabelCensus]
    order: Order
    replay_test: list[LabelledFrame] = field(default_factory=list)

    @property
    def measured(self) -> dict[str, list[LabelledFrame]]:
        """The frames that errors are measured on at the end, by the name of the split."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        splits["replay test"] = self.replay_test
        return {name: frames for name, frames in splits.items() if frames}


def load_data(config: TrainConfig, folder: Path) -> TrainingData:
    """Read all splits of a configuration; relative paths start at `folder`.

    Raises
    ------
    DatasetError
        If a file is missing or empty, or if a label with a positive loss weight is not in the
        training files at all.
    """
    data = config.data
    census: dict[str, LabelCensus] = {}
    if not data.train:
        raise DatasetError("there is nothing to train on: `data.train` names no file")
    train: list[LabelledFrame] = []
    repeats: list[int] = []
    for path, repeat in zip(data.train, data.repeat or (1,) * len(data.train), strict=True):
        frames, found = read_frames([folder / path], data.keys)
        train += frames
        repeats += [repeat] * len(frames)
        census["train"] = census["train"] + found if "train" in census else found
    if data.validation:
        validation, census["validation"] = read_frames(
            [folder / p for p in data.validation], data.keys
        )
    else:
        n = data.validation_frames
        if not 0 < n < len(train):
            raise DatasetError(
                f"`data.validation_frames` must lie between 1 and the {len(train)} training "
                f"frames minus one, got {n}"
            )
        held = set(np.linspace(0, len(train) - 1, n).round().astype(int).tolist())
        validation = [f for k, f in enumerate(train) if k in held]
        kept = [k for k in range(len(train)) if k not in held]
        train, repeats = [train[k] for k in kept], [repeats[k] for k in kept]
    test: list[LabelledFrame] = []
    if data.test:
        test, census["test"] = read_frames([folder / p for p in data.test], data.keys)
    new = tuple(k for k, r in enumerate(repeats) for _ in range(r))
    order = Order(new)
    replay_test: list[LabelledFrame] = []
    tune = config.fine_tune
    if tune is not None and tune.replay:
        replay, census["replay"] = read_frames([folder / p for p in tune.replay], data.keys)
        old = tuple(range(len(train), len(train) + len(replay)))
        order = Order(new, old, replayed_frames(len(new), tune.replay_fraction))
        train += replay
    if tune is not None and tune.replay_test:
        replay_test, census["replay test"] = read_frames(
            [folder / p for p in tune.replay_test], data.keys
        )
    check_labels(census["train"], config.stages)
    if data.bucket:
        order = replace(order, sizes=tuple(len(f.atoms) for f in train))
    return TrainingData(train, validation, test, census, order, replay_test)


def check_labels(census: LabelCensus, stages: Sequence[StageConfig]) -> None:
    """Refuse to train on labels that no frame carries."""
    if census.count("energy") + census.count("forces") + census.count("stress") == 0:
        raise DatasetError(
            "the training files hold no label (no energy, forces or stress under any known key); "
            "name the keys in [data.keys]"
        )
    for label in ("energy", "forces", "stress"):
        wanted = any(getattr(s.loss, label) > 0 for s in stages)
        if wanted and census.count(label) == 0:
            raise DatasetError(
                f"the loss asks for {label}, but no training frame carries it; name its key in "
                f"[data.keys], or set its loss weight to 0"
            )


def prepare_all(frames: Sequence[LabelledFrame], config: TrainConfig) -> list[Batch]:
    """Frames as the model of a configuration needs them."""
    model = config.model
    conditions = isinstance(model, PETConfig) and model.system_conditioning
    return [prepare(f, model.cutoff, conditions=conditions) for f in frames]
