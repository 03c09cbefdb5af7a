"""What tests of several folders share; `plain` is the training that ours must equal."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
