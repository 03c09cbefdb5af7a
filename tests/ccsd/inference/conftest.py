"""A trained model and a case to predict."""

import shutil

import pytest


@pytest.fixture
def run(made_study, tmp_path):
    """Return a copy of the model, which can lie anywhere."""
    return shutil.copytree(made_study / "runs" / "ccsd-s0", tmp_path / "elsewhere" / "model")


@pytest.fixture
def case(made_study, tmp_path):
    """Return a copy of a case's folder in the 2020 naming."""
    source = next(p for p in sorted((made_study / "phantoms").iterdir()) if "BraTS20" in p.name)
    return shutil.copytree(source, tmp_path / source.name)
