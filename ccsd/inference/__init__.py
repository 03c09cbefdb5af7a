"""From a network and images of any size to region probabilities for every wanted combination of modalities."""

from ccsd.inference.window import Segmenter, predict_probabilities

__all__ = ["Segmenter", "predict_probabilities"]
