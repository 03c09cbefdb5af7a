"""Segmenting new cases with whatever sequences they have."""

from ccsd.prediction.predict import Options, Outcome, predict

__all__ = ["Options", "Outcome", "predict"]
