"""Every public name shows how it is used, and what it shows is true."""

import doctest

import pytest

import orbitwise as ow


def examples(name: str) -> doctest.DocTest:
    """Those of the name's own docstring, not of its methods."""
    public = getattr(ow, name)
    return doctest.DocTestParser().get_doctest(public.__doc__ or "", {}, name, None, None)


@pytest.mark.parametrize("name", ow._WHERE)
def test_the_example_of_a_public_name_runs(name):
    shown = examples(name)
    assert any(example.want for example in shown.examples), f"{name} has no example with a result"

    said: list[str] = []
    failed = doctest.DocTestRunner().run(shown, out=said.append).failed
    assert not failed, "".join(said)
