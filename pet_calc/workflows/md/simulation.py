"""Molecular dynamics of a structure, begun or continued, in memory or to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.io import read

from pet_calc.io.runs.outputs import claim_folder, clear_folder
from pet_calc.workflows.guards import Guard
from pet_calc.workflows.md import checkpoint as checkpoints
from pet_calc.workflows.md.checkpoint import CHECKPOINT
from pet_calc.workflows.md.config import MDConfig
from pet_calc.workflows.md.log import MDLog, drift_per_atom
from pet_calc.workflows.md.records import LOG, TRAJECTORY, Mark, MemoryRecords, Records
from pet_calc.workflows.md.run import LAST_GOOD, Observer, Run
from pet_calc.workflows.progress import OnProgress
from pet_calc.workflows.statistics import Estimate, block_mean

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
        Samples, every `log_interval` steps and the last one.
    n_dof : int
        Degrees of freedom that the temperature counts.
    folder : Path or None
        Where trajectory and log are; None for a run that wrote nothing.
    kept : list of Atoms
        Frames of a run that wrote nothing; see `frames`.
    """

    config: MDConfig
    atoms: Atoms
    log: MDLog
    n_dof: int
    folder: Path | None
    kept: list[Atoms]

    @property
    def frames(self) -> list[Atoms]:
        """Frames with energies and forces, every `frame_interval` steps and the last one."""
        return self.kept if self.folder is None else list(read(self.trajectory_file, index=":"))

    @property
    def trajectory_file(self) -> Path:
        """ASE trajectory with positions, momenta, energies and forces."""
        return self._written / TRAJECTORY

    @property
    def log_file(self) -> Path:
        """The samples as CSV."""
        return self._written / LOG

    @property
    def _written(self) -> Path:
        if self.folder is None:
            raise ValueError("this run had no `folder` to write to; its frames are in `frames`")
        return self.folder

    @property
    def mean_temperature(self) -> Estimate:
        """K, with the standard error of block means."""
        return block_mean(self.log.temperature)

    @property
    def drift(self) -> Estimate:
        """Slope of the conserved energy, meV/atom/ps, with its standard error."""
        return drift_per_atom(self.log, len(self.atoms))

    @property
    def ns_per_day(self) -> float:
        """Speed over the whole run, file writing included; NaN without steps.

        After a continuation that of the part that was added.
        """
        return float(self.log.ns_per_day[-1])


def run_md(
    atoms: Atoms,
    config: MDConfig | None = None,
    folder: Path | str | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    observers: Sequence[Observer] = (),
) -> MDResult:
    """Run molecular dynamics; with a folder, write its trajectory and log.

    The structure given is not changed: the run works on a copy that shares the calculator. Every
    step is checked by the guards (:class:`~pet_calc.workflows.guards.GuardConfig`).

    Parameters
    ----------
    atoms : ase.Atoms
        Structure with a calculator attached.
    config : MDConfig, optional
        Settings.
    folder : Path or str, optional
        Receives ``trajectory.traj`` (every `frame_interval` steps, and the last one),
        ``log.csv`` (every `log_interval` steps, and the last one) and ``checkpoint.npz``;
        ``last_good.traj`` if the run is stopped. It is created and tried for writing before the
        calculator is called. Without it nothing is written: frames and samples stay in memory,
        and the run cannot be continued.
    overwrite : bool
        Replace these files if they exist; otherwise they are an error.
    resume : bool
        Continue the run in `folder` from its checkpoint, given the structure, potential and
        settings that it began with; `config.steps` is the length of the whole run and may be
        raised. Trajectory and log are cut back to the checkpoint first, so that no frame is lost
        or written twice. A folder without any of the files starts from the beginning.
    on_progress : callable, optional
        Called with the `Progress` of every step, step 0 included; its values are those of the
        step under the names of the log's columns.
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
    if resume and (overwrite or folder is None):
        raise ValueError("`resume` continues the run in `folder`; give one, and no `overwrite`")
    config = config or MDConfig()
    guard = Guard.at_start(atoms, config.guards)
    if folder is not None:
        target = Path(folder), overwrite, resume
        return _written(atoms, config, guard, target, on_progress, observers)
    run = Run(atoms, config, guard, None, on_progress, observers)
    run.begin()
    run.records = records = MemoryRecords()
    run.simulate(0, fresh=True)
    log = MDLog.from_samples(records.samples)
    return MDResult(config, run.atoms, log, run.n_dof, None, records.frames)


def _written(
    atoms: Atoms,
    config: MDConfig,
    guard: Guard,
    target: tuple[Path, bool, bool],
    on_progress: OnProgress | None,
    observers: Sequence[Observer],
) -> MDResult:
    """A run that writes its files; `target` is the folder, overwrite and resume of `run_md`."""
    folder, overwrite, resume = target
    saved = None
    if resume and any((folder / name).exists() for name in OUTPUT_FILES):
        saved = checkpoints.load_checkpoint(folder / CHECKPOINT)
        config = checkpoints.continued_config(saved, config)
        checkpoints.require_same_structure(saved, atoms)
    folder = claim_folder(folder, OUTPUT_FILES, overwrite=overwrite or saved is not None)

    run = Run(atoms, config, guard, folder, on_progress, observers)
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
    return MDResult(config, run.atoms, MDLog.read(folder / LOG), run.n_dof, folder, [])
