"""Examples in docstrings (``>>>``) as blocks of code: plain text would make quotations of them."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^[ \t]*>>> .*\n?(?:^[ \t]*\S.*\n?)*)+", re.MULTILINE)


class Examples(Extension):
    """Fences every run of lines that begins with ``>>>``, up to the next empty line."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring and ">>> " in obj.docstring.value:
            value = obj.docstring.value
            obj.docstring.value = EXAMPLE.sub(lambda m: fenced(m[0]), value)


def fenced(block: str) -> str:
    return f"```pycon\n{block.rstrip()}\n```\n"
