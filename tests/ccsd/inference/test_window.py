"""Sliding windows over volumes of any size, with networks whose answer is known."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ccsd.config import Config
from ccsd.inference.window import _batch_voxels, blend, predict_probabilities, subset_masks
from ccsd.model import SharedSpecificNet
from support.tasks import GLIOMA, SUBSETS


class PointwiseNet:
    """Answers voxel by voxel from the modalities in each subset, and counts what it is asked."""

    def __init__(self):
        self.windows, self.batches = [], []

    def segment(self, image, subsets, decode_batch=8, encoded=None):
        self.windows += [tuple(image.shape[2:])] * len(image)
        self.batches.append(len(image))
        assert set(encoded) == set(subsets.any(0).nonzero().flatten().tolist())
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
    pytest.importorskip("monai", reason="a tool of development")
    from monai.inferers.utils import sliding_window_inference

    def predictor(window):
        ramp = torch.linspace(0, 1, window.shape[-1])
        return window.cumsum(2)[:, :2] * ramp

    image = torch.randn(4, *shape, generator=torch.Generator().manual_seed(3))
    found = blend(lambda window, _: predictor(window), image, 2, (16, 12, 8), overlap, image.device)
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

    def segment(self, image, subsets, decode_batch=8, encoded=None):
        ramp = torch.linspace(-3, 3, image.shape[-1])
        return super().segment(image, subsets, decode_batch, encoded) * 0 + ramp


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


class SmallGPU(PointwiseNet):
    """Has memory for so many windows times combinations, and says so as a GPU does."""

    def __init__(self, room):
        super().__init__()
        self.room, self.rejected = room, []

    def segment(self, image, subsets, decode_batch=8, encoded=None):
        if len(image) * min(decode_batch, len(subsets)) > self.room:
            self.rejected.append((len(image), decode_batch))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().segment(image, subsets, decode_batch, encoded)


TRIED = [(24, 8), (12, 8), (6, 8), (3, 8), (2, 8), (1, 8), (1, 4), (1, 2)]


@pytest.mark.parametrize(("room", "rejected"), [(192, []), (191, TRIED[:1]), (8, TRIED[:5]), (1, TRIED)])
def test_what_a_gpu_has_no_memory_for_is_computed_in_smaller_portions(room, rejected):
    image = torch.randn(4, 48, 48, 48, generator=torch.Generator().manual_seed(4))
    net = SmallGPU(room)
    found = predict_probabilities(net, image, SUBSETS, GLIOMA, patch=(16, 16, 16), overlap=0)

    assert net.rejected == rejected
    assert len(net.windows) == 27
    assert torch.equal(
        found, predict_probabilities(PointwiseNet(), image, SUBSETS, GLIOMA, patch=(16, 16, 16), overlap=0)
    )


def test_a_gpu_that_cannot_decode_one_combination_of_one_window_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        predict_probabilities(SmallGPU(0), torch.ones(4, 16, 16, 16), SUBSETS, GLIOMA, patch=(16, 16, 16))


@pytest.mark.parametrize(
    ("free_gib", "kept_gib", "side", "windows"),
    [(75, 0, 128, 4), (30, 45, 128, 4), (20, 0, 128, 1), (1, 0, 128, 1), (75, 0, 64, 32), (20, 0, 64, 13)],
)
def test_windows_computed_together_on_a_gpu_follow_from_its_free_memory(monkeypatch, free_gib, kept_gib, side, windows):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_gib * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: (kept_gib + 1) * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2**30)
    assert max(1, _batch_voxels(torch.device("cuda")) // side**3) == windows


class Exchanges(TorchDispatchMode):
    """Counts what makes the host wait for the device: values that it reads, and copies between the two."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "_local_scalar_dense" or (name == "_to_copy" and not kwargs.get("non_blocking")):
            to = torch.device(kwargs.get("device") or args[0].device).type
            if name != "_to_copy" or {to, args[0].device.type} == {"cpu", "meta"}:
                self.found.append(name)
        return function(*args, **kwargs)


class OnDevice:
    """A network on the device `meta`, which stands in for a GPU: it has no values that the host could read."""

    def __init__(self):
        model = Config.model_validate(
            {"name": "x", "phantom": {"cases": 1, "size": 32}, "model": {"width": 4, "levels": 3}}
        ).model
        self.net, self.number = SharedSpecificNet(model, GLIOMA).to("meta").eval(), 0

    def segment(self, *arguments, **options):
        self.number += 1
        return self.net.segment(*arguments, **options)


def test_the_host_waits_for_the_device_before_the_first_window_only(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.ones(self.shape, dtype=self.dtype))
    counts = {}
    for windows in (1, 4):
        net = OnDevice()
        with Exchanges() as exchanges:
            predict_probabilities(
                net, torch.ones(4, 48, 48, 48 * windows, device="meta"), SUBSETS, GLIOMA, patch=(48, 48, 48), overlap=0
            )
        assert net.number == windows
        counts[windows] = len(exchanges.found)
    assert counts[1] == counts[4] <= 2, exchanges.found
