"""Sliding windows over volumes of any size, with networks whose answer is known."""

import pytest
import torch

from ccsd.inference.window import blend, predict_probabilities, subset_masks
from support.tasks import GLIOMA, SUBSETS


class PointwiseNet:
    """Answers voxel by voxel from the modalities in each subset, and counts what it is asked."""

    def __init__(self):
        self.windows, self.batches = [], []

    def segment(self, image, subsets, decode_batch=8):
        self.windows += [tuple(image.shape[2:])] * len(image)
        self.batches.append(len(image))
        seen = torch.einsum("km,bmdhw->kbdhw", subsets.float(), image)
        return torch.stack([seen, seen - 1, seen - 2], dim=2)


def expected(image, names):
    seen = sum(image[i] for i, m in enumerate(("flair", "t1", "t1ce", "t2")) if m in names)
    return torch.sigmoid(torch.stack([seen, seen - 1, seen - 2]))


@pytest.mark.parametrize("shape", [(16, 16, 16), (5, 20, 33), (1, 1, 1), (40, 17, 24)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_pointwise_network_gives_the_same_voxels_whatever_the_windows(shape, overlap):
    image = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    subsets = [GLIOMA.subset("t1ce"), GLIOMA.subset("flair+t2")]
    found = predict_probabilities(PointwiseNet(), image, subsets, GLIOMA, patch=(16, 16, 16), overlap=overlap)

    assert found.shape == (2, 3, *shape)
    for result, names in zip(found, subsets, strict=True):
        torch.testing.assert_close(result, expected(image, names), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "overlap"), [((16, 16, 16), 0.5), ((9, 20, 33), 0.25), ((40, 17, 3), 0.7)])
def test_windows_are_blended_as_by_monai(shape, overlap):
    from monai.inferers.utils import sliding_window_inference

    def predictor(window):
        ramp = torch.linspace(0, 1, window.shape[-1])
        return window.cumsum(2)[:, :2] * ramp

    image = torch.randn(4, *shape, generator=torch.Generator().manual_seed(3))
    found = blend(predictor, image, 2, (16, 12, 8), overlap, image.device)
    expected = sliding_window_inference(image[None], (16, 12, 8), 1, predictor, overlap=overlap, mode="gaussian")

    assert torch.equal(found, expected[0])


def test_each_window_is_encoded_once_for_all_subsets():
    one, all_of_them = PointwiseNet(), PointwiseNet()
    image = torch.ones(4, 24, 24, 24)
    predict_probabilities(one, image, [GLIOMA.subset("t2")], GLIOMA, patch=(16, 16, 16))
    predict_probabilities(all_of_them, image, SUBSETS, GLIOMA, patch=(16, 16, 16))

    assert len(one.windows) == len(all_of_them.windows) == 8


def test_all_subsets_together_equal_each_alone():
    image = torch.randn(4, 20, 18, 16, generator=torch.Generator().manual_seed(2))
    together = predict_probabilities(PointwiseNet(), image, SUBSETS, GLIOMA, patch=(16, 16, 16))

    for row, one in zip(together, SUBSETS, strict=True):
        alone = predict_probabilities(PointwiseNet(), image, [one], GLIOMA, patch=(16, 16, 16))[0]
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-6)


class LopsidedNet(PointwiseNet):
    """Adds the position along W, which only mirroring can average out."""

    def segment(self, image, subsets, decode_batch=8):
        ramp = torch.linspace(-3, 3, image.shape[-1])
        return super().segment(image, subsets) * 0 + ramp


def test_flips_average_over_the_eight_mirror_images():
    image = torch.ones(4, 8, 8, 8)
    net = LopsidedNet()
    found = predict_probabilities(net, image, [GLIOMA.subset("t1")], GLIOMA, patch=(8, 8, 8), flips=True)

    assert len(net.windows) == 8
    torch.testing.assert_close(found, torch.full_like(found, 0.5))


def test_masks_name_the_modalities_in_their_order():
    assert subset_masks([GLIOMA.subset("t1ce+flair")], GLIOMA).tolist() == [[True, False, True, False]]
    assert subset_masks(SUBSETS, GLIOMA).sum() == sum(name.count("+") + 1 for name in GLIOMA.subset_names)


def test_windows_without_brain_cost_nothing_and_hold_no_tumour():
    net = PointwiseNet()
    image = torch.zeros(4, 48, 48, 192)
    image[0, :, :, 60:90] = 3.0
    probabilities = predict_probabilities(net, image, [GLIOMA.subset("flair")], GLIOMA, patch=(48, 48, 48), overlap=0)
    assert len(net.windows) == 1
    assert probabilities[..., :48].sum() == 0
    assert (probabilities[0, 0, :, :, 60:90] > 0.9).all()


def test_a_window_that_some_images_do_not_show_changes_nothing_for_a_combination():
    image = torch.zeros(4, 16, 16, 32)
    image[0] = 1
    image[3, :, :, :16] = 1
    subsets = [GLIOMA.subset("flair"), GLIOMA.subset("t2")]
    together = predict_probabilities(PointwiseNet(), image, subsets, GLIOMA, patch=(16, 16, 16), overlap=0)

    for found, one in zip(together, subsets, strict=True):
        alone = predict_probabilities(PointwiseNet(), image, [one], GLIOMA, patch=(16, 16, 16), overlap=0)[0]
        assert torch.equal(found, alone)
    assert together[1, ..., 16:].max() == 0


@pytest.mark.parametrize(("patch", "together"), [((32, 40, 32), 2), ((16, 16, 16), 24), ((64, 64, 64), 1)])
def test_small_windows_are_computed_together(patch, together):
    net = PointwiseNet()
    image = torch.ones(4, *(3 * side for side in patch))
    predict_probabilities(net, image, [GLIOMA.subset("t2")], GLIOMA, patch=patch, overlap=0)

    assert net.batches[0] == together
    assert sum(net.batches) == 27
