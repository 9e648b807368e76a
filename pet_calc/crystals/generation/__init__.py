"""Crystal generation: from a formula to ranked, relaxed and checked structures.

>>> from pet_calc.crystals.generation import Composition, Generator, propose_random
>>> crystals = Generator.load("unimat-mp").sample(Composition.of("NaCl", z=2), n=16, seed=0)
"""

from typing import TYPE_CHECKING

from pet_calc.lazy import lazy_names

if TYPE_CHECKING:
    from pet_calc.crystals.generation.composition import Composition
    from pet_calc.crystals.generation.generator import Generator
    from pet_calc.crystals.generation.geometry_window import GeometryWindow
    from pet_calc.crystals.generation.random_search import propose_random
    from pet_calc.crystals.generation.substitution import propose_substituted

__all__ = [
    "Composition",
    "Generator",
    "GeometryWindow",
    "propose_random",
    "propose_substituted",
]

__getattr__ = lazy_names(
    __name__, "composition", "geometry_window", "generator", "random_search", "substitution"
)
