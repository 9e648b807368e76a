"""Bad input of every kind to every verb: a clear error, an exit code, and nothing overwritten.

A verb joins by one line in `STRUCTURE_VERBS`: its command, in which ``{file}``, ``{model}`` and
``{out}`` are filled in, and the files that it writes into ``{out}``; all tests then apply to it.
"""

import json
import re
import shutil
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from calculators.small_potentials import flip_a_bit, liquid, small_pet

from pet_calc.cli import main
from pet_calc.io.weights import CONFIG, WEIGHTS, save_model


@dataclass(frozen=True)
class Verb:
    """A command line, the files that it writes, and its exit codes for good input."""

    command: str
    writes: tuple[str, ...] = ()
    success: tuple[int, ...] = (0,)


STRUCTURE_VERBS = {
    "md": Verb("md {file} --model {model} --steps 1 --out {out}", ("md.toml", "log.csv")),
    # 3: with warnings, since random weights know no symmetry
    "doctor": Verb(
        "doctor {file} --model {model} --quick --json {out}/d.json", ("d.json",), (0, 3)
    ),
}
DATA_VERBS = {
    "evaluate": Verb("evaluate {file} --model {model}"),
    "train": Verb("train {train} --out {out}"),
}
VERBS = STRUCTURE_VERBS | DATA_VERBS
#: Verbs that refuse to replace their own files unless ``--overwrite`` is given.
OVERWRITE = [name for name, verb in VERBS.items() if verb.writes]

TRAIN = """
name = "toy"
data = { train = [FILE], validation_frames = 1 }
optimizer = { name = "adam" }
stages = [{ steps = 1 }]
[model]
elements = [1, 8]
cutoff = 3.0
d_pet = 8
d_node = 8
d_head = 8
d_feedforward = 8
num_heads = 2
num_attention_layers = 1
num_gnn_layers = 1
"""


def frame(properties="species:S:1:pos:R:3", lattice="6 0 0 0 6 0 0 0 6", pbc="T T T", atoms=()):
    """A labelled frame of an extended XYZ file; `atoms` are "O x y z" without forces."""
    cell = f'Lattice="{lattice}" ' if lattice else ""
    header = f'{cell}pbc="{pbc}" Properties={properties}:forces:R:3 energy=-1.0'
    return "\n".join([str(len(atoms)), header, *(f"{a} 0.1 0 0" for a in atoms)]) + "\n"


WATER = ("O 0 0 0", "H 0.76 0.59 0", "H -0.76 0.59 0")

#: Content of a structure file (None: there is no file) and what the error must say.
UNREADABLE = "cannot be read|could not be read"
ZERO_VECTOR = "every periodic direction needs a lattice vector"
OVERLAP = "nearly touch|at least 0.1 Å apart"
BAD_STRUCTURES = {
    "absent file": (None, "there is no structure file|no data file"),
    "empty file": ("", f"{UNREADABLE}|holds no structure"),
    "not a structure": ("hello\nworld\n", UNREADABLE),
    "truncated": (frame(atoms=WATER)[:-30], UNREADABLE),
    "no atoms": (frame(), f"at least one atom|{UNREADABLE}"),
    "NaN position": (frame(atoms=("O nan 0 0", *WATER[1:])), "must be finite, but atom 0"),
    "infinite position": (frame(atoms=(*WATER[:2], "H 0 inf 0")), "must be finite, but atom 2"),
    "unknown element": (
        frame(atoms=("Au 0 0 3", *WATER[1:])),
        r"covers.*but the structure contains Au|covers \[1, 8\], but the data hold \[79\]",
    ),
    "no such element": (frame(atoms=("Qq 0 0 0", *WATER[1:])), UNREADABLE),
    "periodic without a cell": (frame(lattice="", atoms=WATER), ZERO_VECTOR),
    "one zero vector": (frame(lattice="6 0 0 0 6 0 0 0 0", atoms=WATER), ZERO_VECTOR),
    "flat cell": (frame(lattice="6 0 0 0 6 0 6 6 0", atoms=WATER), "linearly dependent"),
    "NaN in the cell": (frame(lattice="6 0 0 0 nan 0 0 0 6", atoms=WATER), "must be finite"),
    "an atom twice": (frame(atoms=(*WATER, WATER[0])), OVERLAP),
    "an image on an atom": (frame(lattice="6 0 0 0 6 0 0 0 0.05", atoms=WATER), OVERLAP),
}

