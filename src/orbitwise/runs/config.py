"""Configurations: typed, frozen, from a YAML file or a shipped preset, with ``key=value`` on top.

A key that does not exist is an error that names the nearest one that does and the line it stands
in.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError

PRESETS = Path(str(files("orbitwise.methods"))) / "presets"


@dataclass(frozen=True)
class Plan:
    """What a run will take: trainable ``parameters``, expected evaluations of the energy, and where
    they are counted those of the model."""

    parameters: int
    energy_calls: int
    model_calls: int | None = None


class Config(BaseModel):
    """Base of all configurations: unknown keys are refused, nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, as plain JSON types."""
        return self.model_dump(mode="json")


Model = TypeVar("Model", bound=BaseModel)


def presets() -> list[str]:
    """Names of the shipped presets, ``METHOD/NAME``."""
    return sorted(
        path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.yaml")
    )


def load(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file or preset with dotted ``key=value`` overrides applied.

    The file names its ``method``, which decides the keys. ``orbit_diffusion`` is short for the
    preset ``orbit_diffusion/default``. Raises ``InputError`` for a file that does not exist or is
    not YAML (with the line), an unknown method or key (with the nearest valid name), or a value of
    the wrong kind.
    """
    from orbitwise.runs.registry import config_class

    path = _find(source)
    values, lines = _read(path)
    places = {
        key: f"{path.name if path.is_relative_to(PRESETS) else path}, line {n}"
        for key, n in lines.items()
    }
    if "method" not in values:
        raise InputError(
            f"{path}: there is no 'method:'; name one, for instance method: orbit_diffusion"
        )
    schema = config_class(str(values.pop("method")))
    for override in overrides:
        _apply(schema, values, places, override)
    return validate(schema, values, places)


def validate(
    schema: type[Model], values: Mapping[str, Any], places: Mapping[str, str] | None = None
) -> Model:
    """``schema(values)`` with ``InputError`` instead of pydantic's report: one line for all
    mistakes; ``places`` says where the key ``a.b`` was written."""
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        problems = [_explain(schema, problem, places or {}) for problem in error.errors()]
        raise InputError("; ".join(dict.fromkeys(problems))) from None


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    for name in (f"{source}.yaml", f"{source}/default.yaml"):
        if (PRESETS / name).is_file():
            return PRESETS / name
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder; name a YAML file or a preset ({', '.join(presets())})"
        )
    near = get_close_matches(str(source), presets(), 1, 0.6)
    hint = f"did you mean {near[0]!r}? presets" if near else "presets"
    raise InputError(f"{path}: no such file or preset; {hint}: {', '.join(presets())}")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping of a YAML file and the line of each dotted key."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError(f"{path}: not a text file in YAML") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if node is None:
        raise InputError(f"{path}: the file is empty")
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: must be a list of 'key: value' lines, found {str(values)[:40]!r}"
        )
    lines: dict[str, int] = {}
    _lines(node, "", lines, path)
    return values, lines


def _lines(node: yaml.MappingNode, prefix: str, lines: dict[str, int], path: Path) -> None:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if name in lines:
            raise InputError(
                f"{path}, line {line}: {name} is given twice (first in line {lines[name]})"
            )
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _lines(value, f"{name}.", lines, path)


def _apply(
    schema: type[BaseModel], values: dict[str, Any], places: dict[str, str], override: str
) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not last or not all(parents):
        raise InputError(
            f"{override!r}: give overrides as key=value, for instance train.steps=2000"
        )
    at = values
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise InputError(f"{override!r}: {parent} has a value of its own and no parts")
    at[last] = _value(schema, parents, last, text)
    places[key] = "command line"

    place = _place(schema, parents)
    if last == place.tag:  # another choice: the file's keys of the former one go
        keys = {k for m in place.chosen(str(at[last])) for k in m.model_fields}
        for name in {k for m in place.models for k in m.model_fields} - keys:
            if places.get(".".join([*parents, name])) != "command line":
                at.pop(name, None)


