"""Names, paths, digests and the choice of a potential."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from calculators.small_potentials import flip_a_bit, publish, small_pet

import pet_calc
from pet_calc import pretrained
from pet_calc.errors import (
    CheckpointError,
    IntegrityError,
    PotentialNotFoundError,
    UnsupportedElementError,
)
from pet_calc.io.models.expected import EXPECTED
from pet_calc.io.models.files import CONFIG, WEIGHTS, sha256
from pet_calc.io.models.weights import save_model
from pet_calc.pretrained import index


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An index of five potentials, written once."""
    return publish(
        tmp_path_factory.mktemp("published") / "potentials",
        water_v1="H O",
        water_v2="H O",
        water_v10="O H",
        organic_v1="H C N O",
        salt_v3="Na Cl",
    )


@pytest.fixture
def root(published, tmp_path, monkeypatch):
    """A copy of that index, which the test may damage, as the only one."""
    copy = tmp_path / "shipped"
    shutil.copytree(published, copy)
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (copy,))
    return copy


def test_the_index_is_read_in_order(root):
    entries = pretrained.list_potentials()
    assert [e.name for e in entries] == [
        "water-v1", "water-v2", "water-v10", "organic-v1", "salt-v3",
    ]  # fmt: skip
    first = entries[0]
    assert (first.family, first.version, first.elements) == ("water", 1, ("H", "O"))
    assert (first.method, first.summary, first.status) == ("random", "potential number 0", "stable")
    assert first.size == (root / "water-v1" / WEIGHTS).stat().st_size
    assert entries[2].elements == ("H", "O")


def test_the_package_comes_before_the_checkout(root, tmp_path, monkeypatch):
    wheel = publish(tmp_path / "wheel", metal_v1="Cu")
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (wheel, root))
    assert [e.name for e in pretrained.list_potentials()] == ["metal-v1"]
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (tmp_path / "absent", root))
    assert len(pretrained.list_potentials()) == 5


def test_the_places_are_those_of_wheel_and_checkout():
    package = Path(pet_calc.__file__).resolve().parent
    wheel, checkout = index.ROOTS
    assert wheel == package / "_potentials"
    assert checkout == package.parent / "potentials"


def test_without_an_index_both_places_are_named(tmp_path, monkeypatch):
    places = (tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", places)
    for call in (pretrained.list_potentials, lambda: pretrained.resolve("water")):
        with pytest.raises(PotentialNotFoundError) as caught:
            call()
        for place in places:
            assert str(place / "index.toml") in str(caught.value)


def test_a_path_needs_no_index(tmp_path, monkeypatch):
    monkeypatch.setattr("pet_calc.pretrained.index.ROOTS", (tmp_path / "a",))
    save_model(tmp_path / "mine", small_pet())
    assert pretrained.load(str(tmp_path / "mine")).elements == ("H", "O")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[potential]", "not valid TOML"),
        ('[[potential]]\nname = "a-v1"', "needs name, elements and a table sha256"),
        ('[[potential]]\nname = "a-v1"\nelements = ["H"]\n[potential.sha256]', "records no SHA"),
    ],
)
def test_a_damaged_index_is_refused(root, content, message):
    (root / "index.toml").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        pretrained.list_potentials()


@pytest.mark.parametrize(
    ("name", "found"),
    [("water", "water-v10"), ("water-v1", "water-v1"), ("salt", "salt-v3")],
)
def test_a_name_is_its_newest_version_unless_one_is_given(root, name, found):
    assert pretrained.resolve(name).name == found


@pytest.mark.parametrize("name", ["wate", "water-v3", "water-v", "./water"])
def test_an_unknown_name_lists_the_known_ones(root, name):
    with pytest.raises(PotentialNotFoundError, match=r"water-v1, water-v2.*no such path exists"):
        pretrained.resolve(name)


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("watr", "water-v10"),
        ("Water", "water-v10"),
        ("slat-v3", "salt-v3"),
        ("pet-mads", "pet-mad-s-v1.6.0"),
        ("pet-omol-xs", "pet-omol-s-v1.0.0"),
    ],
)
def test_an_unknown_name_is_answered_with_similar_ones(root, name, similar):
    with pytest.raises(PotentialNotFoundError, match=rf"did you mean [^?]*{similar}[^?]*\?"):
        pretrained.resolve(name)


def test_nothing_similar_is_offered_for_a_name_like_no_other(root):
    with pytest.raises(PotentialNotFoundError) as caught:
        pretrained.resolve("xyz")
    assert "did you mean" not in str(caught.value)


