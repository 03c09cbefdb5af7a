"""One case through the network: painted where it was computed, and a GPU that is too small for it."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccsd.evaluation import read_metrics
from ccsd.evaluation.run import evaluate_model
from ccsd.inference.case import paint_tensor
from ccsd.inference.predict import predict
from ccsd.metrics import paint
from ccsd.model import SharedSpecificNet
from preprocess.task import shipped_tasks
from support.processes import ccsd_here

TASKS = list(shipped_tasks().values())


@given(data=st.data(), task=st.sampled_from(TASKS))
def test_painting_on_the_device_gives_the_label_map_that_numpy_gives(data, task):
    near = st.floats(0, 1, width=32) | st.sampled_from([0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.0, 1.0])
    probabilities = data.draw(hnp.arrays(np.float32, (len(task.regions), 2, 3, 2), elements=near))
    painted = paint_tensor(torch.from_numpy(probabilities), task)

    assert painted.dtype == torch.uint8
    assert np.array_equal(painted.numpy(), paint(probabilities, task))


def test_painting_rejects_any_other_number_of_regions():
    with pytest.raises(ValueError, match="zip"):
        paint_tensor(torch.zeros(2, 1, 1, 1), TASKS[0])


@pytest.fixture
def small_gpu(monkeypatch):
    """A device without memory for one combination of one window."""

    def segment(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(SharedSpecificNet, "segment", segment)


@pytest.mark.usefixtures("small_gpu")
def test_a_gpu_that_is_too_small_is_one_message_of_evaluate(made_study, tmp_path):
    options = ("--model", made_study / "runs/ccsd-s0", "--data", made_study / "data", "--out", tmp_path / "out")
    done = ccsd_here("evaluate", *options, "--workers", 1)

    assert done.returncode == 2
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    for words in ("GPU does not have enough memory", "24 x 24 x 24", "nvidia-smi", "--device cpu", "train.patch"):
        assert words in message


@pytest.mark.usefixtures("small_gpu")
def test_a_gpu_that_is_too_small_for_one_case_is_told_of_that_case_by_predict(made_study, tmp_path):
    cases = sorted((made_study / "phantoms").iterdir())
    found = list(predict([case for case in cases if case.is_dir()], tmp_path / "out", made_study / "runs/ccsd-s0"))

    assert len(found) == 4
    assert all("GPU does not have enough memory" in (prediction.error or "") for prediction in found)


def test_what_fits_in_smaller_portions_scores_the_same(made_study, evaluated_study, tmp_path, monkeypatch):
    original = SharedSpecificNet.segment

    def segment(self, image, subsets, decode_batch=8, encoded=None):
        if len(image) > 1 or decode_batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, image, subsets, decode_batch, encoded)

    monkeypatch.setattr(SharedSpecificNet, "segment", segment)
    found = read_metrics(evaluate_model(made_study / "runs/ccsd-s0", made_study / "data", tmp_path / "out"))
    expected = read_metrics(evaluated_study / "evaluation/ccsd-s0/all/metrics.tsv")
    pd.testing.assert_frame_equal(found, expected, rtol=0.01)  # a voxel may change by rounding
