"""The entry that every benchmark shares: options, the data that it needs, and quick runs.

    if __name__ == "__main__":
        benchmark(main, needs=[DATA], quick={"SIZES": (5,), "minutes": 0.02})

The signature of ``main`` says what can be given: what stands before its ``*`` by place, the rest as
``--name VALUE``. A ``Sequence`` takes several values, a ``Literal`` is a choice, ``set_`` is
``--set``, and everything has a default.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from benchmarks.tools.places import nothing_kept


def benchmark(
    main: Callable[..., None],
    *,
    needs: Sequence[Path | str] = (),
    quick: Mapping[str, Any] | None = None,
) -> None:
    """Run ``main`` with the options of the command line.

    Where a file or an installed package that it ``needs`` is missing, say so and leave. ``--quick``
    checks in seconds that the script still runs: the constants of the script (capitals) and the
    defaults of ``main`` that ``quick`` names take its values, and nothing that is written stays.
    """
    script, quick = main.__globals__, quick or {}
    constants = {name: value for name, value in quick.items() if name.isupper()}
    parser = parser_of(main, "\n".join(filter(None, (script["__doc__"], inspect.getdoc(main)))))
    if unknown := constants.keys() - script.keys():
        raise ValueError(f"the script has no {', '.join(sorted(unknown))}")
    hurried = "--quick" in sys.argv[1:]
    if hurried:
        parser.set_defaults(**{k: v for k, v in quick.items() if k not in constants})
    given = vars(parser.parse_args())
    del given["quick"]

    missing = [str(need) for need in needs if not is_there(need)]
    if missing:
        print(f"skipped: not there: {', '.join(missing)}")
    elif hurried:
        script.update(constants)
        with nothing_kept():
            main(**given)
    else:
        main(**given)


def is_there(need: Path | str) -> bool:
    """A path, or the name of a package."""
    return need.exists() if isinstance(need, Path) else find_spec(need) is not None


def parser_of(main: Callable[..., None], description: str) -> argparse.ArgumentParser:
    """The options that the signature of ``main`` has, and ``--quick``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    hints = typing.get_type_hints(main)
    for name, parameter in inspect.signature(main).parameters.items():
        by_place = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        settings: dict[str, Any] = {"default": parameter.default}
        kind, several = plain(hints[name])
        if kind is bool:
            settings["action"] = "store_true"
        else:
            settings |= reading(kind)
            if several or by_place:
                settings["nargs"] = "*" if several else "?"
        if by_place:
            parser.add_argument(name, **settings)
        else:
            parser.add_argument("--" + name.rstrip("_"), dest=name, **settings)
    parser.add_argument("--quick", action="store_true", help="check that it runs, keep nothing")
    return parser


def plain(hint: Any) -> tuple[Any, bool]:
    """What one value is, without ``| None``, and whether there may be several."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is Sequence:
        return typing.get_args(hint)[0], True
    return hint, False


def reading(kind: Any) -> dict[str, Any]:
    """How argparse reads one value; its own ``choices`` refuses the default of a missing list."""
    if typing.get_origin(kind) is not Literal:
        return {"type": kind}
    choices = typing.get_args(kind)

    def chosen(word: str) -> str:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(choices)}")
        return word

    return {"type": chosen, "metavar": "|".join(choices)}
