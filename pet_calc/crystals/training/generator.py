"""Training of a composition-conditioned `UniMatSparse` on crystals.

With a table ``[occupancy]`` the generator learns afterwards to choose compositions itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from pet_calc.crystals.diffusion.schedule import CosineSchedule, add_noise
from pet_calc.crystals.diffusion.sparse import (
    N_LATTICE,
    Slots,
    SparseConfig,
    UniMatSparse,
    to_diffusion,
)
from pet_calc.crystals.diffusion.unimat import Crystal, canonical, lattice_entries, slots_of
from pet_calc.crystals.io.generators import save_generator
from pet_calc.crystals.io.unimat import (
    atoms_from_crystal,
    crystal_from_atoms,
    niggli_reduced,
    read_crystals,
)
from pet_calc.crystals.training.occupancy import OccupancyTraining, occupancies, train_occupancy
from pet_calc.errors import DatasetError
from pet_calc.io.runs.outputs import claim_folder
from pet_calc.training.core.checkpoint import (
    CHECKPOINT,
    CheckpointTimer,
    resumed_state,
    save_checkpoint,
)
from pet_calc.training.core.config_reader import build, read_toml, require_sections
from pet_calc.training.core.figures import learning_figure, write_figure
from pet_calc.training.core.log import LOG, append_log, truncate_log
from pet_calc.training.core.optimizers import take_step
from pet_calc.training.core.schedule import warmup_cosine
from pet_calc.training.core.weight_average import start_average, update_exponential

LOG_COLUMNS: Final = ("step", "loss", "seconds")
#: Steps between rows of the log.
LOG_INTERVAL: Final = 100
#: Batches are made of crystals of similar size out of so many batches' worth.
BUCKET: Final = 32


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that determines a training of a generator.

    Attributes
    ----------
    name : str
        Of the generator.
    files : tuple of str
        Crystals, relative to the data folder.
    steps, batch : int
        Steps, and crystals in each.
    learning_rate : float
        Peak of AdamW's rate, reached after `warmup` steps, then half a cosine to 1 % of it.
    warmup : int
    average : float
        Decay of the exponential moving average of the weights.
    drop : float
        Probability to hide the composition, for classifier-free guidance.
    seed : int
    niggli : bool
        Describe the crystals in their Niggli-reduced cells; not needed where they are already.
    atoms : int, optional
        Crystals with more are left out.
    model : SparseConfig
    occupancy : OccupancyTraining, optional
        Learn the compositions of the crystals too, at the end.
    """

    name: str
    files: tuple[str, ...]
    steps: int
    batch: int = 256
    learning_rate: float = 1e-3
    warmup: int = 200
    average: float = 0.999
    drop: float = 0.1
    seed: int = 0
    niggli: bool = True
    atoms: int | None = None
    model: SparseConfig = field(default_factory=SparseConfig)
    occupancy: OccupancyTraining | None = None

    def __post_init__(self) -> None:
        if not self.files or self.steps < 1 or self.batch < 1:
            raise ValueError(
                f"a generator needs `files`, and positive `steps` and `batch`, got "
                f"{list(self.files)}, {self.steps} and {self.batch}"
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, 0-based."""
        peak = self.learning_rate
        return warmup_cosine(
            step, steps=self.steps, warmup=self.warmup, peak=peak, final=0.01 * peak
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """From the tables of a TOML file; unknown names are refused."""
        require_sections(values, ("name", "files", "steps"))
        values = values | {"model": build(SparseConfig, values.get("model", {}), "model")}
        if "occupancy" in values:
            values["occupancy"] = build(OccupancyTraining, values["occupancy"], "occupancy")
        return build(cls, values, "the top level")

    @classmethod
    def from_toml(cls, path: Path | str) -> GeneratorConfig:
        """From a TOML file."""
        return cls.from_dict(read_toml(path))


@dataclass(frozen=True, eq=False)
class Examples:
    """Crystals in their canonical description, padded.

    Attributes
    ----------
    numbers, slots : (S, N) int64 Tensors
    values : (S, 2 + N, 3) Tensor
        Entries of M as they are diffused.
    """

    numbers: Tensor
    slots: Tensor
    values: Tensor

    @classmethod
    def of(cls, crystals: list[Crystal]) -> Examples:
        """Put crystals into their canonical description."""
        longest = max(len(c.numbers) for c in crystals)
        numbers = np.zeros((len(crystals), longest), dtype=np.int64)
        slots = np.zeros_like(numbers)
        entries = np.full((len(crystals), N_LATTICE + longest, 3), 0.5)
        for k, crystal in enumerate(crystals):
            c, n = canonical(crystal), len(crystal.numbers)
            numbers[k, :n], slots[k, :n] = c.numbers, slots_of(c.numbers)
            entries[k, 0], entries[k, 1] = lattice_entries(c.cellpar, n)
            entries[k, N_LATTICE : N_LATTICE + n] = c.fractional
        values = to_diffusion(torch.from_numpy(entries)).float()
        return cls(torch.from_numpy(numbers), torch.from_numpy(slots), values)

    def batch(self, index: Tensor) -> tuple[Tensor, Slots]:
        """Values and slots of some crystals, padded to the largest of them."""
        n = int((self.numbers[index] > 0).sum(1).max())
        occupied = Slots(self.numbers[index, :n], self.slots[index, :n])
        return self.values[index, : N_LATTICE + n], occupied


def batches(examples: Examples, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of one epoch's batches, each of crystals of similar size."""
    n_atoms = (examples.numbers > 0).sum(1)
    shuffled = torch.randperm(len(n_atoms), generator=generator)
    found: list[Tensor] = []
    for chunk in shuffled.split(BUCKET * size):
        found += chunk[n_atoms[chunk].argsort(stable=True)].split(size)
    for k in torch.randperm(len(found), generator=generator).tolist():
        yield found[k]


def diffusion_loss(
    model: UniMatSparse, x: Tensor, occupied: Slots, drop: float, generator: torch.Generator
) -> Tensor:
    """Mean squared error over all tokens that exist, at stratified random times.

    Of ε, or of v = α ε − σ x (T. Salimans and J. Ho, ICLR 2022) for models whose form is above 1;
    the error of ε is α times that of v.
    """
    schedule = CosineSchedule(model.config.high, model.config.low)
    b = len(x)
    t = (torch.arange(b) + torch.rand(b, generator=generator)) / b
    logsnr = schedule.logsnr(t.clamp(1e-5, 1.0)[torch.randperm(b, generator=generator)])
    noise = torch.randn(x.shape, generator=generator)
    dropped = torch.rand(b, generator=generator) < drop
    predicted = model(add_noise(x, noise, logsnr), logsnr, occupied, dropped)
    mask = occupied.mask[..., None]
    if model.config.form > 1:
        mask = mask / torch.sigmoid(logsnr)[:, None, None]
        return (((predicted - noise) ** 2) * mask).sum() / (3 * occupied.mask.sum())
    return (((predicted - noise) ** 2) * mask).sum() / (3 * mask.sum())


def train_generator(
    config: GeneratorConfig,
    out: Path,
    data: Path,
    *,
    report: Callable[[int, float], None] = lambda step, loss: None,
    checkpoint_seconds: float = 120.0,
    stop_after: int | None = None,
) -> Path | None:
    """Train, or go on with a training, and write the generator of the averaged weights.

    Parameters
    ----------
    config : GeneratorConfig
    out, data : Path
        Folder of the run, and of the crystals. The run leaves ``model/``, ``log.csv`` and
        ``learning.png``.
    report : callable
        Called with the number of steps done and the loss after each of them.
    checkpoint_seconds : float
        Least time between checkpoints.
    stop_after : int, optional
        Stop with a checkpoint after so many steps over all.

    Returns
    -------
    Path or None
        The generator's folder, ``out/model``; None if stopped before the end.

    Raises
    ------
    CheckpointError
        If `out` holds a run of another configuration.
    DatasetError
        If there are no crystals.
    SimulationError
        If the loss is no longer finite.
    """
    timer = CheckpointTimer(checkpoint_seconds)
    crystals = crystals_of(config, data)
    claim_folder(out, ())
    run = GeneratorRun(config, Examples.of(crystals), out)
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    if run.step < end:
        for index in run.batches():
            report(run.step + 1, run.advance(index))
            if run.step == end or timer.due():
                save_checkpoint(out / CHECKPOINT, run.state())
            if run.step == end:
                break
    if run.step < config.steps:
        return None
    if (out / LOG).is_file():
        panels = {"loss": {"loss": "training"}}
        write_figure(learning_figure(out / LOG, panels, title=config.name), out / "learning.png")
    details = asdict(config) | {
        "crystals": len(crystals), "steps_done": run.step, "seconds": round(run.seconds)
    }  # fmt: skip
    occupancy = None
    if config.occupancy is not None:
        occupancy = train_occupancy(
            occupancies(crystals), config.occupancy, slots=config.model.slots
        )
    save_generator(out / "model", run.averaged_model(), details, occupancy)
    return out / "model"


def crystals_of(config: GeneratorConfig, folder: Path) -> list[Crystal]:
    """The crystals to train on."""
    crystals = [
        c
        for name in config.files
        for c in read_crystals(folder / name)
        if config.atoms is None or len(c.numbers) <= config.atoms
    ]
    if not crystals:
        raise DatasetError(
            f"a generator needs crystals, but {', '.join(config.files)} hold none of at most "
            f"{config.atoms} atoms"
        )
    if not config.niggli:
        return crystals
    return [crystal_from_atoms(niggli_reduced(atoms_from_crystal(c))) for c in crystals]


class GeneratorRun:
    """The state of a training: model, optimizer, average, step and time.

    Parameters
    ----------
    config : GeneratorConfig
    examples : Examples
    out : Path
        Folder of the run, from whose checkpoint it goes on.
    """

    def __init__(self, config: GeneratorConfig, examples: Examples, out: Path) -> None:
        self.config, self.examples, self.out = config, examples, out
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = UniMatSparse(config.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=1e-4
        )
        self.average = start_average(self.model)
        self.step, self.before, self.losses = 0, 0.0, list[float]()
        # what is learnt at the end may change until then
        if state := resumed_state(out / CHECKPOINT, asdict(config), changeable=("occupancy",)):
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step = state["average"], state["step"]
            self.before = state["seconds"]
            # an interrupted epoch begins anew, with numbers that no earlier step has used
            self.generator.manual_seed(config.seed + self.step)
        truncate_log(out / LOG, LOG_COLUMNS, self.step)
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent, over all interruptions."""
        return self.before + time.monotonic() - self.began

    def batches(self) -> Iterator[Tensor]:
        """Indices of batches, epoch by epoch without an end."""
        while True:
            yield from batches(self.examples, self.config.batch, self.generator)

    def advance(self, index: Tensor) -> float:
        """One optimizer step on the crystals of a batch; returns the loss."""
        config = self.config
        x, occupied = self.examples.batch(index)
        loss = diffusion_loss(self.model, x, occupied, config.drop, self.generator)
        self.optimizer.zero_grad()
        loss.backward()
        value = loss.item()
        take_step(
            self.optimizer,
            self.model.parameters(),
            value,
            rate=config.rate_at(self.step),
            clip=1.0,
            when=f"at step {self.step}",
        )
        update_exponential(self.average, self.model, self.step, config.average)
        self.step += 1
        self.losses.append(value)
        if self.step % LOG_INTERVAL == 0 or self.step == config.steps:
            numbers = (self.step, round(float(np.mean(self.losses)), 5), round(self.seconds, 1))
            append_log(self.out / LOG, dict(zip(LOG_COLUMNS, numbers, strict=True)))
            self.losses.clear()
        return value

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }

    def averaged_model(self) -> UniMatSparse:
        """The model with the averaged weights."""
        model = UniMatSparse(self.config.model)
        model.load_state_dict(self.average)
        return model
