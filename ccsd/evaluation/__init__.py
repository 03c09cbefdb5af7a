"""Score a model on the test cases of a study, or any folder of segmentations against a folder of references."""

from ccsd.evaluation.tables import read_metrics

__all__ = ["read_metrics"]
