"""Numbers that cannot be meant, in every numeric key of every configuration, found by discovery:
one line each, that names the key."""

from __future__ import annotations

import typing

import pytest
from pydantic import BaseModel

from orbitwise.errors import InputError
from orbitwise.methods.audits.config import AuditConfig
from orbitwise.methods.crystals.found import CrystalsConfig
from orbitwise.runs.config import validate
from orbitwise.runs.registry import cards, config_class

REST = {
    "smiles": "CCO",
    "data": "x",
    "task": "forces",
    "energy": {"name": "forty_gaussians"},
    "formula": "SrTiO3",
}
CLASSES = {name: config_class(name) for name in cards()}
CLASSES |= {"audit": AuditConfig, "crystals": CrystalsConfig}


def numeric(model: type[BaseModel], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[type]]:
    """Paths to the numeric keys below ``model`` that a plain file may have, with their types."""
    found = {}
    for key, field in model.model_fields.items():
        flat = options(field.annotation)
        models = [o for o in flat if isinstance(o, type) and issubclass(o, BaseModel)]
        if len(models) == 1:
            found |= numeric(models[0], (*path, key))
        elif not models and {int, float} & set(flat) and not {str, bool, tuple, dict} & set(flat):
            found[(*path, key)] = set(flat)
    return found


def options(annotation) -> list:
    plain = typing.get_origin(annotation)
    if plain in (tuple, dict, typing.Literal):
        return [plain]
    arguments = typing.get_args(annotation)
    return [o for a in arguments for o in options(a)] if arguments else [annotation]


def given(schema: type[BaseModel], path: tuple[str, ...], value: object) -> dict:
    values = {k: v for k, v in REST.items() if k in schema.model_fields}
    at = values
    for key in path[:-1]:
        at = at.setdefault(key, {})
    at[path[-1]] = value
    return values


@pytest.mark.parametrize("name", CLASSES)
def test_every_number(name):
    schema = CLASSES[name]
    keys = numeric(schema)
    assert keys
    for path, kinds in keys.items():
        wrong = [float("inf"), float("nan"), float("-inf"), "1e999", "ten", [1], {"a": 1}]
        wrong += [2**64, 10**400, -1] if "seed" in path[-1] else []
        wrong += [] if type(None) in kinds else [None]
        wrong += [10**400] if float in kinds else [1.5]
        for value in wrong:
            with pytest.raises(InputError, match=r"\b" + r"\.".join(path) + r"\b") as raised:
                validate(schema, given(schema, path, value))
            assert "\n" not in str(raised.value) and len(str(raised.value)) < 600


def test_seeds_are_those_that_every_random_stream_takes():
    for name, schema in CLASSES.items():
        for path in numeric(schema):
            if path[-1] == "seed" or path[-1].endswith("_seed"):
                for seed in (0, 2_000_000_000):
                    try:
                        validate(schema, given(schema, path, seed))
                    except InputError as error:  # of a part that needs more keys
                        assert "seed" not in str(error), (name, path)