def _value(schema: type[BaseModel], parents: Sequence[str], last: str, text: str) -> Any:
    """YAML, except where text is wanted: the SMILES ``[NH4+]`` is no list and ``NO`` is not
    false."""
    models = _place(schema, parents).models
    fields = [m.model_fields[last] for m in models if last in m.model_fields]
    wanted = {option for field in fields for option in _options(field.annotation)}
    if wanted & {str, Path}:
        return None if text == "null" and type(None) in wanted else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _explain(schema: type[BaseModel], problem: Mapping[str, Any], places: Mapping[str, str]) -> str:
    location = [str(part) for part in problem["loc"]]
    if problem["type"].startswith("union_tag"):  # of a choice: its name is wrong, or missing
        location.append(problem["ctx"]["discriminator"].strip("'"))
    parents = _place(schema, location[:-1])
    key = ".".join([*parents.keys, *location[-1:]])
    written = next((k for k in places if k == key or k.startswith(f"{key}.")), None)
    place = f" ({places[written]})" if written else ""

    if problem["type"] == "extra_forbidden":
        valid = list(dict.fromkeys(k for m in parents.models for k in m.model_fields))
        owners = parents.owners(location[-1])
        near = get_close_matches(location[-1], valid, 1, 0.5)
        prefix = "".join(f"{part}." for part in parents.keys)
        hint = f"did you mean {prefix + near[0]!r}?" if near else f"there are {', '.join(valid)}"
        if owners:
            hint = f"{location[-1]} belongs to {', '.join(owners)}"
        of = f" of {parents.choice}" if parents.choice else ""
        return f"unknown key {key!r}{of}{place}; {hint}"
    if problem["type"] in ("missing", "union_tag_not_found"):
        return f"{key} is required; give {key}=..."
    if problem["type"] == "union_tag_invalid":
        rest, comma, last = problem["ctx"]["expected_tags"].rpartition(", ")
        expected = f"{rest} or {last}" if comma else last
        return f"{key}{place}: should be {expected}, got {problem['ctx']['tag']!r}"

    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key or 'configuration'}{place}: {message}, got {problem['input']!r}".replace(
        "\n", " "
    )


@dataclass(frozen=True)
class _Place:
    """Where a location leads: its ``keys``, the configuration classes that may be there, and the
    key ``tag`` that tells them apart where there are several; ``choice``: the one that was made, of
    a ``family``."""

    keys: tuple[str, ...]
    models: tuple[type[BaseModel], ...]
    tag: str | None = None
    choice: str = ""
    family: _Place | None = None

    def chosen(self, name: str) -> tuple[type[BaseModel], ...]:
        return tuple(
            m for m in self.models if name in typing.get_args(m.model_fields[self.tag].annotation)
        )

    def owners(self, key: str) -> list[str]:
        """The other choices that have the key."""
        if self.family is None:
            return []
        having = [m.model_fields for m in self.family.models if key in m.model_fields]
        return [n for f in having for n in typing.get_args(f[self.family.tag].annotation)]


def _place(schema: type[BaseModel], location: Sequence[str]) -> _Place:
    """What the dotted ``location`` leads to; pydantic's reports put names of choices into it."""
    place = _Place((), (schema,))
    for part in location:
        if place.tag and (chosen := place.chosen(part)):
            place = _Place(place.keys, chosen, choice=part, family=place)
            continue
        fields = [m.model_fields[part] for m in place.models if part in m.model_fields]
        options = [option for field in fields for option in _options(field.annotation)]
        models = [a for a in options if isinstance(a, type) and issubclass(a, BaseModel)]
        tags = [field.discriminator for field in fields if field.discriminator]
        place = _Place((*place.keys, part), tuple(models), tags[0] if tags else None)
    return place


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type itself."""
    unions = (typing.Union, types.UnionType)
    return typing.get_args(annotation) if typing.get_origin(annotation) in unions else (annotation,)


def save_run(config: Config, folder: str | Path) -> None:
    """Leave ``FOLDER/config.yaml``: the method and every value, as ``load`` reads it."""
    from orbitwise.runs.registry import name_of

    text = yaml.safe_dump(
        {"method": name_of(config), **config.resolved()}, sort_keys=False, allow_unicode=True
    )
    with replacing(Path(folder) / "config.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_run(folder: str | Path) -> Config:
    """The configuration that ``save_run`` left; raises ``InputError`` where there is none."""
    method_of_run(folder)
    return load(Path(folder) / "config.yaml")


def method_of_run(folder: str | Path) -> str:
    """The method that made a run folder; raises ``InputError`` for anything else."""
    from orbitwise.runs.registry import card

    path = Path(folder) / "config.yaml"
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder (there is no config.yaml in it)")
    return card(str(_read(path)[0].get("method"))).name
