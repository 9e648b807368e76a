"""README.md says what is so: its example runs, its commands exist, its links resolve."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def _blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def _command(mark: str) -> str:
    found = re.search(rf"<!-- {mark} command -->\n```bash\n(.*?)```", README, flags=re.DOTALL)
    assert found is not None, f"README.md has no {mark} command"
    return found.group(1).rstrip("\n")


def _verb_calls() -> list[list[str]]:
    """Every ``pet-calc <verb> ...`` of README's shell blocks, without the program's name."""
    calls = []
    for block in _blocks("bash"):
        for part in re.split(r"&&|\n", block):
            words = shlex.split(part, comments=True)
            if words and Path(words[0]).name == "pet-calc":
                calls.append(words[1:])
    return calls


def _assert_same_output(printed: str, promised: str) -> None:
    """Same words; numbers within one unit of the last promised digit, or 1 %."""
    assert NUMBER.sub("#", printed.strip()) == NUMBER.sub("#", promised.strip())
    for got, want in zip(NUMBER.findall(printed), NUMBER.findall(promised), strict=True):
        digits = len(want.partition(".")[2]) if "e" not in want else 0
        assert float(got) == pytest.approx(float(want), rel=1e-2, abs=1.01 * 10.0**-digits)


def test_number_comparison_can_fail() -> None:
    _assert_same_output("E = 1.234 eV", "E = 1.235 eV")
    with pytest.raises(AssertionError):
        _assert_same_output("E = 1.234 eV", "E = 1.334 eV")
    with pytest.raises(AssertionError):
        _assert_same_output("energy 1.2", "force 1.2")


def test_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = _blocks("python")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(example, "<example of README.md>", "exec"), {"__name__": "__main__"})
    assert out.getvalue().strip()
    for promised in _blocks("text")[:1]:
        _assert_same_output(out.getvalue(), promised)


@pytest.mark.parametrize("mark", ["main", "test"])
def test_command_is_one_line_that_pins_versions(mark: str) -> None:
    command = _command(mark)
    assert "\n" not in command
    steps = [shlex.split(step) for step in command.split("&&")]
    assert steps[0] == ["python3.11", "-m", "venv", ".venv"]
    assert steps[1][:6] == [".venv/bin/python", "-m", "pip", "install", "-c", "constraints.txt"]
    assert all(step[0].startswith(".venv/bin/") for step in steps[1:])


def test_ci_takes_its_test_command_from_the_readme() -> None:
    script = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    expression = re.search(r"sed -n '([^']+)' README\.md", script)
    assert expression is not None
    done = subprocess.run(
        ["sed", "-n", expression.group(1), "README.md"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.rstrip("\n") == _command("test")


def test_test_command_installs_the_tools_that_ci_uses() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dev = {re.split(r"[\[<>=]", item)[0] for item in project["optional-dependencies"]["dev"]}
    assert '-e ".[dev]"' in _command("test")
    assert {"pytest", "ruff", "mypy", "import-linter"} <= dev


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=]", item)[0] for item in wanted} - {"pet-calc"}
    pins = re.findall(
        r"^([\w.-]+)==[\w.]+$", (REPO / "constraints.txt").read_text(), flags=re.MULTILINE
    )
    assert names <= set(pins)
    assert "torch==2.13.0" in (REPO / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("call", _verb_calls(), ids=lambda call: call[0])
def test_verb_and_its_options_exist(call: list[str]) -> None:
    program = "import sys; sys.argv[0] = 'pet-calc'; from pet_calc.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, call[0], "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    for word in call[1:]:
        if word.startswith("--"):
            option = word.partition("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", done.stdout), option


def test_a_verb_is_named() -> None:
    assert "md" in {call[0] for call in _verb_calls()}


def test_table_lists_the_shipped_potentials_and_no_others() -> None:
    index = tomllib.loads((REPO / "potentials" / "index.toml").read_text(encoding="utf-8"))
    shipped = {entry["name"] for entry in index["potential"]}
    listed = re.findall(r"^\| `((?:pet|crystalformer)-[\w-]+-v\d+)` \|", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted(shipped)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_resolve(page: str) -> None:
    text = (REPO / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not re.match(r"\w+:", target):
            assert (REPO / target).exists(), target
