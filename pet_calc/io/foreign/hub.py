"""Published checkpoints from the Hugging Face hub, once each.

A checkpoint is downloaded into ``<cache>/downloads``, compared with the SHA-256 that the hub
records for it, converted into ``<cache>/published/<name>`` and removed. What was converted is
found there without any network; `pet_calc.io.models.weights.load_model` checks its
SHA-256 at each load.

An interrupted download is continued by the next one: huggingface_hub itself has given that up
(since its version 1 a partial file belongs to one process), so that only its functions for
addresses, metadata and transfer are used here.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

from filelock import FileLock

from pet_calc.errors import IntegrityError, OutputError, PotentialNotFoundError
from pet_calc.io.foreign.published import PUBLISHED, REPOSITORY, PublishedPET
from pet_calc.io.models.files import CONFIG, sha256

_log = logging.getLogger("pet_calc")

HUB: Final = "https://huggingface.co"


def offline() -> bool:
    """Whether ``PET_CALC_OFFLINE`` forbids any use of the network."""
    return os.environ.get("PET_CALC_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def endpoint() -> str:
    """Address of the hub, or of the mirror that ``HF_ENDPOINT`` names."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def url_of(published: PublishedPET) -> str:
    """Address of the checkpoint for a browser or ``curl -L``."""
    return f"{endpoint()}/{REPOSITORY}/resolve/main/{published.path}"


def converted_folder(published: PublishedPET, cache: Path) -> Path:
    """Where the converted model is kept."""
    return cache / "published" / published.name


def checkpoint_path(published: PublishedPET, cache: Path) -> Path:
    """Where the checkpoint is downloaded to, or may be put by hand."""
    return cache / "downloads" / f"{published.name}.ckpt"


def is_downloaded(published: PublishedPET, cache: Path) -> bool:
    """Whether the model can be loaded without a network."""
    # the configuration is written last: where it is, the rest is
    return (converted_folder(published, cache) / CONFIG).is_file()


def fetch(published: PublishedPET, cache: Path) -> Path:
    """The model folder of a published model, downloaded and converted at its first use.

    Parameters
    ----------
    published : PublishedPET
    cache : Path
        Folder of the cache. A second process that wants the same model waits for the first.

    Returns
    -------
    Path

    Raises
    ------
    PotentialNotFoundError
        If it must be downloaded and cannot be: offline, no network, huggingface_hub is not
        installed, or no such file on the hub. The message says what to put where.
    IntegrityError
        If what was downloaded does not have the SHA-256 that the hub records.
    CheckpointError
        If the checkpoint cannot be converted.
    OutputError
        If the cache cannot be written.
    """
    folder = converted_folder(published, cache)
    if is_downloaded(published, cache):
        return folder
    checkpoint = checkpoint_path(published, cache)
    try:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(checkpoint.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise OutputError(
            f"the cache {cache} cannot be written ({error}); name another folder in PET_CALC_CACHE"
        ) from error
    try:
        if is_downloaded(published, cache):  # by the process that held the lock
            return folder
        # here, so that asking what has been downloaded takes no torch
        from pet_calc.io.foreign.checkpoints import convert_checkpoint

        by_hand = checkpoint.is_file()
        origin: dict[str, object] = {} if by_hand else download(published, checkpoint)
        convert_checkpoint(checkpoint, folder, origin=origin)
        if not by_hand:
            checkpoint.unlink()
    finally:
        lock.release()
    _log.info("converted %s into %s", published.name, folder)
    return folder


def download(published: PublishedPET, checkpoint: Path) -> dict[str, object]:
    """Download a checkpoint, or the rest of it; it appears in one rename when it is complete.

    Returns
    -------
    dict
        Address and revision that it came from.

    Raises
    ------
    PotentialNotFoundError, IntegrityError
        See `fetch`.
    """
    if offline():
        raise unavailable(published, checkpoint, "PET_CALC_OFFLINE is set")
    try:
        from huggingface_hub import errors, get_hf_file_metadata
        from huggingface_hub.file_download import http_get
    except ImportError as error:
        raise unavailable(
            published,
            checkpoint,
            f"huggingface_hub cannot be imported ({error}): pip install 'pet-calc[hub]'",
        ) from error

    # what does not reach a server is an OSError with requests (versions below 1), an HTTPError
    # with httpx (versions from 1)
    unreachable = (OSError, getattr(errors, "HTTPError", OSError))
    url = url_of(published)
    try:
        remote = get_hf_file_metadata(url, token=False)
        digest, size = str(remote.etag).lower(), remote.size
        if not re.fullmatch("[0-9a-f]{64}", digest) or size is None:
            raise unavailable(
                published, checkpoint, f"{url} comes without SHA-256 and size (ETag {digest:.70})"
            )
        partial = checkpoint.with_name(f"{checkpoint.name}.{digest[:16]}.partial")
        # opened for update, as the transfer starts over if the server does not know ranges
        with partial.open("r+b" if partial.is_file() else "w+b") as file:
            present = min(file.seek(0, os.SEEK_END), size)
            file.truncate(present)
            file.seek(present)
            _log.info("downloading %s from byte %d of %d", url, present, size)
            http_get(
                remote.location,
                file,
                resume_size=present,
                expected_size=size,
                displayed_filename=checkpoint.name,
            )
    except errors.EntryNotFoundError as error:
        known = ", ".join(p.name for p in PUBLISHED)
        raise PotentialNotFoundError(
            f"there is no {published.name} on the hub ({url}); published are {known}"
        ) from error
    except unreachable as error:
        reason = f"{url} cannot be read: {type(error).__name__} {error}".splitlines()[0]
        raise unavailable(published, checkpoint, reason) from error

    found = sha256(partial)
    if found != digest:
        partial.unlink()
        raise IntegrityError(
            f"{url} must have the SHA-256 {digest}, but what arrived has {found}; it was thrown "
            f"away, so try again"
        )
    os.replace(partial, checkpoint)
    return {"url": url, "revision": remote.commit_hash}


def unavailable(published: PublishedPET, checkpoint: Path, reason: str) -> PotentialNotFoundError:
    """The error for a model that is not here and cannot be downloaded, with what to do."""
    return PotentialNotFoundError(
        f"{published.name} is not in the cache and cannot be downloaded: {reason}. Get "
        f"{url_of(published)} where there is a network and put it at {checkpoint}, or convert it "
        f"with `pet-calc models import {published.name}.ckpt` and name the folder that this makes"
    )
