# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.report.data import CellRow as CellRow
from orbitwise.report.data import CheckRow as CheckRow
from orbitwise.report.data import Citation as Citation
from orbitwise.report.data import ConformerRow as ConformerRow
from orbitwise.report.data import Ensembles as Ensembles
from orbitwise.report.data import FreeEnergy as FreeEnergy
from orbitwise.report.data import KeyFigure as KeyFigure
from orbitwise.report.data import Picture as Picture
from orbitwise.report.data import ReportData as ReportData
from orbitwise.report.data import StageRow as StageRow
from orbitwise.report.data import Table as Table
from orbitwise.report.data import TorsionPanel as TorsionPanel
from orbitwise.report.page import write_report as write_report
from orbitwise.report.picture import main_picture as main_picture

__all__: list[str]
_WHERE: dict[str, str]
