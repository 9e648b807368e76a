"""What a generation is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from pet_calc.diffusion.sampler import SamplerConfig
from pet_calc.generation.composition import Composition
from pet_calc.generation.geometry_window import GeometryWindow
from pet_calc.workflows.relax import RelaxConfig

#: Proposals that need no trained model.
BASELINES = ("substitution", "random")


def default_relaxation() -> RelaxConfig:
    """Cell and positions, to what ranking needs."""
    return RelaxConfig(cell="free", fmax=0.03, steps=300, seconds=300.0)


@dataclass(frozen=True)
class GenerateConfig:
    """Settings of a generation.

    Attributes
    ----------
    formula : str
        Of one formula unit; several separated by commas, or a chemical system such as ``Na-Cl``.
    z : tuple of int
        Formula units per cell.
    n : int
        Candidates in all.
    sources : tuple of str
        "substitution", "random", or name or folder of a generator. Substitution gives as many as
        it has structure types, at most its share; the others divide the rest.
    seed : int
    sampler : SamplerConfig
        Of the generators.
    window : GeometryWindow
        Proposals outside of it are not relaxed.
    symprec : float
        Symmetry found within so many Å is imposed on proposals before their relaxation, and
        reported after it; 0 leaves proposals as they are.
    space_groups : tuple of int
        Numbers of the space groups wanted after the relaxation; empty for any.
    relax : RelaxConfig
    duplicate : float
        Structures whose fingerprints differ by less are one (see `fingerprint.distance`).
    phonons, md : int
        How many of the best to test by phonons, and to run in molecular dynamics.
    md_steps : int
    temperature : float
        K.
    md_ensemble : str
        As in `MDConfig`.
    """

    formula: str
    z: tuple[int, ...] = (1, 2, 4)
    n: int = 64
    sources: tuple[str, ...] = BASELINES
    seed: int = 0
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    window: GeometryWindow = field(default_factory=GeometryWindow)
    symprec: float = 0.1
    space_groups: tuple[int, ...] = ()
    relax: RelaxConfig = field(default_factory=default_relaxation)
    duplicate: float = 0.02
    phonons: int = 0
    md: int = 0
    md_steps: int = 1000
    temperature: float = 300.0
    md_ensemble: str = "nvt-langevin"

    def __post_init__(self) -> None:
        _ = self.compositions
        if self.n < 1 or min(self.phonons, self.md, self.seed) < 0:
            raise ValueError(
                f"`n` must be at least 1, `phonons`, `md` and `seed` not negative, got {self.n}, "
                f"{self.phonons}, {self.md}, {self.seed}"
            )
        if not self.sources or not self.z:
            raise ValueError("at least one source and one number of formula units are needed")
        if any(not 1 <= g <= 230 for g in self.space_groups):
            raise ValueError(f"space groups are numbered 1 to 230, got {self.space_groups}")
        if self.symprec < 0 or self.duplicate <= 0:
            raise ValueError("`symprec` must not be negative, `duplicate` must be positive")

    @property
    def compositions(self) -> tuple[Composition, ...]:
        """Every formula with every number of formula units."""
        return tuple(c for z in self.z for c in Composition.all_of(self.formula, z))

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols of all compositions."""
        return tuple(dict.fromkeys(s for c in self.compositions for s in c.elements))
