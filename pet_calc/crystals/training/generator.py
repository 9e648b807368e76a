"""Training of a composition-conditioned `UniMatSparse` on crystals.

``python -m pet_calc.crystals.training.generator train.toml --data DATA --out RUN`` trains,
goes on from the last checkpoint when called again, and leaves the generator in ``RUN/model``.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
from pet_calc.training.core.checkpoint import load_checkpoint, save_checkpoint
from pet_calc.training.core.schedule import learning_rate
from pet_calc.training.core.weight_average import start_average, update_average
from pet_calc.training.potentials.config import StageConfig

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.csv"
#: Batches are made of crystals of similar size out of so many batches' worth.
BUCKET = 32


@dataclass(frozen=True)
class GeneratorConfig:
    """A training, as its TOML file describes it.

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

    @classmethod
    def from_toml(cls, path: Path) -> GeneratorConfig:
        """Read a file; unknown keys are errors."""
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        try:
            table["model"] = SparseConfig(**table.get("model", {}))
            table["files"] = tuple(table.get("files", ()))
            config = cls(**table)
        except TypeError as error:
            raise ValueError(f"{path} does not describe a training: {error}") from error
        if not config.files or config.steps < 1 or config.batch < 1:
            raise ValueError(f"{path} must name files, and positive steps and batch")
        return config


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
    data: Path,
    out: Path,
    *,
    checkpoint_seconds: float = 60.0,
    finish_by: float | None = None,
) -> Path:
    """Train, or go on with a training, and write the generator of the averaged weights.

    Parameters
    ----------
    config : GeneratorConfig
    data, out : Path
        Folder of the crystals; folder of the run.
    checkpoint_seconds : float
        Time between checkpoints.
    finish_by : float, optional
        Value of ``time.time()`` at which to stop with a checkpoint.

    Returns
    -------
    Path
        The generator's folder, ``out/model``.
    """
    out.mkdir(parents=True, exist_ok=True)
    crystals = [
        c
        for name in config.files
        for c in read_crystals(data / name)
        if config.atoms is None or len(c.numbers) <= config.atoms
    ]
    if config.niggli:
        crystals = [crystal_from_atoms(niggli_reduced(atoms_from_crystal(c))) for c in crystals]
    examples = Examples.of(crystals)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = UniMatSparse(config.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    average = start_average(model)
    step, losses, spent = 0, [], 0.0
    checkpoint = out / CHECKPOINT
    if checkpoint.is_file():
        state = load_checkpoint(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, spent = state["average"], state["step"], state["seconds"]
        # an interrupted epoch begins anew, with numbers that no earlier step has used
        generator.manual_seed(config.seed + step)
    rates = StageConfig(
        steps=config.steps,
        warmup_steps=config.warmup,
        learning_rate=config.learning_rate,
        final_learning_rate=0.01 * config.learning_rate,
    )
    started = saved = time.time()

    def write() -> None:
        total = spent + time.time() - started
        save_checkpoint(
            checkpoint,
            {
                "model": dict(model.state_dict()),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step,
                "seconds": total,
            },
        )
        final = UniMatSparse(config.model)
        final.load_state_dict(average)
        record = {**asdict(config), "crystals": len(crystals), "steps_done": step,
                  "seconds": round(total)}  # fmt: skip
        save_generator(out / "model", final, record)

    stop = False
    while step < config.steps and not stop:
        for index in batches(examples, config.batch, generator):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rates, step)
            x, occupied = examples.batch(index)
            loss = diffusion_loss(model, x, occupied, config.drop, generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            update_average(average, model, step, config.average)
            step += 1
            losses.append(loss.item())
            now = time.time()
            if step % 100 == 0:
                with (out / LOG).open("a", encoding="utf-8") as log:
                    log.write(f"{step},{np.mean(losses):.5f},{spent + now - started:.1f}\n")
                losses.clear()
            stop = finish_by is not None and now > finish_by
            if now > saved + checkpoint_seconds:
                write()
                saved = now
            if step == config.steps or stop:
                break
    write()
    return out / "model"


def main(arguments: list[str] | None = None) -> None:
    """Entry of ``python -m pet_calc.crystals.training.generator``."""
    parser = argparse.ArgumentParser(description="Train a UniMat generator of crystals.")
    parser.add_argument("config", type=Path, help="TOML file of the training")
    parser.add_argument("--data", type=Path, required=True, help="folder of the crystals")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, help="stop with a checkpoint after so long")
    options = parser.parse_args(arguments)
    end = None if options.minutes is None else time.time() + 60 * options.minutes
    config = GeneratorConfig.from_toml(options.config)
    train_generator(config, options.data, options.out, finish_by=end)


if __name__ == "__main__":
    main()
