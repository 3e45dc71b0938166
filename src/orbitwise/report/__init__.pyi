# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.report.blocks import CheckRow as CheckRow
from orbitwise.report.blocks import Checks as Checks
from orbitwise.report.blocks import Citation as Citation
from orbitwise.report.blocks import Cost as Cost
from orbitwise.report.blocks import KeyFigure as KeyFigure
from orbitwise.report.blocks import Meanings as Meanings
from orbitwise.report.blocks import Method as Method
from orbitwise.report.blocks import Picture as Picture
from orbitwise.report.blocks import Provenance as Provenance
from orbitwise.report.blocks import StageRow as StageRow
from orbitwise.report.blocks import Table as Table
from orbitwise.report.blocks import Text as Text
from orbitwise.report.cells import CellRow as CellRow
from orbitwise.report.cells import Cells as Cells
from orbitwise.report.drawing import Drawing as Drawing
from orbitwise.report.ensemble import Beside as Beside
from orbitwise.report.ensemble import ConformerRow as ConformerRow
from orbitwise.report.ensemble import Distributions as Distributions
from orbitwise.report.ensemble import Ensemble as Ensemble
from orbitwise.report.ensemble import FreeEnergy as FreeEnergy
from orbitwise.report.ensemble import TorsionPanel as TorsionPanel
from orbitwise.report.page import Page as Page
from orbitwise.report.page import write_report as write_report
from orbitwise.report.picture import main_picture as main_picture

__all__: list[str]
_WHERE: dict[str, str]
