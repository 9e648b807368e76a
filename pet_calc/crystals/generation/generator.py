"""A trained UniMat generator: from a composition to crystals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor

from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.diffusion.occupancy import OccupancyModel
from pet_calc.crystals.diffusion.sampler import guided, sample
from pet_calc.crystals.diffusion.schedule import CosineSchedule
from pet_calc.crystals.diffusion.sparse import (
    N_LATTICE,
    Slots,
    UniMatSparse,
    crystals_from,
    from_diffusion,
)
from pet_calc.crystals.generation.composition import Composition
from pet_calc.crystals.generation.geometry_window import GeometryWindow
from pet_calc.crystals.io.generators import load_generator
from pet_calc.crystals.io.unimat import atoms_from_crystal
from pet_calc.errors import InvalidStructureError
from pet_calc.pretrained.index import find_shipped, unknown_name

#: How often a proposal out of bounds is drawn at most.
ATTEMPTS = 3
#: Crystals denoised in one call of the model.
BATCH = 128


@dataclass(frozen=True, eq=False)
class Generator:
    """A denoiser in memory.

    Attributes
    ----------
    name : str
    model : UniMatSparse
    config : dict
        Content of its ``config.json``.
    occupancy : OccupancyModel, optional
        Chooses compositions where none is given.
    """

    name: str
    model: UniMatSparse = field(repr=False)
    config: dict[str, Any] = field(repr=False)
    occupancy: OccupancyModel | None = field(default=None, repr=False)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Generator:
        """A shipped generator by name (``"unimat-mp"`` is the newest version), or a folder.

        Raises
        ------
        PotentialNotFoundError, IntegrityError, CheckpointError
        """
        path = Path(name_or_path)
        entry = find_shipped(name_or_path, "generator") if isinstance(name_or_path, str) else None
        if entry is None and not path.is_dir():
            raise unknown_name(str(name_or_path), "generator")
        folder, digests = (path, {}) if entry is None else (entry.folder, entry.sha256)
        model, occupancy, config = load_generator(folder, digests)
        return cls(str(folder) if entry is None else entry.name, model, config, occupancy)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return str(self.config["weights_sha256"])

    def knows(self, composition: Composition) -> bool:
        """Whether cells of this size were in the training; of one element, without occupancy."""
        most = max(k for _, k in composition.counts)
        if self.occupancy is not None and composition.n_atoms > self.occupancy.config.atoms:
            return False
        return most <= self.model.config.slots

    def compositions(
        self,
        n: int,
        *,
        seed: int,
        elements: Collection[str] | None = None,
        atoms: Collection[int] | None = None,
    ) -> list[Composition]:
        """Draw compositions from the occupancy model, the first of two stages.

        Parameters
        ----------
        n, seed : int
        elements : collection of str, optional
            Chemical symbols that may occur.
        atoms : collection of int, optional
            Wanted numbers of atoms in the cell.

        Raises
        ------
        ValueError
            If the generator has no occupancy model.
        SimulationError
            If too few are within the bounds.
        """
        if self.occupancy is None:
            raise ValueError(
                f"{self.name} has not learnt compositions; give a formula, or train it with a "
                "table [occupancy] (docs/generation.md)"
            )
        numbers = None if elements is None else [atomic_numbers[e] for e in elements]
        generator = torch.Generator().manual_seed(seed)
        found = self.occupancy.sample(n, generator, elements=numbers, atoms=atoms)
        return [Composition(counts) for counts in found]

    def sample(
        self,
        compositions: Composition | Sequence[Composition],
        n: int = 1,
        *,
        seed: int,
        sampler: SamplerConfig | None = None,
        window: GeometryWindow | None = None,
        attempts: int = ATTEMPTS,
    ) -> list[Atoms | Exception]:
        """`n` crystals of each composition, those of the first one first.

        Parameters
        ----------
        compositions : Composition or sequence of them
        n : int
        seed : int
            The same seed gives the same crystals.
        sampler : SamplerConfig, optional
        window : GeometryWindow, optional
            What is outside of it, or no crystal, is drawn again.
        attempts : int
            How often each is drawn at most, with a window.

        Returns
        -------
        list
            An error stands where the denoised entries are no crystal's.

        Raises
        ------
        ValueError
            If an element has more atoms than the model has slots.
        """
        sampler = sampler or SamplerConfig()
        single = [compositions] if isinstance(compositions, Composition) else list(compositions)
        most = self.model.config.slots
        for c in single:
            if max(k for _, k in c.counts) > most:
                raise ValueError(
                    f"{self.name} places at most {most} atoms of one element, but {c.formula} "
                    f"with {c.n_atoms} atoms has more; ask for fewer formula units"
                )
        jobs = [c for c in single for _ in range(n)]
        found: list[Atoms | Exception] = [InvalidStructureError("not sampled")] * len(jobs)
        generator = torch.Generator().manual_seed(seed)
        # batches of similar size waste little on padding
        wanted = sorted(range(len(jobs)), key=lambda j: jobs[j].n_atoms)
        for _ in range(1 if window is None else attempts):
            for begin in range(0, len(wanted), BATCH):
                part = wanted[begin : begin + BATCH]
                crystals = self._denoise([jobs[j] for j in part], sampler, generator)
                for j, crystal in zip(part, crystals, strict=True):
                    found[j] = crystal
            if window is not None:
                wanted = [j for j in wanted if outside(found[j], window)]
        return found

    def _denoise(
        self, compositions: list[Composition], sampler: SamplerConfig, generator: torch.Generator
    ) -> list[Atoms | Exception]:
        config = self.model.config
        occupied = Slots.of([c.numbers for c in compositions])
        tokens = occupied.mask.shape[1]
        start = torch.randn(len(compositions), tokens, 3, generator=generator)
        # coordinates within the cell, lattice within four widths
        bound = torch.full((tokens, 3), 1.0)
        bound[:N_LATTICE] = 4.0
        dropped = torch.ones(len(compositions), dtype=torch.bool)

        def conditioned(z: Tensor, logsnr: Tensor) -> Tensor:
            return self.model(z, logsnr, occupied)

        def free(z: Tensor, logsnr: Tensor) -> Tensor:
            return self.model(z, logsnr, occupied, dropped)

        with torch.inference_mode():
            clean = sample(
                guided(conditioned, free, sampler.guidance),
                start,
                CosineSchedule(config.high, config.low),
                sampler,
                bounds=(-bound, bound),
                generator=generator,
            )
        found: list[Atoms | Exception] = []
        for crystal in crystals_from(from_diffusion(clean), occupied):
            if isinstance(crystal, Exception):
                found.append(crystal)
                continue
            try:
                found.append(atoms_from_crystal(crystal))
            except InvalidStructureError as error:
                found.append(error)
        return found


def outside(proposal: Atoms | Exception, window: GeometryWindow) -> bool:
    """Whether a proposal is no crystal, or none that a window lets through."""
    return isinstance(proposal, Exception) or bool(window.objection(proposal))
