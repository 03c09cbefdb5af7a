"""Trained models as single files: writing and reading them, finding them by name or address, describing them."""