#: Structures that look odd and are in order; cells, mixed periodicity and distances as they come.
ODD_STRUCTURES = {
    "ordinary": frame(atoms=WATER),
    "left-handed": frame(lattice="0 6 0 6 0 0 0 0 6", atoms=WATER),
    "skewed": frame(lattice="6 0 0 40 6 0 0 0 6", atoms=WATER),
    "slab without a third vector": frame(lattice="6 0 0 0 6 0 0 0 0", pbc="T T F", atoms=WATER),
    "molecule": frame(lattice="", pbc="F F F", atoms=WATER),
    "isolated atom": frame(lattice="", pbc="F F F", atoms=("O 0 0 0",)),
    "far outside of the cell": frame(atoms=("O 60000 0 0", "H 60000.76 0.59 0", WATER[2])),
    "cell below the cutoff": frame(lattice="2.5 0 0 0 2.5 0 0 0 2.5", atoms=("O 0 0 0",)),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A potential of random weights for H and O."""
    folder = tmp_path_factory.mktemp("models") / "random"
    save_model(folder, small_pet())
    return folder


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, model):
    """Run a verb in this process; returns the exit code and its error output in one line."""

    def run(verb, content, *extra, potential=model):
        file, out, config = tmp_path / "in.xyz", tmp_path / "out", tmp_path / "train.toml"
        if content is not None:
            file.write_text(content)
        config.write_text(TRAIN.replace("FILE", json.dumps(str(file))))
        command = verb.command.format(file=file, model=potential, out=out, train=config)
        monkeypatch.setattr(sys, "argv", ["pet-calc", *command.split(), *extra])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        else:
            code = 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, " ".join(captured.err.split())

    return run


@pytest.fixture
def earlier(tmp_path):
    """Files of an earlier run, and a check that they are as they were."""

    def prepare(verb):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        for name in verb.writes:
            (out / name).write_text(f"earlier {name}")

        def check():
            found = {p.name: p.read_text() for p in out.iterdir()}
            assert found == {name: f"earlier {name}" for name in verb.writes}

        return check

    return prepare


def refused(code, error, message):
    assert code == 1, (code, error)
    assert error.startswith("Error: ")
    assert re.search(message, error), error


@pytest.mark.parametrize("case", BAD_STRUCTURES)
@pytest.mark.parametrize("verb", VERBS)
def test_bad_structures_are_refused(verb, case, run, earlier):
    content, message = BAD_STRUCTURES[case]
    unchanged = earlier(VERBS[verb])
    # even where replacing is allowed: what cannot run must not cost what there is
    extra = ("--overwrite",) if verb in OVERWRITE else ()
    refused(*run(VERBS[verb], content and repeated(verb, content), *extra), message)
    unchanged()


def repeated(verb, content):
    """Training holds a frame out, so that it needs two; the good one comes first."""
    return frame(atoms=WATER) + frame(atoms=WATER) + content if verb == "train" else content


@pytest.mark.parametrize("case", ODD_STRUCTURES)
@pytest.mark.parametrize("verb", VERBS)
def test_odd_structures_are_accepted(verb, case, run):
    code, error = run(VERBS[verb], repeated(verb, ODD_STRUCTURES[case]))
    assert code in VERBS[verb].success, error
    assert not error.startswith("Error")


@pytest.mark.parametrize("verb", OVERWRITE)
def test_an_earlier_run_is_not_overwritten(verb, run, earlier):
    unchanged = earlier(VERBS[verb])
    refused(*run(VERBS[verb], frame(atoms=WATER)), "already holds")
    unchanged()


@pytest.mark.parametrize("verb", [name for name in VERBS if "{out}" in VERBS[name].command])
def test_an_output_folder_that_cannot_be_made_is_refused(verb, run, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    refused(*run(VERBS[verb], repeated(verb, frame(atoms=WATER))), "must be writable")
    assert (tmp_path / "out").read_text() == "a file where the folder should be"


def damaged(folder, case):
    """A copy of a potential with something wrong."""
    target = folder.parent / case.replace(" ", "-")
    shutil.rmtree(target, ignore_errors=True)
    if case == "no such name":
        return "pet-nothing"
    if case == "a pickle":
        target.with_suffix(".pt").write_bytes(b"\x80\x04N.")
        return target.with_suffix(".pt")
    shutil.copytree(folder, target)
    if case == "changed weights":
        flip_a_bit(target / WEIGHTS)
    elif case == "no weights":
        (target / WEIGHTS).unlink()
    elif case == "no config":
        (target / CONFIG).unlink()
    elif case == "config is not JSON":
        (target / CONFIG).write_text("{")
    elif case == "of the future":
        values = json.loads((target / CONFIG).read_text())
        (target / CONFIG).write_text(json.dumps(values | {"format": 99}))
    elif case == "another network":
        values = json.loads((target / CONFIG).read_text())
        values["config"]["d_pet"] = 16
        (target / CONFIG).write_text(json.dumps(values))
    return target


BAD_MODELS = {
    "no such name": "no potential is named",
    "a pickle": "a potential is a folder with",
    "changed weights": "must have the SHA-256",
    "no weights": "there is no|has no weights",
    "no config": "there is no",
    "config is not JSON": "is not valid JSON",
    "of the future": "must be of format 1",
    "another network": "does not fit the configuration",
}
MODEL_VERBS = {
    **{name: verb for name, verb in VERBS.items() if "{model}" in verb.command},
    "models verify": Verb("models verify {model}"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_bad_potentials_are_refused(verb, case, run, earlier, model):
    unchanged = earlier(MODEL_VERBS[verb])
    extra = ("--overwrite",) if MODEL_VERBS[verb].writes else ()
    potential = damaged(model, case)
    refused(
        *run(MODEL_VERBS[verb], frame(atoms=WATER), *extra, potential=potential), BAD_MODELS[case]
    )
    unchanged()


@pytest.mark.parametrize("command", ["show", "path"])
def test_models_that_do_not_exist(command, run):
    refused(*run(Verb(f"models {command} pet-nothing"), ""), "no potential is named")


@pytest.mark.parametrize("verb", DATA_VERBS)
def test_bad_labels_are_refused(verb, run, tmp_path):
    good = frame(atoms=WATER)
    refused(*run(DATA_VERBS[verb], good + good.replace("0.1 0 0\n", "nan 0 0\n")), "must be finite")
    five = good.replace("energy=-1.0", 'energy=-1.0 stress="1 2 3 4 5"')
    refused(*run(DATA_VERBS[verb], good + five), "expecting special 3x3|6 or 9 components")
    bare = "3\n\n" + "\n".join(WATER) + "\n"
    refused(*run(DATA_VERBS[verb], bare * 3), "hold no label|holds? no label")


#: Options that make no sense, by verb: words, exit code (2 for what the parser refuses), message.
BAD_OPTIONS = [
    ("md", "--timestep 0", 1, "`timestep` must be a positive"),
    ("md", "--temperature nan", 1, "`temperature` must not be negative"),
    ("md", "--steps -1", 2, "Invalid value"),
    ("md", "--dtype float16", 2, "not one of"),
    ("md", "--device quantum", 1, "`device` must be"),
    ("md", "--ensemble npt-magic", 2, "not one of"),
    ("doctor", "--nve-ps -1", 1, "`picoseconds` must be a positive"),
    ("doctor", "--temperature nan", 1, "`temperature` must be a positive"),
    ("doctor", "--dtype float16", 2, "not one of"),
    ("doctor", "--device quantum", 1, "`device` must be"),
    ("doctor", "--calculator ase.calculators.emt:EMT", 2, "brings its own model"),
    ("doctor", "--config absent.toml", 1, "there is no options file"),
    ("evaluate", "--dtype float16", 1, "`dtype` must be"),
    ("evaluate", "--rotations -1", 1, "at least 2 orientations"),
    ("train", "--checkpoint-seconds nan", 1, "`checkpoint_seconds` must"),
]


@pytest.mark.parametrize(("verb", "words", "code", "message"), BAD_OPTIONS, ids=lambda x: str(x))
def test_bad_options_are_refused(verb, words, code, message, run, earlier):
    unchanged = earlier(VERBS[verb])
    extra = ("--overwrite",) if verb in OVERWRITE else ()
    content = repeated(verb, frame(atoms=WATER))
    found, error = run(VERBS[verb], content, *extra, *words.split())
    assert found == code, error
    assert message in error.replace("│ ", "").replace("'", ""), error
    unchanged()


def test_options_of_a_file_are_checked(run, tmp_path, earlier):
    unchanged = earlier(VERBS["doctor"])
    options = tmp_path / "options.toml"
    for content, message in (("quik = true", "does not know"), ("quick = ", "malformed")):
        options.write_text(content)
        code, error = run(
            VERBS["doctor"], frame(atoms=WATER), "--overwrite", "--config", str(options)
        )
        assert code in (1, 2)
        assert message in error
        unchanged()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nothing", "write module:name"),
        ("no.such:thing", "No module"),
        ("os:nothing", "nothing"),
    ],
)
def test_factories_that_do_not_exist(factory, message, run):
    code, error = run(Verb("doctor {file}"), frame(atoms=WATER), "--calculator", factory)
    assert code == 2
    assert message in error


def test_elements_that_a_foreign_calculator_does_not_know(run):
    code, error = run(
        Verb("doctor {file} --quick --json {out}/d.json", ("d.json",)),
        frame(atoms=("Si 0 0 0", *WATER[1:])),
        "--calculator",
        "ase.calculators.emt:EMT",
    )
    assert code == 1, error


def test_the_harness_sees_success(run, tmp_path):
    """Positive control of all above: labelled structures do pass, and files are written."""
    atoms = liquid()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    write(tmp_path / "good.xyz", [atoms] * 3)
    content = (tmp_path / "good.xyz").read_text()
    for name, verb in VERBS.items():
        if name != "doctor":
            assert run(verb, content)[0] == 0, name
    assert (tmp_path / "out" / "md.toml").is_file()
