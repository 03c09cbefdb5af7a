"""From a network and images of any size and spacing to region probabilities for every wanted combination."""

from ccsd.inference.case import is_resampled, segment_case, training_spacing
from ccsd.inference.window import Segmenter, predict_probabilities

__all__ = ["Segmenter", "is_resampled", "predict_probabilities", "segment_case", "training_spacing"]
