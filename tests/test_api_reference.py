"""docs/api.md: complete, and generated from the docstrings as they are."""

import importlib.util

import pytest

import pet_calc


@pytest.fixture(scope="module")
def make_api(repo_root):
    spec = importlib.util.spec_from_file_location("make_api", repo_root / "docs" / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_is_up_to_date(make_api):
    written = make_api.TARGET.read_text(encoding="utf-8")
    assert written == make_api.page(), "run python docs/make_api.py"


def test_every_public_name_has_an_entry(make_api):
    text = make_api.TARGET.read_text(encoding="utf-8")
    for name in make_api.MODULES:
        public = {n for n in importlib.import_module(name).__all__ if not n.startswith("__")}
        assert not [n for n in public if f"### `{n}`\n" not in text], name


def test_a_changed_docstring_is_noticed(make_api, monkeypatch):
    monkeypatch.setattr(pet_calc.relax, "__doc__", "Something else.")
    assert make_api.TARGET.read_text(encoding="utf-8") != make_api.page()


def test_a_docstring_becomes_markdown(make_api):
    def example(atoms, *, steps=3):
        r"""Do it, see :func:`relax`.

        .. math:: E = m c^2

        Parameters
        ----------
        atoms : Atoms
            With a calculator.
        """

    text = make_api.entry("example", example)
    for part in (
        "### `example`",
        "example(atoms, *, steps=3)",
        "see `relax`",
        "```math\nE = m c^2\n```",
        "**Parameters**",
        "- `atoms` : Atoms\n  With a calculator.",
    ):
        assert part in text
