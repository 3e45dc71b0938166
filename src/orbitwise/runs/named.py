"""What a user names as ``package.module:name``: imported, checked, and only then called."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from orbitwise.errors import InputError
from orbitwise.runs.said import may_run

own_files: set[str] = set()  # of the modules that were named: where a mistake is the user's


@dataclass(frozen=True)
class Kind:
    """What a named part must be: an object of ``bases``, or one that has all ``members``."""

    words: str
    bases: tuple[type, ...] = ()
    members: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def made_by_class(self, found: Any) -> bool:
        """Whether ``found`` is a class whose objects are of the kind."""
        if not isinstance(found, type):
            return False
        if self.bases:
            return issubclass(found, self.bases)
        return all(callable(getattr(found, method, None)) for method in self.methods)

    def has(self, found: Any) -> bool:
        """Whether ``found`` is one, and no class of them."""
        if isinstance(found, type):
            return False
        if self.bases:
            return isinstance(found, self.bases)
        return all(hasattr(found, member) for member in (*self.members, *self.methods))


@contextmanager
def importable_here() -> Iterator[None]:
    """Modules in the current folder can be imported, as for ``python -m``."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def load_named(name: str, what: str) -> Any:
    """The object ``package.module:name``, modules in the current folder included.

    ``what`` it is for, in the ``InputError`` for a name that only a file says (``said.may_run``),
    one of another form, a module that does not import, one without that attribute, or a function of
    Python itself.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise InputError(f"{what}: give package.module:name, got {str(name)!r}")
    may_run(name, what)
    try:
        with importable_here():
            whole = import_module(module)
            own_files.add(str(getattr(whole, "__file__", "")))
            found = getattr(whole, attribute)
    except (Exception, SystemExit) as error:  # the module runs a user's own code
        raise InputError(f"{what} {name}: {type(error).__name__}: {error}") from error
    root = str(getattr(found, "__module__", "")).partition(".")[0]
    if inspect.isroutine(found) and root in sys.stdlib_module_names:
        raise InputError(f"{what} {name}: is a function of Python itself, which is not called")
    return found


def check_named(name: str, what: str, kind: Kind, arguments: Mapping[str, Any]) -> Any:
    """What ``name`` stands for, if ``build_named`` can make an object of ``kind`` of it; nothing is
    called. Raises ``InputError`` as that does."""
    found = load_named(name, what)
    if not kind.has(found):
        check_factory(found, name, what, kind)
        _fitted(found, name, what, arguments, whole=False)
    elif arguments:
        raise InputError(f"{what} {name}: it is made already and takes no arguments")
    return found


def build_named(
    name: str,
    what: str,
    kind: Kind,
    arguments: Mapping[str, Any] | None = None,
    **offered: Any,
) -> Any:
    """The part that ``name`` stands for: an object of ``kind``; or a class of such objects, or a
    function annotated to return one, called with ``arguments``. Nothing else is ever called, but
    functions without annotations that the user typed himself.

    Of what is ``offered`` a call gets what it has parameters for and ``arguments`` do not give.
    Raises ``InputError`` as ``load_named``, for anything that is not of the kind, and for arguments
    that do not fit.
    """
    arguments = arguments or {}
    found = check_named(name, what, kind, arguments)
    if kind.has(found):
        return found
    try:
        takes = inspect.signature(found).parameters
    except (TypeError, ValueError):
        takes = {}
    given = {key: value for key, value in offered.items() if key in takes} | dict(arguments)
    _fitted(found, name, what, given)

    with importable_here():  # it may import its neighbours only now
        made = made_by(lambda: found(**given), name, what)
    if not kind.has(made):
        raise InputError(f"{what} {name}: returned {type(made).__name__}, not {kind.words}")
    return made


def _fitted(
    found: Any, name: str, what: str, arguments: Mapping[str, Any], *, whole: bool = True
) -> None:
    """``InputError`` where a call does not take ``arguments``, or needs more (``whole``)."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # of a class in C: the call will tell
        return
    try:
        (signature.bind if whole else signature.bind_partial)(**arguments)
    except TypeError as error:
        accepted = ", ".join(signature.parameters) or "none"
        raise InputError(f"{what} {name}: {error} (arguments it takes: {accepted})") from None


def check_factory(found: Any, name: str, what: str, kind: Kind) -> None:
    """``InputError`` unless it is a class of the ``kind``, a function that says that it returns
    one, or one that says nothing whose ``name`` does not come from a file."""
    if kind.made_by_class(found):
        return
    if not inspect.isfunction(found):
        shown = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise InputError(
            f"{what} {name}: must be {kind.words}, a class of them, or a function that returns one;"
            f" it is {shown}"
        )
    try:
        says = typing.get_type_hints(found).get("return")
    except Exception as error:  # an annotation that cannot be looked up
        raise InputError(f"{what} {name}: its annotations cannot be read ({error})") from None
    if says is None and getattr(name, "place", None) is None:
        return
    if not kind.made_by_class(says):
        said = "does not say what it returns" if says is None else f"says that it returns {says}"
        raise InputError(
            f"{what} {name}: a function that {said} is not called; annotate it to return"
            f" {kind.words}"
        )


def made_by(function: Callable[[], Any], name: str, what: str) -> Any:
    """What a function that was named returns; ``InputError`` as ``load_named`` where it fails."""
    try:
        return function()
    except (Exception, SystemExit) as error:  # a user's own code
        raise InputError(f"{what} {name}: {type(error).__name__}: {error}") from error


def needed(function: Callable[..., Any]) -> int:
    """How many arguments must be given; 3 where a function does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)
