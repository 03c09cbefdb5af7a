"""Turn the results of a study into tables with intervals and one readable page."""

from ccsd.report.page import write_report
from ccsd.report.statistics import compare, summarise

__all__ = ["compare", "summarise", "write_report"]