def test_listing_takes_neither_torch_nor_ase():
    listing = """
        import sys
        from pet_calc.io.cache import cache_folder
        from pet_calc.io.foreign.hub import is_downloaded
        from pet_calc.io.foreign.published import PUBLISHED
        from pet_calc.pretrained import list_potentials, read_card
        for kind in ("energy", "property", "generator"):
            for entry in list_potentials(kind):
                read_card(entry.folder), entry.size
        is_downloaded(PUBLISHED[0], cache_folder())
        print(sorted({"torch", "ase", "numpy"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(listing)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_folder_and_files_in_it_name_a_potential(root, tmp_path):
    folder = tmp_path / "mine"
    save_model(folder, small_pet((6, 7)))
    for path in (folder, str(folder), folder / CONFIG, folder / WEIGHTS):
        entry = pretrained.resolve(path)
        assert entry.folder == folder
        assert entry.elements == ("C", "N")
    assert pretrained.load(folder).digest == sha256(folder / WEIGHTS)
    (folder / "notes.txt").write_text("")
    with pytest.raises(PotentialNotFoundError, match=r"notes\.txt is none of them"):
        pretrained.resolve(folder / "notes.txt")
    with pytest.raises(PotentialNotFoundError, match="check the path"):
        pretrained.resolve(tmp_path / "absent")
    with pytest.raises(PotentialNotFoundError, match=f"there is no .*{CONFIG}"):
        pretrained.resolve(tmp_path)


def test_missing_weights_are_named(root, tmp_path):
    (root / "water-v1" / WEIGHTS).unlink()
    with pytest.raises(PotentialNotFoundError, match=f"no weights file .*{WEIGHTS}"):
        pretrained.resolve("water-v1")
    shutil.copytree(root / "water-v1", tmp_path / "mine")
    with pytest.raises(PotentialNotFoundError, match=f"no weights file .*{WEIGHTS}"):
        pretrained.resolve(tmp_path / "mine")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_changed_file_is_refused_with_both_digests(root, file):
    path = root / "water-v1" / file
    recorded = sha256(path)
    flip_a_bit(path)
    message = f"{file} must have the SHA-256 {recorded}, but has {sha256(path)}"
    # the folder of a shipped potential is held to the index by its path as well
    for source in ("water-v1", root / "water-v1"):
        with pytest.raises(IntegrityError, match=message):
            pretrained.load(source)


def test_a_users_changed_weights_are_refused(root, tmp_path):
    save_model(tmp_path / "mine", small_pet())
    pretrained.load(tmp_path / "mine")
    flip_a_bit(tmp_path / "mine" / WEIGHTS)
    with pytest.raises(IntegrityError, match="damaged or was exchanged"):
        pretrained.load(tmp_path / "mine")


def test_index_and_model_must_agree_on_the_elements(root):
    path = root / "index.toml"
    path.write_text(path.read_text().replace('["Na", "Cl"]', '["Na", "Cl", "K"]'))
    with pytest.raises(CheckpointError, match="covers Na, Cl, but the index says Na, Cl, K"):
        pretrained.load("salt")


def test_a_loaded_potential_knows_its_origin(root):
    potential = pretrained.load("water-v2", "float64")
    assert potential.name == "water-v2"
    assert potential.elements == ("H", "O")
    assert potential.digest == sha256(root / "water-v2" / WEIGHTS)
    assert str(potential.model.dtype) == "torch.float64"
    assert potential.card.front["metrics"]["test"]["force_mae_meV_A"] == 60.0
    assert potential.card.text.startswith("# water-v2")


@pytest.mark.parametrize(
    ("elements", "chosen"),
    [
        ({"H"}, "water-v10"),
        ({"O", "H"}, "water-v10"),
        ({"C", "H"}, "organic-v1"),
        ({"Cl"}, "salt-v3"),
    ],
)
def test_the_most_special_newest_potential_is_chosen(root, elements, chosen):
    assert pretrained.choose_for([elements]).name == chosen


def test_no_choice_lists_what_each_covers(root):
    with pytest.raises(UnsupportedElementError) as caught:
        pretrained.choose_for([["Na", "O"]])
    message = str(caught.value)
    assert message.startswith("no shipped pet potential covers O, Na (water-v1: H, O; ")
    assert "organic-v1: H, C, N, O" in message
    assert "salt-v3: Na, Cl" in message


def test_an_experimental_potential_is_chosen_only_where_no_stable_one_fits(root):
    path = root / "index.toml"
    text = path.read_text().replace('"water-v10"', '"water-v10"\nstatus = "experimental"')
    path.write_text(text)
    assert pretrained.choose_for([["H"]]).name == "water-v2"
    assert pretrained.resolve("water").name == "water-v10"


@pytest.mark.parametrize(
    ("text", "message"),
    [("# no front matter\n", "must begin with"), ("---\nname\n---\n", "`key: value` per line")],
)
def test_a_malformed_card_is_refused(tmp_path, text, message):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        pretrained.read_card(tmp_path)


def test_front_matter_holds_json_or_text(tmp_path):
    (tmp_path / "README.md").write_text('---\nname: a-v1\nn: [1, 2]\ndoi: "a: b"\n\n---\nText.\n')
    card = pretrained.read_card(tmp_path)
    assert card.front == {"name": "a-v1", "n": [1, 2], "doi": "a: b"}
    assert card.text == "Text.\n"


def test_verification_passes_for_what_was_published(root):
    verification = pretrained.verify("water-v1")
    assert set(verification.digests) == {CONFIG, WEIGHTS}
    assert set(verification.deviations) == {"float32", "float64"}
    verification.require("water-v1")


def test_verification_fails_for_other_files_and_other_results(root):
    expected = root / "water-v1" / EXPECTED
    expected.write_text(re.sub(r'"energy": -\d', '"energy": -7', expected.read_text()))
    with pytest.raises(IntegrityError, match="in float32 the energy of 'crystal' is off by"):
        pretrained.verify("water-v1").require("water-v1")
    flip_a_bit(root / "water-v1" / WEIGHTS)
    verification = pretrained.verify("water-v1")
    assert not verification.deviations
    with pytest.raises(IntegrityError, match=f"{WEIGHTS} of water-v1 must have"):
        verification.require("water-v1")


def test_a_users_folder_verifies_by_its_own_digest(root, tmp_path):
    save_model(tmp_path / "mine", small_pet())
    verification = pretrained.verify(tmp_path / "mine")
    assert set(verification.digests) == {WEIGHTS}
    verification.require("mine")


def test_published_checkpoint_runs_and_is_converted_once(reference_dir, tmp_path, monkeypatch):
    from ase.build import molecule

    from pet_calc.calculators import PETCalculator

    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "cache"))
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes((reference_dir / "pet" / "pet_modern.ckpt").read_bytes())
    atoms = molecule("CH3CH2OH")
    atoms.calc = PETCalculator(checkpoint, dtype="float64")
    energy = atoms.get_potential_energy()
    (folder,) = (tmp_path / "cache" / "imported").iterdir()
    written = (folder / WEIGHTS).stat().st_mtime_ns
    entry = pretrained.resolve(str(checkpoint))
    assert entry.name == str(checkpoint)
    assert entry.folder == folder
    assert (folder / WEIGHTS).stat().st_mtime_ns == written
    # another file under the same path is another potential
    checkpoint.write_bytes((reference_dir / "pet" / "pet_legacy.ckpt").read_bytes())
    atoms.calc = PETCalculator(checkpoint, dtype="float64")
    assert atoms.get_potential_energy() != energy
    assert len(list((tmp_path / "cache" / "imported").iterdir())) == 2


def test_damaged_checkpoint_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PET_CALC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"model\.ckpt"):
        pretrained.resolve(tmp_path / "model.ckpt")
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_a_potential_is_chosen_only_for_elements_that_occur_together_in_its_data(root):
    path = root / "index.toml"
    text = path.read_text().replace('"water-v10"', '"water-v10"\nsystems = ["H-O", "O"]')
    path.write_text(text)
    assert pretrained.choose_for([["O", "H"]]).name == "water-v10"
    assert pretrained.choose_for([["O"]]).name == "water-v10"
    assert pretrained.choose_for([["H"]]).name == "water-v2"
    assert pretrained.choose_for([["O", "H"], ["O"]]).name == "water-v10"
    # the one that suits both
    assert pretrained.choose_for([["O", "H"], ["H"]]).name == "water-v2"
    loaded = pretrained.load("water-v10")
    assert loaded.suits({"H", "O"})
    assert not loaded.suits({"H"})
    assert not loaded.suits({"C", "O"})
    assert pretrained.load("water-v2").suits({"H"})
