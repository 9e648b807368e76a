"""Molecular dynamics from a structure to its files, begun or continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from pet_calc.io.runs.outputs import claim_folder, clear_folder
from pet_calc.workflows.guards import Guard
from pet_calc.workflows.md import checkpoint as checkpoints
from pet_calc.workflows.md.checkpoint import CHECKPOINT
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.log import Estimate, MDLog, MDSample, block_mean, drift_per_atom
from pet_calc.workflows.md.records import LOG, TRAJECTORY, Mark, Records
from pet_calc.workflows.md.run import LAST_GOOD, Observer, Run

OUTPUT_FILES = (TRAJECTORY, LOG, LAST_GOOD, CHECKPOINT)


@dataclass(frozen=True, eq=False)
class MDResult:
    """What a finished run leaves.

    Attributes
    ----------
    config : MDConfig
        Settings of the run.
    atoms : ase.Atoms
        The last frame, with the calculator.
    log : MDLog
        Samples, also in `log_file`.
    n_dof : int
        Degrees of freedom that the temperature counts.
    mean_temperature : Estimate
        K, with the standard error of block means.
    drift : Estimate
        Slope of the conserved energy, meV/atom/ps, with its standard error.
    ns_per_day : float
        Speed over the whole run, file writing included; NaN without steps. After a continuation
        that of the part that was added.
    trajectory_file, log_file : Path
        ASE trajectory (positions, momenta, energies, forces) and CSV.
    """

    config: MDConfig
    atoms: Atoms
    log: MDLog
    n_dof: int
    mean_temperature: Estimate
    drift: Estimate
    ns_per_day: float
    trajectory_file: Path
    log_file: Path


def run_md(
    atoms: Atoms,
    config: MDConfig,
    folder: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    on_step: Callable[[MDSample], None] | None = None,
    observers: Sequence[Observer] = (),
) -> MDResult:
    """Run molecular dynamics and write its trajectory and log.

    The structure given is not changed: the run works on a copy that shares the calculator. Every
    step is checked by the guards (:class:`~pet_calc.workflows.guards.GuardConfig`).

    Parameters
    ----------
    atoms : ase.Atoms
        Structure with a calculator attached.
    config : MDConfig
        Settings.
    folder : Path or str
        Receives ``trajectory.traj`` (every `frame_interval` steps, and the last one),
        ``log.csv`` (every `log_interval` steps, and the last one) and ``checkpoint.npz``;
        ``last_good.traj`` if the run is stopped. It is created and tried for writing before the
        calculator is called.
    overwrite : bool
        Replace these files if they exist; otherwise they are an error.
    resume : bool
        Continue the run in `folder` from its checkpoint, given the structure, potential and
        settings that it began with; `config.steps` is the length of the whole run and may be
        raised. Trajectory and log are cut back to the checkpoint first, so that no frame is lost
        or written twice. A folder without any of the files starts from the beginning.
    on_step : callable, optional
        Called with the sample of every step, step 0 included; see :class:`MDProgress`.
    observers : sequence of Observer
        Further functions, called with the atoms every so many steps.

    Raises
    ------
    InvalidStructureError
        Zero atoms, non-finite positions, zero cell with periodicity, touching atoms, or distances
        far below those of the training.
    UnsupportedElementError
        An element that the potential does not cover.
    ValueError
        A limit on an uncertainty that the calculator does not give.
    OutputError
        The folder is not writable or holds an earlier run.
    CheckpointError
        The run cannot be continued: its checkpoint is absent or damaged, or structure, potential
        or settings are not those that it began with.
    SimulationStopped
        A guard fired, or the calculator failed, after the start.
    """
    if atoms.calc is None:
        raise ValueError("`atoms` must carry a calculator; set atoms.calc before run_md")
    if resume and overwrite:
        raise ValueError("`resume` keeps the run that `overwrite` would replace; give one of them")
    guard = Guard.at_start(atoms, config.guards)
    folder = Path(folder)
    saved = None
    if resume and any((folder / name).exists() for name in OUTPUT_FILES):
        saved = checkpoints.load_checkpoint(folder / CHECKPOINT)
        config = checkpoints.continued_config(saved, config)
        checkpoints.require_same_structure(saved, atoms)
    folder = claim_folder(folder, OUTPUT_FILES, overwrite=overwrite or saved is not None)

    run = Run(atoms, config, guard, folder, on_step, observers)
    if saved is None:
        run.begin()
        # the first calculation came before: one that fails leaves earlier results in place
        clear_folder(folder, OUTPUT_FILES)
        run.save(0, Mark())
    else:
        run.restore(saved)
    mark = Mark() if saved is None else saved.mark
    with Records(folder, mark) as run.records:
        run.simulate(0 if saved is None else saved.step, fresh=mark.empty)

    # samples are kept in the file alone: the memory of a run does not grow with its length
    log = MDLog.read(folder / LOG)
    return MDResult(
        config=config,
        atoms=run.atoms,
        log=log,
        n_dof=run.n_dof,
        mean_temperature=block_mean(log.temperature),
        drift=drift_per_atom(log, len(run.atoms)),
        ns_per_day=float(log.ns_per_day[-1]),
        trajectory_file=folder / TRAJECTORY,
        log_file=folder / LOG,
    )
