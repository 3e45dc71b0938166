"""Reports: one HTML page made of blocks that opens offline, and static pictures. Names load on
first use."""

from orbitwise.lazy import load_on_first_use

_WHERE = {
    "Beside": "ensemble",
    "CellRow": "cells",
    "Cells": "cells",
    "CheckRow": "blocks",
    "Checks": "blocks",
    "Citation": "blocks",
    "ConformerRow": "ensemble",
    "Cost": "blocks",
    "Distributions": "ensemble",
    "Drawing": "drawing",
    "Ensemble": "ensemble",
    "FreeEnergy": "ensemble",
    "KeyFigure": "blocks",
    "Meanings": "blocks",
    "Method": "blocks",
    "Page": "page",
    "Picture": "blocks",
    "Provenance": "blocks",
    "StageRow": "blocks",
    "Table": "blocks",
    "Text": "blocks",
    "TorsionPanel": "ensemble",
    "main_picture": "picture",
    "write_report": "page",
}

__all__ = [*_WHERE]
__getattr__, __dir__ = load_on_first_use(__name__, _WHERE)
