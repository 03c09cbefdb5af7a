"""The network, and loading a trained one."""

from ccsd.model.net import Features, SharedSpecificNet
from ccsd.model.network import Network
from ccsd.model.plugin import build_network
from ccsd.model.weights import TrainedModel, load_model

__all__ = ["Features", "Network", "SharedSpecificNet", "TrainedModel", "build_network", "load_model"]
