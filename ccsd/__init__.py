"""Cross-Modal Compositional Self-Distillation: brain-tumour segmentation from any set of MRI sequences."""

__version__ = "0.1.0"
