"""Reports of an ensemble: one HTML page that opens offline, and a static picture. Names load on
first use."""

from orbitwise.lazy import load_on_first_use

_WHERE = {
    "CellRow": "data",
    "CheckRow": "data",
    "Citation": "data",
    "ConformerRow": "data",
    "Ensembles": "data",
    "FreeEnergy": "data",
    "KeyFigure": "data",
    "Picture": "data",
    "ReportData": "data",
    "StageRow": "data",
    "Table": "data",
    "TorsionPanel": "data",
    "main_picture": "picture",
    "write_report": "page",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
