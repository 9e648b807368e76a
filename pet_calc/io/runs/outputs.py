"""The folder that a run writes to: tried before the work starts, never overwritten unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pet_calc.errors import OutputError


def claim_folder(folder: Path | str, names: Iterable[str], *, overwrite: bool = False) -> Path:
    """Make `folder` ready to receive the files `names`, or say why it cannot.

    Hours of computing must not end in a permission error, so that the folder is created and a file
    is written to it (and removed) here, before the first step.

    Parameters
    ----------
    folder : Path or str
        Output folder; created with its parents when absent.
    names : iterable of str
        Files that the workflow will write.
    overwrite : bool
        Accept that some of `names` exist; otherwise their presence is an error. Nothing is removed
        here: an input that turns out to be unusable must not cost the earlier results. Call
        :func:`clear_folder` when the work begins.

    Raises
    ------
    OutputError
        When the folder cannot be created or written, or holds files of an earlier run.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test-") as probe:
            probe.write(b"pet_calc")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OutputError(
            f"the output folder must be writable, but {folder} is not ({error.strerror}); "
            "choose another folder"
        ) from error
    present = [name for name in names if (folder / name).exists()]
    if present and not overwrite:
        raise OutputError(
            f"{folder} already holds {', '.join(present)} from an earlier run; "
            "choose another folder, or replace them with --overwrite (--resume continues a run of "
            "md, relax or generate)"
        )
    return folder


def clear_folder(folder: Path, names: Iterable[str]) -> None:
    """Remove the files `names` of an earlier run from `folder`; others are never touched."""
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder / name} cannot be replaced ({error.strerror}); choose another folder"
            ) from error
