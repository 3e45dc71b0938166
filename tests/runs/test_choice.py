"""Parts of a configuration that are chosen by name: their own keys, those of others, files of
version 0.1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pytest
import yaml
from pydantic import BeforeValidator, Field

from orbitwise.errors import InputError
from orbitwise.runs.choice import Choice, named, with_all_keys
from orbitwise.runs.config import Config, load, validate


class Shape(Choice):
    flat: ClassVar = {"radius": 1.0, "edge": 2.0}


class Ball(Shape):
    name: Literal["ball"] = "ball"
    radius: float = Field(1.0, gt=0)


class Cube(Shape):
    name: Literal["cube", "box"] = "cube"
    edge: float = 2.0


class Cone(Shape):
    """Not there in version 0.1."""

    name: Literal["cone"] = "cone"
    slope: float = 0.5


class Things(Config):
    shape: Annotated[
        Ball | Cube | Cone, Field(discriminator="name"), BeforeValidator(named("ball"))
    ] = Ball()


def things(**shape) -> Things:
    return validate(Things, {"shape": shape})


def test_a_choice_has_only_its_own_keys():
    assert things(name="box").resolved() == {"shape": {"name": "box", "edge": 2.0}}
    assert things(radius=3.0).shape == Ball(radius=3.0)  # the default choice needs no name
    assert things(name="cube", radius=1.0) == things(name="cube")  # as another's default


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "ball", "edge": 3.0}, "unknown key 'shape.edge' of ball; edge belongs to cube"),
        ({"name": "cube", "slope": 0.5}, "unknown key 'shape.slope' of cube; slope belongs to con"),
        ({"radios": 3.0}, "unknown key 'shape.radios' of ball; did you mean 'shape.radius'"),
        ({"radius": 0.0}, "^shape.radius: should be greater than 0, got 0.0"),
        ({"name": "bal"}, "^shape.name: should be 'ball', 'cube', 'box' or 'cone', got 'bal'"),
    ],
)
def test_what_is_wrong_is_said(shape, message):
    with pytest.raises(InputError, match=message):
        things(**shape)


def test_files_of_version_0_1_keep_all_their_keys():
    """One that was turned into another choice holds the former one's values, and its finished
    stages belong to all of them."""
    written = {"name": "ball", "radius": 3.0, "edge": 7.0}
    found = things(**written)
    assert found.shape.radius == 3.0 and with_all_keys(found)["shape"] == written
    assert found.resolved()["shape"] == written
    assert things(**found.resolved()["shape"]) == found
    assert with_all_keys(things(name="ball", radius=3.0))["shape"] == written | {"edge": 2.0}
    assert with_all_keys(things(name="cone"))["shape"] == {
        **{"name": "cone", "slope": 0.5},
        **{"radius": 1.0, "edge": 2.0},
    }


def test_another_choice_on_the_command_line_leaves_the_former_keys_behind(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"method": "sgds", "energy": {"name": "many_well", "dim": 64}}))
    assert load(path, ["energy.name=lennard_jones"]).energy.points == 13
    assert load(path, ["energy.name=lennard_jones", "energy.points=5"]).energy.points == 5
    assert load(path, ["energy.dim=8"]).energy.dim == 8
    with pytest.raises(InputError, match=r"'energy.dim' of lennard_jones \(command line\)"):
        load(path, ["energy.dim=8", "energy.name=lennard_jones"])
