"""Scores of segmentations: overlap, surface distance, lesion-wise; with an explicit policy for empty regions."""

from ccsd.metrics.case import Reference
from ccsd.metrics.policy import Policy
from ccsd.metrics.regions import clean_up, cleanup_label, paint, region_mask
from ccsd.metrics.surface import hd95

__all__ = ["Policy", "Reference", "clean_up", "cleanup_label", "hd95", "paint", "region_mask"]
