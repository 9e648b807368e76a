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
from pet_calc.io.models.files import CONFIG, WEIGHTS
from pet_calc.io.models.weights import save_model


@dataclass(frozen=True)
class Verb:
    """A command line, the files that it writes, and its exit codes for good input."""

    command: str
    writes: tuple[str, ...] = ()
    success: tuple[int, ...] = (0,)
    #: Odd structures that it takes: all, those that are periodic in three dimensions, or not even
    #: these, as with the fit of a curve that random weights do not have.
    takes: str = "all"


STRUCTURE_VERBS = {
    "md": Verb("md {file} --model {model} --steps 1 --out {out}", ("md.toml", "log.csv")),
    # 3: with warnings, since random weights know no symmetry
    "doctor": Verb(
        "doctor {file} --model {model} --quick --json {out}/d.json", ("d.json",), (0, 3)
    ),
    "relax": Verb(
        "relax {file} --model {model} --fmax 1e9 --out {out}", ("relax.toml", "relax.csv")
    ),
    "elastic": Verb(
        "elastic {file} --model {model} --no-relax --clamp-ions --points 3 --out {out}",
        ("elastic.toml", "elastic.json"),
        takes="crystals",
    ),
    "eos": Verb(
        "eos {file} --model {model} --no-relax --clamp-ions --points 5 --out {out}",
        ("eos.toml", "eos.json"),
        takes="none",
    ),
    "neb": Verb(
        "neb {file} {file} --model {model} --images 1 --steps 0 --out {out}",
        ("neb.toml", "neb.json"),
        takes="none",
    ),
    "phonons": Verb(
        "phonons {file} --model {model} --no-relax --supercell 2,2,2 --mesh 20 --symprec 1e-5 "
        "--t-step 500 --q-spacing 0.5 --out {out}",
        ("phonons.toml", "phonons.json"),
        takes="crystals",
    ),
    "qha": Verb(
        "qha {file} --model {model} --no-relax --supercell 1,1,1 --points 5 --out {out}",
        ("qha.toml", "qha.json"),
        takes="none",
    ),
}
NEEDS = {"phonons": "phonopy", "qha": "phonopy", "elastic": "matscipy"}
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
    """A labeled frame of an extended XYZ file; `atoms` are "O x y z" without forces."""
    cell = f'Lattice="{lattice}" ' if lattice else ""
    header = f'{cell}pbc="{pbc}" Properties={properties}:forces:R:3 energy=-1.0'
    return "\n".join([str(len(atoms)), header, *(f"{a} 0.1 0 0" for a in atoms)]) + "\n"


WATER = ("O 0 0 0", "H 0.76 0.59 0", "H -0.76 0.59 0")

