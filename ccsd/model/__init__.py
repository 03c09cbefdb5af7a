"""The network, and reading a trained one back."""

from ccsd.model.files import Run, load_run
from ccsd.model.net import Features, SharedSpecificNet

__all__ = ["Features", "Run", "SharedSpecificNet", "load_run"]
