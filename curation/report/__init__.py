"""The report of a curation run: one self-contained HTML file for people, ``summary.json`` for machines."""

from curation.report.data import Account, ReportInput, StageUse, Step, WeightUse
from curation.report.render import build

__all__ = ["Account", "ReportInput", "StageUse", "Step", "WeightUse", "build"]
