"""Reports of an ensemble: one HTML page that opens offline, and a static picture. Names load on first use."""

from importlib import import_module

_WHERE = {
    "CheckRow": "data",
    "Citation": "data",
    "ConformerRow": "data",
    "Ensembles": "data",
    "KeyFigure": "data",
    "ReportData": "data",
    "StageRow": "data",
    "TorsionPanel": "data",
    "main_picture": "picture",
    "write_report": "page",
}

__all__ = [*_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'orbitwise.report' has no attribute {name!r}")
    value = getattr(import_module(f"orbitwise.report.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
