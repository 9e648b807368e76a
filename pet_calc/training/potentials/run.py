"""The mutable state of a training run, and what one step does to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pet_calc.errors import CheckpointError
from pet_calc.io.data.datasets import LabeledFrame
from pet_calc.io.models.weights import empty_model
from pet_calc.models import evaluate
from pet_calc.models.architectures import TrainableModel
from pet_calc.models.pet import PET
from pet_calc.training.core.optimizers import make_optimizer, take_step
from pet_calc.training.core.parallel import ALONE, Team
from pet_calc.training.core.weight_average import start_average, update_exponential
from pet_calc.training.potentials.config import HuberConfig, LossConfig, StageConfig, TrainConfig
from pet_calc.training.potentials.data import Batch, energy_shift, turned
from pet_calc.training.potentials.evaluate import Error, Evaluation, evaluate_frames
from pet_calc.training.potentials.frame_order import Order
from pet_calc.training.potentials.initial_model import constants, starting_model
from pet_calc.training.potentials.lora import merged_state
from pet_calc.training.potentials.losses import LabelCounts, direct_loss, squares
from pet_calc.training.potentials.losses import loss as loss_of
from pet_calc.training.potentials.splits import by_level

LOG_COLUMNS: Final = (
    "step", "stage", "learning_rate", "loss", "train_forces_rmse",
    "validation_energy_mae", "validation_forces_rmse", "validation_stress_rmse",
)  # fmt: skip


class Run:
    """The mutable state of a training run: weights, optimizer, average, best weights, step.

    Parameters
    ----------
    config : TrainConfig
    model : PET or Crystalformer
        With reference energies and energy scale set.
    team : Team
        Processes that share the work.
    """

    def __init__(self, config: TrainConfig, model: TrainableModel, team: Team = ALONE) -> None:
        self.config, self.team = config, team
        self.step = 0
        self.forces_rmse = float("nan")
        self.best_loss = float("inf")
        self.best: dict[str, Tensor] | None = None
        self.model = model
        self.begin_stage(0)

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        frames: Sequence[LabeledFrame],
        prepared: Sequence[Batch],
        team: Team = ALONE,
    ) -> Run:
        """A fresh run from `starting_model`."""
        return cls(config, starting_model(config, frames, prepared), team)

    def begin_stage(self, stage: int) -> None:
        """Set up optimizer and average of a stage."""
        self.stage = stage
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(trained, self.config.optimizer)
        self.average = start_average(self.model)
        self.best_loss, self.best = float("inf"), None

    def advance(self, frames: Sequence[Batch], order: Order | None = None) -> tuple[float, float]:
        """One optimizer step; returns the loss and the learning rate.

        Parameters
        ----------
        frames : sequence of Batch
        order : Order, optional
            Which of them an epoch sees; by default each once.
        """
        order = order or Order(tuple(range(len(frames))))
        stage_index, k = self.config.stage_at(self.step)
        if stage_index != self.stage:
            self.model.load_state_dict(self.best or self.average, strict=False)
            self.begin_stage(stage_index)
        if k == 0:
            self.align_energies(frames)
        stage = self.config.stages[stage_index]
        weights = stage.loss_at(k)
        rate = stage.rate_at(k)
        size = stage.batch_size * stage.accumulate * self.team.size
        parts = [frames[k] for k in order.step(self.step, size, self.config.seed)]
        if self.config.augment:
            parts = turned(parts, self.step, self.config.seed)
        counts = LabelCounts.of(parts)
        self.optimizer.zero_grad()
        sums = torch.zeros(2, dtype=torch.float64)  # loss, squares of force errors
        for part, draw in self.team.share(self.batches(stage, parts)):
            value, squared = self.backward(part, draw, weights, counts)
            sums += torch.stack([value, squared])
        total, squared = self.team.total(sums).tolist()
        self.team.add_gradients(self.model.parameters())
        take_step(
            self.optimizer,
            self.model.parameters(),
            total,
            rate=rate,
            clip=self.config.optimizer.gradient_clip,
            when=f"at step {self.step}",
        )
        update_exponential(self.average, self.model, k, self.config.optimizer.ema_decay)
        error = 1e3 * math.sqrt(squared / counts.forces)
        self.forces_rmse = error if k == 0 else 0.98 * self.forces_rmse + 0.02 * error
        self.step += 1
        return total, rate

    def batches(
        self, stage: StageConfig, parts: Sequence[Batch]
    ) -> list[tuple[list[Batch], Tensor | None]]:
        """The frames of a step in batches that are computed at once, not joined yet.

        Where a stage draws one frame of each atom's ensemble, the random numbers (n_atoms,) that
        choose come with them.
        """
        sampled = (
            isinstance(self.model, PET)
            and self.model.config.ecse != "none"
            and stage.frames == "sampled"
        )
        generator = np.random.default_rng((self.config.seed, 3, self.step))
        found = []
        chunks = [
            parts[begin : begin + stage.batch_size]
            for begin in range(0, len(parts), stage.batch_size)
        ]
        # apart, as an energy alone costs a third of an energy with derivatives
        groups = [[f for f in c if f.has_derivatives is d] for c in chunks for d in (True, False)]
        for frames in filter(None, groups):
            n_atoms = sum(f.system.n_atoms for f in frames)
            draw = torch.from_numpy(generator.random(n_atoms)) if sampled else None
            found.append((frames, draw))
        return found

    def backward(
        self, frames: list[Batch], draw: Tensor | None, weights: LossConfig, counts: LabelCounts
    ) -> tuple[Tensor, Tensor]:
        """Add the gradient of a batch; its part of the loss and its sum of squared force errors."""
        batch = Batch.concatenate(frames)
        derivatives = batch.has_derivatives
        if not derivatives and weights.energy == 0:  # nothing of these frames is learnt
            return torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        results = evaluate(
            self.model,
            replace(batch.system, frame_draw=draw),
            batch.edges,
            forces=derivatives,
            stress=derivatives and (weights.stress > 0 or batch.rise is not None),
            create_graph=True,
        )
        huber = self.config.huber
        value = loss_of(results, batch, weights, counts, huber)
        if isinstance(self.model, PET) and self.model.direct:
            value = value + direct_loss(self.model, batch, weights, counts, huber)
        value.backward()
        if results.forces is None:
            return value.detach(), torch.zeros((), dtype=torch.float64)
        return value.detach(), squares(results.forces.detach() - batch.forces, batch.forces)

    def align_energies(self, frames: Sequence[Batch]) -> None:
        """Shift the reference energies by the model's mean error, by least squares.

        Done as a stage begins: an offset left to the optimizer costs it thousands of steps, or
        drowns the forces.
        """
        for head, part in by_level(self.model, frames):
            constants(head)[0].add_(energy_shift(self.model, part, self.team))

    def validate(self, frames: Sequence[Batch]) -> Evaluation:
        """Errors of the averaged weights; keeps them if they are the best of the stage."""
        w = self.config.stages[self.stage].last_loss
        evaluation = evaluate_frames(self.averaged(self.average), frames, self.team)
        limits = self.config.huber or HuberConfig()
        terms = (
            (w.energy, evaluation.energy, limits.energy),
            (w.forces, evaluation.forces, limits.forces),
            (w.stress, evaluation.stress, limits.stress),
        )
        total = sum(weight * penalty(e, d) for weight, e, d in terms if weight > 0 and e.count)
        if total < self.best_loss:
            self.best_loss = total
            self.best = {name: t.clone() for name, t in self.average.items()}
        return evaluation

    def averaged(self, weights: dict[str, Tensor]) -> TrainableModel:
        """A frozen copy of the potential with other weights, updates of low rank merged."""
        tuned = copy.deepcopy(self.model)
        tuned.load_state_dict(weights, strict=False)
        model = empty_model(self.config.model, self.model.dtype)
        model.load_state_dict(merged_state(tuned))
        return model.requires_grad_(False)

    def best_model(self) -> TrainableModel:
        """A frozen copy of the potential with the best averaged weights."""
        return self.averaged(self.best or self.average)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "config": self.config.to_dict(),
            "processes": self.team.size,
            "step": self.step,
            "stage": self.stage,
            "forces_rmse": self.forces_rmse,
            "best_loss": self.best_loss,
            "best": self.best,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint of the same configuration."""
        processes = state["processes"]
        if processes != self.team.size:
            raise CheckpointError(
                f"a run goes on with as many processes as it began with, as they share the frames "
                f"of a step: {path} belongs to {processes}, but there are {self.team.size}"
            )
        self.begin_stage(state["stage"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step = state["step"]
        self.forces_rmse = state["forces_rmse"]
        self.best_loss, self.best = state["best_loss"], state["best"]

    def log_row(self, value: float, rate: float, evaluation: Evaluation) -> dict[str, float]:
        """A row of the log, under `LOG_COLUMNS`; errors in meV, Å."""
        values = (
            self.step, self.stage, rate, value, self.forces_rmse,
            evaluation.energy.mae, evaluation.forces.rmse, evaluation.stress.rmse,
        )  # fmt: skip
        return dict(zip(LOG_COLUMNS, values, strict=True))


def penalty(error: Error, delta: float | None) -> float:
    """What an error on validation frames adds to the loss that chooses the best weights, meV, Å.

    The mean square, or with a Huber limit `delta` (eV) what the mean absolute error bounds
    Huber's loss by, where that is less.
    """
    if delta is None:
        return error.rmse**2
    return min(error.rmse**2, 2e3 * delta * error.mae)
