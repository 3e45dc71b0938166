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
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError
from orbitwise.runs.said import Stored, texts_in
from orbitwise.runs.yaml_text import Document, in_yaml, read_yaml, yaml_value

PRESETS = Path(str(files("orbitwise.methods"))) / "presets"
HERE, OWN = "(part)", "(own part)"  # of a choice: one that is here, or the user's own

# what every random stream takes, that of RDKit in 32 bits included, with room for seed + 1
Seed = Annotated[int, Field(ge=0, le=2_000_000_000)]


@dataclass(frozen=True)
class Plan:
    """What a run will take: trainable ``parameters``, expected evaluations of the energy, and where
    they are counted those of the model."""

    parameters: int
    energy_calls: int
    model_calls: int | None = None


class Config(BaseModel):
    """Base of all configurations: unknown keys are refused, nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, as plain JSON types."""
        return self.model_dump(mode="json")


Model = TypeVar("Model", bound=BaseModel)


def presets() -> list[str]:
    """Names of the shipped presets, ``METHOD/NAME``."""
    return sorted(
        path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.yaml")
    )


def load(source: str | Path, overrides: Sequence[str] = (), *, trust: bool = False) -> Config:
    """The configuration of a YAML file or preset with dotted ``key=value`` overrides applied.

    The file names its ``method``, which decides the keys. ``orbit_diffusion`` is short for the
    preset ``orbit_diffusion/default``. Without ``trust`` no code that the file names will run
    (``runs.said``); what ``overrides`` name was said by the user. Raises ``InputError`` for a file
    that does not exist or is not YAML (with the line), an unknown method or key (with the nearest
    valid name), or a value of the wrong kind.
    """
    path = _find(source)
    document = read_yaml(path)
    shown = path.name if path.is_relative_to(PRESETS) else str(path)
    places = {key: f"{shown}, line {n}" for key, n in document.lines.items()}
    schema, values = _schema(path, document), dict(document.values)
    del values["method"]
    typed = [text for o in overrides for text in texts_in(_apply(schema, values, places, o))]
    stored = Stored(shown, trust, document.texts, frozenset(typed))
    return validate(schema, values, places, stored)


def _schema(path: Path, document: Document) -> type[Config]:
    """The configuration class of the method that a file names."""
    from orbitwise.runs.registry import config_class

    return config_class(_method(path, document))


def _method(path: Path, document: Document) -> str:
    from orbitwise.runs.registry import card

    name = document.values.get("method")
    if not name:
        raise InputError(
            f"{path}: there is no 'method:'; name one, for instance method: orbit_diffusion"
        )
    try:
        return card(str(name)).name
    except InputError as error:
        raise InputError(f"{path}, line {document.lines['method']}: {error}") from None


def validate(
    schema: type[Model],
    values: Mapping[str, Any],
    places: Mapping[str, str] | None = None,
    stored: Stored | None = None,
) -> Model:
    """``schema(values)`` with ``InputError`` instead of pydantic's report: one line for all
    mistakes; ``places`` says where the key ``a.b`` was written, ``stored`` where all of it comes
    from."""
    try:
        return schema.model_validate(dict(values), context=stored)
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


def _apply(
    schema: type[BaseModel], values: dict[str, Any], places: dict[str, str], override: str
) -> Any:
    """Put an override into ``values``; what it says."""
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not last or not all(parents):
        raise InputError(
            f"{override!r}: give overrides as key=value, for instance train.steps=2000"
        )
    at = values
    for k, parent in enumerate(parents):
        value = at.setdefault(parent, {})
        if isinstance(value, str) and _place(schema, parents[: k + 1]).own:
            at[parent] = {"name": value} if ":" in value else {}  # the name alone, or another part
        at = at[parent]
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
    return at[last]


