"""The exception tree: one root, and built-in bases where callers expect them."""

import pytest

from pet_calc import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_error_descends_from_the_root_and_says_what_it_is(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.PetCalcError)
    assert error.__doc__
    assert name in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "name", ["DatasetError", "InvalidStructureError", "UnsupportedElementError"]
)
def test_bad_input_is_a_value_error(name: str) -> None:
    assert issubclass(getattr(errors, name), ValueError)


def test_all_lists_every_error() -> None:
    defined = [n for n, v in vars(errors).items() if isinstance(v, type)]
    assert errors.__all__ == sorted(defined)
