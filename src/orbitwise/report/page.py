"""The report page: one HTML file that holds everything it shows and opens offline."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbitwise.data.folder import replacing
from orbitwise.errors import InputError
from orbitwise.report import cells, ensemble_view
from orbitwise.report.blocks import (
    Checks,
    Cost,
    KeyFigure,
    Meanings,
    Method,
    Picture,
    Provenance,
    Table,
    Text,
)
from orbitwise.report.cells import Cells
from orbitwise.report.drawing import Drawing
from orbitwise.report.ensemble import Ensemble
from orbitwise.report.numbers import count, duration

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

Block = Text | Table | Picture | Checks | Cost | Meanings | Method | Provenance | Ensemble | Cells
# what the templates of some blocks need besides the block: figures, data of the viewer, text
_VIEWS: Mapping[type, Callable[[Any], dict]] = {Ensemble: ensemble_view.view, Cells: cells.view}
_HERE = Path(__file__).parent


def now() -> str:
    """Date and time of a page."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True)
class Page:
    """A title with ``blocks`` below it, drawn in their order. The head holds, above the title, what
    ``kind`` of page this is, below it a ``subtitle``, the answer in a sentence (``lead``) and the
    ``key_figures``, and beside it the ``drawing`` of a molecule; above everything a ``banner``:
    what has to be known before anything is read."""

    title: str
    blocks: tuple[Block, ...] = ()
    kind: str = ""
    subtitle: str = ""
    banner: str = ""
    lead: str = ""
    key_figures: tuple[KeyFigure, ...] = ()
    drawing: Drawing | None = None
    created: str = field(default_factory=now)


def write_report(path: str | Path, page: Page) -> Path:
    """Write ``page`` as a self-contained file to ``path`` (atomically) and return the path.

    plotly.js is embedded once; the file carries a content policy that forbids loading anything. All
    text of ``page`` is escaped. Raises ``InputError`` where the file cannot be written.
    """
    path = Path(path)
    text = render(page)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the report {path}: {error.strerror}") from error
    return path


def render(page: Page) -> str:
    """The page as text."""
    from markupsafe import Markup

    environment = _environment()
    views = [_VIEWS.get(type(block), _nothing)(block) for block in page.blocks]
    sections = [
        environment.get_template(f"{type(block).__name__.lower()}.html").render(block=block, **view)
        for block, view in zip(page.blocks, views, strict=True)
    ]

    moving = any(view.get("figures") or view.get("viewer") for view in views)
    return environment.get_template("page.html").render(
        page=page,
        formula=Markup(page.drawing.formula) if page.drawing else "",
        svg=Markup(page.drawing.svg) if page.drawing else "",
        sections=[Markup(section) for section in sections],
        style=_file("style.css"),
        scripts=[_plotly(), _file("viewer.js")] if moving else [],
    )


def _nothing(block: Block) -> dict:
    return {}


@cache
def _environment() -> Environment:
    """The templates, everything escaped, with the filters that they use."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "base64": lambda data: b64encode(data).decode("ascii"),
        "count": count,
        "duration": duration,
        "figure": lambda figure: _inside_script(figure.to_json()),
        "data": lambda value: _inside_script(json.dumps(value)),
    }
    return environment


def _file(name: str) -> Markup:
    from markupsafe import Markup

    return Markup((_HERE / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> Markup:
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))


def _inside_script(text: str) -> Markup:
    """JSON that cannot end the script element it stands in."""
    from markupsafe import Markup

    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(safe)
