"""Published models from a hub that runs in the test: nothing reaches a real network."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import torch
from calculators.small_potentials import flip_a_bit, liquid, small_pet
from typer.testing import CliRunner

from pet_calc import PETCalculator, pretrained
from pet_calc.cli.models import models_app
from pet_calc.errors import IntegrityError, OutputError, PotentialNotFoundError
from pet_calc.io.foreign import hub as hub_module
from pet_calc.io.foreign.published import PUBLISHED, REPOSITORY, PublishedPET, find_published
from pet_calc.io.models.files import CONFIG, WEIGHTS
from pet_calc.io.models.weights import read_config
from pet_calc.models.pet import PETConfig
from pet_calc.models.pet.published.checkpoints import ImportedPET

from .fake_hub import COMMIT, FakeHub, fake_hub
from .published_files import checkpoint_bytes

NAME = "pet-mad-s-v1.6.0"


def small_import() -> ImportedPET:
    options = small_pet().config.to_dict() | {"input_encoding": "cartesian"}
    config = PETConfig.from_dict(options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        from pet_calc.models.pet import PET

        model = PET(config)
    model.energy_scale.fill_(1.25)
    return ImportedPET(config, model.state_dict(), 16, (), {})


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    return checkpoint_bytes(small_import())


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PET_CALC_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    # a name that is a path too would be read as a path
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def hub(checkpoint, monkeypatch):
    # what is not a whole chunk (10 MB) when a connection breaks is lost
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    with fake_hub({f"models/{NAME}.ckpt": checkpoint}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def published(name: str = NAME) -> PublishedPET:
    found = find_published(name)
    assert found is not None
    return found


def test_names_without_a_version_are_the_newest_known() -> None:
    assert published("pet-mad-s").name == NAME
    assert published("PET-MAD-S").name == NAME
    assert published("pet-mad-s-v1.0.2").method == "PBEsol"
    assert published("pet-mad-s-1.5.0").name == "pet-mad-s-v1.5.0"
    # a version that came out later can be asked for
    assert published("pet-mad-s-v9.0.0").path == "models/pet-mad-s-v9.0.0.ckpt"
    for unknown in ("pet-water", "pet-water-v1", "pet-mad", "pet-mad-xl", "mace", "pet-mad-s-v1"):
        assert find_published(unknown) is None
    assert len({p.name for p in PUBLISHED}) == len(PUBLISHED)
    assert {p.model for p in PUBLISHED} >= {
        "pet-mad-xs", "pet-mad-m", "pet-oam-l", "pet-oam-xl", "pet-omat-xs", "pet-omat-xl",
        "pet-omatpes-l", "pet-spice-s", "pet-omol-m", "pet-omad-l", "pet-mols-s",
    }  # fmt: skip


def test_a_name_is_downloaded_once_and_then_works_offline(cache, hub: FakeHub, monkeypatch) -> None:
    atoms = liquid()
    atoms.calc = PETCalculator("pet-mad-s", dtype="float64")
    energy = atoms.get_potential_energy()
    folder = cache / "published" / NAME
    assert atoms.calc.potential.name == NAME
    origin = read_config(folder)["training"]["imported_from"]
    assert origin["url"] == f"{hub.url}/{REPOSITORY}/resolve/main/models/{NAME}.ckpt"
    assert origin["revision"] == COMMIT
    # what was converted is kept, what it was made from is not
    assert [p.name for p in (cache / "downloads").iterdir()] == [f"{NAME}.lock"]

    asked = len(hub.requests)
    monkeypatch.setenv("PET_CALC_OFFLINE", "1")
    again = liquid()
    again.calc = PETCalculator("pet-mad-s-v1.6.0", dtype="float64")
    assert again.get_potential_energy() == energy
    assert len(hub.requests) == asked


def test_results_are_those_of_the_checkpoint(cache, hub: FakeHub, checkpoint, tmp_path) -> None:
    (tmp_path / "same.ckpt").write_bytes(checkpoint)
    energies = []
    for name in ("pet-mad-s", "same.ckpt"):
        atoms = liquid()
        atoms.calc = PETCalculator(name, dtype="float64")
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1]


def test_damage_in_the_cache_is_noticed(cache, hub: FakeHub) -> None:
    folder = hub_module.fetch(published(), cache)
    flip_a_bit(folder / WEIGHTS)
    with pytest.raises(IntegrityError, match="must have the SHA-256"):
        PETCalculator("pet-mad-s")


def test_an_interrupted_download_is_continued(cache, hub: FakeHub, checkpoint) -> None:
    hub.cut_after = 10_000
    assert len(checkpoint) > 3 * hub.cut_after
    with pytest.raises(PotentialNotFoundError, match="cannot be downloaded"):
        hub_module.fetch(published(), cache)
    (partial,) = (cache / "downloads").glob("*.partial")
    assert partial.stat().st_size == hub.cut_after
    assert not (cache / "published").exists()

    first = hub.cut_after
    hub.cut_after, hub.requests[:] = None, []
    folder = hub_module.fetch(published(), cache)
    assert hub.transfers() == [f"bytes={first}-"]
    assert (folder / CONFIG).is_file()
    assert not list((cache / "downloads").glob("*.partial"))


def test_a_server_without_ranges_starts_over(cache, hub: FakeHub, checkpoint) -> None:
    hub.cut_after = 1000
    with pytest.raises(PotentialNotFoundError):
        hub_module.fetch(published(), cache)
    hub.cut_after, hub.ranges = None, False
    assert (hub_module.fetch(published(), cache) / CONFIG).is_file()


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(cache, hub: FakeHub) -> None:
    hub.digest = "ab" * 32
    with pytest.raises(IntegrityError, match=r"must have the SHA-256 abab.*try again"):
        PETCalculator("pet-mad-s")
    assert not (cache / "published").exists()
    assert [p.name for p in (cache / "downloads").iterdir()] == [f"{NAME}.lock"]
    hub.digest = None
    PETCalculator("pet-mad-s")


def test_a_partial_file_that_was_damaged_is_refused(cache, hub: FakeHub) -> None:
    hub.cut_after = 1000
    with pytest.raises(PotentialNotFoundError):
        hub_module.fetch(published(), cache)
    hub.cut_after = None
    (partial,) = (cache / "downloads").glob("*.partial")
    flip_a_bit(partial)
    with pytest.raises(IntegrityError, match="thrown away"):
        hub_module.fetch(published(), cache)
    assert (hub_module.fetch(published(), cache) / CONFIG).is_file()


def test_a_file_without_a_sha256_is_refused(cache, hub: FakeHub) -> None:
    hub.digest = "0123456789abcdef0123456789abcdef01234567"
    with pytest.raises(PotentialNotFoundError, match="comes without SHA-256"):
        hub_module.fetch(published(), cache)


def test_a_version_that_is_not_there_names_those_that_are(cache, hub: FakeHub) -> None:
    with pytest.raises(PotentialNotFoundError, match=r"no pet-mad-s-v9\.9\.9 on the hub.*v1\.5\.0"):
        PETCalculator("pet-mad-s-v9.9.9")


def says_what_to_do(message: str, cache: Path, server: str) -> None:
    assert f"{server}/lab-cosmo/upet/resolve/main/models/{NAME}.ckpt" in message
    assert str(cache / "downloads" / f"{NAME}.ckpt") in message
    assert f"pet-calc models import {NAME}.ckpt" in message


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_asks_nobody_and_says_what_to_do(cache, hub, monkeypatch, value) -> None:
    monkeypatch.setenv("PET_CALC_OFFLINE", value)
    with pytest.raises(PotentialNotFoundError, match="PET_CALC_OFFLINE is set") as caught:
        PETCalculator("pet-mad-s")
    says_what_to_do(str(caught.value), cache, hub.url)
    assert hub.requests == []


def test_offline_can_be_switched_off(cache, hub, monkeypatch) -> None:
    monkeypatch.setenv("PET_CALC_OFFLINE", "0")
    PETCalculator("pet-mad-s")
    assert hub.requests


def test_no_network_says_what_to_do(cache, hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers
    with pytest.raises(PotentialNotFoundError, match="cannot be read: ") as caught:
        PETCalculator("pet-mad-s")
    says_what_to_do(str(caught.value), cache, "http://127.0.0.1:9")


def test_a_missing_extra_is_named(cache, hub, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PotentialNotFoundError, match=r"pip install 'pet-calc\[hub\]'") as caught:
        PETCalculator("pet-mad-s")
    says_what_to_do(str(caught.value), cache, hub.url)


def test_a_checkpoint_put_there_by_hand_is_used_and_kept(
    cache, hub, checkpoint, monkeypatch
) -> None:
    monkeypatch.setenv("PET_CALC_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    place = cache / "downloads" / f"{NAME}.ckpt"
    place.parent.mkdir(parents=True)
    place.write_bytes(checkpoint)
    assert PETCalculator("pet-mad-s").potential.name == NAME
    assert place.is_file()
    assert hub.requests == []


def test_a_folder_of_that_name_comes_first(cache, hub, checkpoint, tmp_path) -> None:
    (tmp_path / "x.ckpt").write_bytes(checkpoint)
    arguments = ["import", "x.ckpt", "--name", "pet-mad-s"]
    assert CliRunner().invoke(models_app, arguments).exit_code == 0
    assert PETCalculator("pet-mad-s").potential.folder == tmp_path / "pet-mad-s"
    assert hub.requests == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, hub, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="PET_CALC_CACHE"):
        PETCalculator("pet-mad-s")


def _fetch(cache: str, endpoint: str, barrier) -> str:
    os.environ["HF_ENDPOINT"] = endpoint
    torch.set_num_threads(1)
    barrier.wait()
    folder = hub_module.fetch(published(), Path(cache))
    return pretrained.load(folder).digest or ""


def _worker(cache: str, endpoint: str, barrier, results) -> None:
    try:
        results.put(_fetch(cache, endpoint, barrier))
    except Exception as error:
        results.put(repr(error))


def test_two_processes_at_once_download_once(cache, hub: FakeHub) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_worker, args=(str(cache), hub.url, barrier, results))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    digests = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    recorded = read_config(cache / "published" / NAME)["weights_sha256"]
    assert digests == [recorded, recorded]
    assert hub.transfers() == [None]


def test_verbs_list_and_download(cache, hub, monkeypatch, caplog) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def line() -> str:
        output = CliRunner().invoke(models_app, ["list", "--all"]).output
        return next(row for row in output.splitlines() if NAME in row)

    assert "r2SCAN" in line()
    assert " no " in line()
    with caplog.at_level(logging.INFO, logger="pet_calc"):
        result = CliRunner().invoke(models_app, ["download", "pet-mad-s"])
    assert result.output.endswith(f"{NAME}: {cache / 'published' / NAME}\n")
    assert "downloading" in caplog.text
    assert " yes " in line()
    unknown = CliRunner().invoke(models_app, ["download", "pet-water"])
    assert isinstance(unknown.exception, PotentialNotFoundError)