#: Content of a structure file (None: there is no file) and what the error must say.
UNREADABLE = "cannot be read|could not be read"
ZERO_VECTOR = "every periodic direction needs a lattice vector"
OVERLAP = "nearly touch|at least 0.1 Å apart|atoms on top of each other"
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
        r"covers.*but the structure contains Au|must cover all data, but .* has Au too",
    ),
    "unknown element at an impossible distance": (
        frame(atoms=("Au 0 0 0.7", *WATER)),
        r"covers.*but the structure contains Au|must cover all data, but .* has Au too",
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
NO_CRYSTALS = ("slab without a third vector", "molecule", "isolated atom")


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


@pytest.fixture(autouse=True)
def optional_packages(request):
    """Skip the verbs whose extras are not installed."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("verb")
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])


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
    # what a verb tells while it works stands before
    assert re.search(r"(^|\s)Error: ", error), error
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


ACCEPTED = [
    (name, case)
    for name, verb in VERBS.items()
    for case in ODD_STRUCTURES
    if verb.takes == "all" or (verb.takes == "crystals" and case not in NO_CRYSTALS)
    # phonopy's cells are right-handed; the error says how to make them so
    if (name, case) != ("phonons", "left-handed")
]


@pytest.mark.parametrize(("verb", "case"), ACCEPTED)
def test_odd_structures_are_accepted(verb, case, run):
    code, error = run(VERBS[verb], repeated(verb, ODD_STRUCTURES[case]))
    assert code in VERBS[verb].success, error
    assert "Error: " not in error


@pytest.mark.parametrize("case", ["slab without a third vector", "molecule", "isolated atom"])
@pytest.mark.parametrize("verb", ["elastic", "eos", "phonons", "qha"])
def test_what_is_no_crystal_is_refused_where_one_is_needed(verb, case, run, earlier):
    unchanged = earlier(VERBS[verb])
    refused(
        *run(VERBS[verb], ODD_STRUCTURES[case], "--overwrite"), "periodic(ity)? in (all )?three"
    )
    unchanged()


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
    ("md", "--steps -1", 1, "`steps` must not be negative"),
    ("md", "--dtype float16", 2, "not one of"),
    ("md", "--device quantum", 1, "`device` must be"),
    ("md", "--ensemble npt-magic", 2, "not one of"),
    ("doctor", "--picoseconds -1", 1, "`picoseconds` must be a positive"),
    ("doctor", "--temperature nan", 1, "`temperature` must be a positive"),
    ("doctor", "--dtype float16", 2, "not one of"),
    ("doctor", "--device quantum", 1, "`device` must be"),
    ("doctor", "--calculator ase.calculators.emt:EMT", 2, "brings its own model"),
    ("doctor", "--config absent.toml", 1, "there is no options file"),
    ("md", "--guard contakt=0.5", 1, "`guard` must be name=value with one of contact"),
    ("md", "--guard contact=close", 1, "`guard` contact must be a number"),
    ("md", "--guard forces_uncertainty=0.1", 1, "gives no forces_uncertainty"),
    ("md", "--non-conservative forces", 1, "head"),
    ("md", "--variant nothing", 1, "nothing"),
    ("md", "--ecse exact", 2, "not one of"),
    ("md", "--kernels fast", 2, "not one of"),
    ("md", "--kernels triton --device cpu", 1, "kernels"),
    ("relax", "--fmax 0", 1, "`fmax` must be a positive"),
    ("relax", "--guard energy_uncertainty=0.1", 1, "gives no energy_uncertainty"),
    ("relax", "--pressure 1", 1, "a pressure acts on the volume"),
    ("relax", "--optimizer newton", 2, "not one of"),
    ("relax", "--steps -1", 1, "`steps` must not be negative"),
    ("relax", "--dtype float16", 2, "not one of"),
    ("elastic", "--strain 0", 1, "`strain` must lie"),
    ("elastic", "--points 1", 1, "`points` must be"),
    ("eos", "--span 2", 1, "`span` must be"),
    ("eos", "--points 2", 1, "`points` must be"),
    ("neb", "--images 0", 1, "`images` must be"),
    ("neb", "--fmax nan", 1, "`fmax` must be"),
    ("phonons", "--distance 0", 1, "`distance` must be"),
    ("phonons", "--supercell 2,2", 1, "`supercell`"),
    ("phonons", "--supercell zwei", 2, "write whole numbers"),
    ("phonons", "--born absent", 1, "there is no file of Born charges"),
    ("qha", "--points 2", 1, "`points` must be"),
    ("qha", "--span 1.1,1.2", 1, "`span` must be"),
    *(
        (verb, "--config absent.yaml", 1, "there is no options file")
        for verb in ("md", "relax", "elastic", "eos", "neb", "phonons", "qha", "evaluate")
    ),
    ("evaluate", "--dtype float16", 2, "not one of"),
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
    for content, message in (("quik = true", "does not have"), ("quick = ", "malformed")):
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


#: Files that ``analyze`` cannot make sense of. Elements and distances are no matter of its.
BAD_TRAJECTORIES = {
    name: BAD_STRUCTURES[name]
    for name in (
        *("absent file", "empty file", "not a structure", "truncated", "no atoms"),
        *("NaN position", "infinite position", "no such element", "periodic without a cell"),
        *("one zero vector", "flat cell", "NaN in the cell"),
    )
}
ANALYZE = Verb("analyze {file} --out {out}", ("analyze.toml", "summary.json"))


@pytest.mark.parametrize("case", BAD_TRAJECTORIES)
def test_bad_trajectories_are_refused(case, run, earlier):
    content, message = BAD_TRAJECTORIES[case]
    unchanged = earlier(ANALYZE)
    for text in {content, content and 3 * frame(atoms=WATER) + content}:
        refused(*run(ANALYZE, text, "--overwrite"), message)
        unchanged()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--observables color", "color"),
        ("--observables diffusion", "diffusion"),
        ("--interval 0", "must be"),
        ("--r-max -1", "must be"),
        ("--resolution nan", "must be"),
        ("--temperature -5", "must be"),
        ("--lammps-species O,H", "LAMMPS"),
    ],
)
def test_bad_options_of_analyze_are_refused(words, message, run, earlier):
    unchanged = earlier(ANALYZE)
    code, error = run(ANALYZE, 4 * frame(atoms=WATER), "--overwrite", *words.split())
    assert code == 1, error
    assert message in error, error
    unchanged()


def test_analyze_takes_odd_frames(run):
    for name, content in ODD_STRUCTURES.items():
        code, error = run(ANALYZE, 4 * content, "--overwrite")
        assert code == 0, (name, error)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no folder"),
        ({}, "recognized by its settings file"),
        ({"notes.txt": "hello"}, "recognized by its settings file"),
        ({"md.toml": "steps ="}, "malformed"),
        ({"md.toml": "steps = 1"}, "trajectory.traj, which does not exist"),
        ({"md.toml": "", "trajectory.traj": "torn", "log.csv": ""}, "cannot be read"),
        ({"relax.toml": ""}, "relaxed.extxyz, which does not exist"),
        ({"phonons.toml": ""}, "primitive.extxyz, which does not exist"),
        ({"md.toml": "", "relax.toml": ""}, "several verbs"),
    ],
    ids=str,
)
def test_folders_without_a_run_have_no_report(files, message, run, tmp_path):
    if files is not None:
        (tmp_path / "out").mkdir()
        for name, content in files.items():
            (tmp_path / "out" / name).write_text(content)
    refused(*run(Verb("report {out}"), None), message)
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.json", None, "there is no file or folder"),
        ("broken.json", "{", "cannot be read"),
        ("broken.toml", "a =", "cannot be read"),
        ("broken.traj", "torn", "cannot be read"),
        ("broken.xyz", "torn", "cannot be read"),
        ("broken.png", "torn", "cannot be read"),
    ],
)
def test_files_that_cannot_be_shown(name, content, message, run, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    refused(*run(Verb(f"show {tmp_path / name}"), None), message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.ckpt", None, "there is none at"),
        ("broken.ckpt", "torn", "."),
        ("pickle.ckpt", "\x80\x04N.", "."),
        ("notes.txt", "hello", "must be a checkpoint"),
    ],
)
def test_models_that_cannot_be_imported(name, content, message, run, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    refused(*run(Verb("models import %s --out {out}" % (tmp_path / name)), None), message)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_the_harness_sees_success(run, tmp_path):
    """Positive control of all above: labeled structures do pass, and files are written."""
    atoms = liquid()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
    write(tmp_path / "good.xyz", [atoms] * 3)
    content = (tmp_path / "good.xyz").read_text()
    for name, verb in VERBS.items():
        if name != "doctor" and verb.takes == "all":
            assert run(verb, content)[0] == 0, name
            if name == "md":
                assert (tmp_path / "out" / "md.toml").is_file()
                # a training keeps its hands off the log of another run
                assert run(VERBS["train"], content)[0] == 1
            if (tmp_path / "out").exists():
                shutil.rmtree(tmp_path / "out")