def _value(schema: type[BaseModel], parents: Sequence[str], last: str, text: str) -> Any:
    """YAML, except where text is wanted: the SMILES ``[NH4+]`` is no list and ``NO`` is not
    false."""
    models = _place(schema, parents).models
    fields = [m.model_fields[last] for m in models if last in m.model_fields]
    wanted = {option for field in fields for option in _options(field.annotation)}
    if any(isinstance(option, type) and issubclass(option, str | Path) for option in wanted):
        return None if text == "null" and type(None) in wanted else text
    try:
        return yaml_value(text, "".join(f"{part}." for part in parents) + last)
    except InputError:
        return text


def _explain(schema: type[BaseModel], problem: Mapping[str, Any], places: Mapping[str, str]) -> str:
    location = [str(part) for part in problem["loc"] if part != HERE]
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
    got = repr(problem["input"])
    got = got if len(got) < 200 else f"{got[:150]}..."
    return f"{key or 'configuration'}{place}: {message}, got {got}".replace("\n", " ")


@dataclass(frozen=True)
class _Place:
    """Where a location leads: its ``keys``, the configuration classes that may be there, and the
    key ``tag`` that tells them apart where there are several; ``choice``: the one that was made, of
    a ``family``; ``own``: the class of a part of the user's own among them."""

    keys: tuple[str, ...]
    models: tuple[type[BaseModel], ...]
    tag: str | None = None
    choice: str = ""
    family: _Place | None = None
    own: type[BaseModel] | None = None

    def chosen(self, name: str) -> tuple[type[BaseModel], ...]:
        """The classes of the choice ``name``; one's own is named by ``OWN`` or with a colon."""
        own = name == OWN or ":" in name
        return tuple(m for m in self.models if (own if m is self.own else name in self._names(m)))

    def _names(self, model: type[BaseModel]) -> tuple[str, ...]:
        field = model.model_fields.get(self.tag or "")
        return () if field is None else typing.get_args(field.annotation)

    def owners(self, key: str) -> list[str]:
        """The other choices that have the key."""
        if self.family is None:
            return []
        having = [m for m in self.family.models if key in m.model_fields]
        return [name for model in having for name in self.family._names(model)]


def _place(schema: type[BaseModel], location: Sequence[str]) -> _Place:
    """What the dotted ``location`` leads to; pydantic's reports put names of choices into it."""
    place = _Place((), (schema,))
    for part in location:
        if place.tag and (chosen := place.chosen(part)):
            word = "your own part" if part == OWN else part
            place = _Place(place.keys, chosen, choice=word, family=place)
            continue
        fields = [m.model_fields[part] for m in place.models if part in m.model_fields]
        options = [option for field in fields for option in _options(field.annotation)]
        models = [a for a in options if isinstance(a, type) and issubclass(a, BaseModel)]
        tags = [field.discriminator for field in fields if field.discriminator]
        marks = [mark for field in fields for mark in field.metadata if hasattr(mark, "or_own")]
        own = marks[0].or_own if marks else None
        tags += [mark.tag for mark in marks]
        place = _Place(
            (*place.keys, part),
            (*models, own) if own else tuple(models),
            tags[0] if tags else None,
            own=own,
        )
    return place


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type itself."""
    unions = (typing.Union, types.UnionType)
    return typing.get_args(annotation) if typing.get_origin(annotation) in unions else (annotation,)


def save_run(config: Config, folder: str | Path) -> None:
    """Leave ``FOLDER/config.yaml``: the method and every value, as ``load`` reads it."""
    from orbitwise.runs.registry import name_of

    text = in_yaml({"method": name_of(config), **config.resolved()})
    with replacing(Path(folder) / "config.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_run(folder: str | Path, *, trust: bool = False) -> Config:
    """The configuration that ``save_run`` left, as ``load``; raises ``InputError`` where there is
    none."""
    method_of_run(folder)
    return load(Path(folder) / "config.yaml", trust=trust)


def method_of_run(folder: str | Path) -> str:
    """The method that made a run folder; raises ``InputError`` for anything else."""
    path = Path(folder) / "config.yaml"
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder (there is no config.yaml in it)")
    return _method(path, read_yaml(path))
