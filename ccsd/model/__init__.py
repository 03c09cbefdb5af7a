"""The network, and reading a trained one back."""

from ccsd.model.net import Features, SharedSpecificNet
from ccsd.model.weights import TrainedModel, load_model

__all__ = ["Features", "SharedSpecificNet", "TrainedModel", "load_model"]
