"""``pet-calc evaluate``: errors of a potential on labeled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet_calc.cli.options import ConfigOption, Precision


def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Labeled structures, extended XYZ or other.")],
    model: Annotated[
        str, typer.Option(help="Name or path of a potential; auto picks one for the elements.")
    ] = "auto",
    dtype: Annotated[Precision, typer.Option(help="Precision of the potential.")] = "float32",
    rotations: Annotated[
        int, typer.Option(help="Random orientations to measure the error of symmetry with.")
    ] = 0,
    variant: Annotated[
        str | None,
        typer.Option(help="Energy head of a potential that has several.", show_default=False),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Errors of a potential on labeled structures, in total and per element.

    For a potential with uncertainties, also how well these fit the errors.

    Example: pet-calc evaluate DATA/water/test.extxyz.xz --model pet-water-v1
    """
    # torch is loaded only when it is needed
    from rich.console import Console

    from pet_calc import pretrained
    from pet_calc.calculators.validation import require_elements
    from pet_calc.cli.train import calibration_table, census_table, evaluation_table
    from pet_calc.errors import DatasetError
    from pet_calc.io.data.datasets import read_frames
    from pet_calc.io.models.uncertainty import find_uncertainty
    from pet_calc.models.pet import PET
    from pet_calc.training.potentials.data import prepare
    from pet_calc.training.potentials.evaluate import evaluate_frames, rotation_error
    from pet_calc.training.potentials.uncertainty import calibration_error
    from pet_calc.workflows.progress import pulsing, tracked

    console = Console()
    if model != "auto":  # a wrong name is told before the files are read
        pretrained.resolve(model)
    with pulsing("reading"):
        frames, census = read_frames(files)
    console.print(census_table({"evaluated": census}))
    if model == "auto":
        model = pretrained.choose_for({frozenset(f.atoms.symbols) for f in frames}).name
        console.print(f"potential: {model}", highlight=False)
    potential = pretrained.load(model, dtype=dtype)
    network = potential.model
    if variant is not None:
        if not isinstance(network, PET):
            raise ValueError(f"`--variant` needs a PET, and {potential.name} is none")
        network = network.with_energy_head(variant)
    if not any(census.count(label) for label in ("energy", "forces", "stress")):
        raise DatasetError("the files hold no label to compare with (energy, forces or stress)")
    state = isinstance(network, PET) and network.config.system_conditioning
    prepared = [prepare(f, network.cutoff, state=state) for f in tracked(frames, "neighbors")]
    for frame in frames:
        require_elements(frame.atoms, network.atomic_numbers, f"the potential {potential.name}")
    progress = tracked(prepared, potential.name)
    console.print(evaluation_table({"evaluated": evaluate_frames(network, progress)}))
    if rotations:
        progress = tracked(prepared, f"{rotations} orientations")
        spread = rotation_error(network, progress, rotations)
        console.print(
            f"standard deviation under rotation and reflection: energy {spread.energy:.3f} "
            f"meV/atom, forces {spread.forces:.2f} meV/Å"
        )
    if potential.folder is None or not isinstance(network, PET):
        return
    llpr = find_uncertainty(potential.folder, network.energy_head)
    if llpr is not None and census.count("energy"):
        progress = tracked(prepared, "uncertainties")
        console.print(calibration_table({"evaluated": calibration_error(network, llpr, progress)}))
