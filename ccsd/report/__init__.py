"""From the results of a study to tables with intervals and one page that people like to read."""

from ccsd.report.page import write_report
from ccsd.report.statistics import compare, summarise

__all__ = ["compare", "summarise", "write_report"]
