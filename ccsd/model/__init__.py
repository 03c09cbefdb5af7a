"""The network, and reading a trained one back."""

from ccsd.model.net import Features, SharedSpecificNet
from ccsd.model.weights import Run, load_run

__all__ = ["Features", "Run", "SharedSpecificNet", "load_run"]
