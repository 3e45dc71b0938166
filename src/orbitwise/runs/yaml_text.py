"""YAML as settings need it: mappings, lists, texts, numbers, true, false and null, within bounds.

What YAML has beyond that is refused at once, with its line: aliases (400 bytes of them stand for a
list of 10⁹), tags of other types, merge keys, depth without end. A date is a text.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from orbitwise.errors import InputError

LONGEST, DEEPEST = 200_000, 40  # characters of a file, mappings and lists in each other
_PLAIN = "tag:yaml.org,2002:"
_OTHER = ("timestamp", "merge", "value")  # what a plain scalar is not taken for
# YAML 1.2, and everyone: 1e-3 is a number
_POWER = re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass
class Document:
    """What a file says: its ``values``, the ``lines`` of its dotted keys, and those of its
    ``texts``."""

    values: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)


def read_yaml(path: Path) -> Document:
    """The mapping that is the file ``path``, in UTF-8, UTF-16 with its mark, Windows-1252 or
    Latin-1.

    Raises ``InputError`` in one line, with file and line, for anything else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(4 * LONGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    found = _parsed(_decoded(content, path), str(path))
    if found.values is None and not found.lines:
        raise InputError(f"{path}: the file is empty")
    if not isinstance(found.values, dict):
        raise InputError(
            f"{path}: must be a list of 'key: value' lines, found {str(found.values)[:40]!r}"
        )
    return found


def yaml_value(text: str, where: str) -> Any:
    """The value that a text stands for, as in ``key=value``; ``InputError`` as ``read_yaml``."""
    return _parsed(text, where).values


def in_yaml(values: Any) -> str:
    """A text that ``read_yaml`` reads as ``values``, in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _decoded(content: bytes, path: Path) -> str:
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252", "latin-1"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not _CONTROL.search(text):
            return text
        break
    raise InputError(f"{path}: not a text file in YAML")


def _parsed(text: str, where: str) -> Document:
    if len(text) > LONGEST:
        raise InputError(f"{where}: more than {LONGEST:,} characters are no settings")
    found = Document()
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            found.values = _Reader(where, found).value(node, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        # the parser lets some through, as of "\UFFFFFFFF"
        raise InputError(f"{where}: not a text file in YAML") from None
    return found


class _Loader(yaml.SafeLoader):
    """Composes nodes, never objects."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in kinds if tag.removeprefix(_PLAIN) not in _OTHER]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor} is not read; write it out", event.start_mark
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(
                None, None, f"nested more than {DEEPEST} deep", self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.add_implicit_resolver(f"{_PLAIN}float", _POWER, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """Writes twice what stands twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(f"{_PLAIN}float", _POWER, list("-+0123456789"))


class _Reader:
    """Values of nodes, with the lines where they stand."""

    def __init__(self, where: str, found: Document):
        self.where, self.found = where, found
        self.plain = yaml.constructor.SafeConstructor()

    def wrong(self, node: yaml.Node, what: str) -> InputError:
        return InputError(f"{self.where}, line {node.start_mark.line + 1}: {what}")

    def strange(self, node: yaml.Node) -> InputError:
        tag = node.tag[:60].replace(_PLAIN, "!!")
        return self.wrong(node, f"the tag {tag} is not read here")

    def value(self, node: yaml.Node, name: str) -> Any:
        kind = node.tag.removeprefix(_PLAIN)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self.mapping(node, name)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(each, f"{name}.{k}") for k, each in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, kind)
        raise self.strange(node)

    def mapping(self, node: yaml.MappingNode, name: str) -> dict[str, Any]:
        made, lines = {}, self.found.lines
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.wrong(key, "a key is a word, not a list or a mapping")
            self.text(key)
            if key.value == "<<":
                raise self.wrong(key, "merge keys (<<) are not read; write the keys out")
            dotted, line = f"{name}.{key.value}" if name else key.value, key.start_mark.line + 1
            if key.value in made:
                raise self.wrong(key, f"{dotted} is given twice (first in line {lines[dotted]})")
            lines.setdefault(dotted, line)
            made[key.value] = None
            made[key.value] = self.value(value, dotted)
        return made

    def scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        if kind == "str":
            self.found.texts.setdefault(self.text(node), node.start_mark.line + 1)
            return node.value
        make = {
            "null": self.plain.construct_yaml_null,
            "bool": self.plain.construct_yaml_bool,
            "int": self.plain.construct_yaml_int,
            "float": self.plain.construct_yaml_float,
        }.get(kind)
        if make is None:
            raise self.strange(node)
        shown = node.value if len(node.value) < 40 else f"{node.value[:30]}..."
        if len(node.value) > 400:
            raise self.wrong(node, f"{shown} is too long for a number")
        try:
            made = make(node)
        except (ValueError, ArithmeticError, LookupError):
            raise self.wrong(node, f"{shown!r} is no {kind}") from None
        if isinstance(made, int) and abs(made) >= 2**63:
            raise self.wrong(node, f"{shown} is too large a number")
        return made

    def text(self, node: yaml.ScalarNode) -> str:
        if _CONTROL.search(node.value):
            raise self.wrong(node, f"{node.value[:40]!r} holds characters that are no text")
        return node.value
