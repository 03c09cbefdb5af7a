"""Augmentation: reproducible by sample; background and absent modalities stay 0; image and label move alike."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from ccsd.data import augment, intensity, spatial

KEYS = [(0, 7, i) for i in range(3)]
EVERY = [
    intensity.noise,
    intensity.blur,
    intensity.brightness,
    intensity.contrast,
    intensity.low_resolution,
    intensity.gamma,
]


@pytest.fixture
def sample() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 4, 12, 14, 10, generator=generator)
    image[..., :3, :, :] = 0
    image[1, 2] = 0
    label = torch.randint(0, 4, (3, 12, 14, 10), generator=generator, dtype=torch.uint8)
    available = torch.ones(3, 4, dtype=torch.bool)
    available[1, 2] = False
    return image, label, available


def test_the_same_key_gives_the_same_result_in_any_batch(sample: tuple[Tensor, Tensor, Tensor]) -> None:
    image, label, available = sample
    together = augment(image, label, available, KEYS)
    for k in range(3):
        alone = augment(image[k : k + 1], label[k : k + 1], available[k : k + 1], KEYS[k : k + 1])
        assert torch.equal(alone[0][0], together[0][k])
        assert torch.equal(alone[1][0], together[1][k])
    assert not torch.equal(together[0], augment(image, label, available, [(1, 7, i) for i in range(3)])[0])


def test_the_input_is_left_alone(sample: tuple[Tensor, Tensor, Tensor]) -> None:
    image, label, available = sample
    before = image.clone(), label.clone()
    for step in range(20):
        augment(image, label, available, [(0, step, i) for i in range(3)])
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])


def test_shapes_types_and_values(sample: tuple[Tensor, Tensor, Tensor]) -> None:
    image, label, available = sample
    for step in range(20):
        varied, classes = augment(image, label, available, [(0, step, i) for i in range(3)])
        assert varied.shape == image.shape
        assert varied.dtype == torch.float32
        assert varied.isfinite().all()
        assert classes.dtype == torch.uint8
        assert set(classes.unique().tolist()) <= {0, 1, 2, 3}
        assert not varied[1, 2].any(), "an absent modality stays 0"


@pytest.mark.parametrize("change", EVERY)
def test_background_stays_zero(
    change: object, sample: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, label, available = sample
    module = __import__("ccsd.data.augment", fromlist=["_INTENSITY"])
    monkeypatch.setattr(module, "_INTENSITY", ((1.0, change),))
    monkeypatch.setattr(module, "_AFFINE", 0.0)
    monkeypatch.setattr(module, "_FLIP", 0.0)
    varied, classes = augment(image, label, available, KEYS)
    assert torch.equal(classes, label)
    assert not varied[image == 0].any()
    assert not torch.equal(varied, image), "something was changed"


def test_flips_move_image_and_label_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("ccsd.data.augment", fromlist=["_INTENSITY"])
    monkeypatch.setattr(module, "_INTENSITY", ())
    monkeypatch.setattr(module, "_AFFINE", 0.0)
    label = torch.randint(1, 4, (1, 5, 6, 7), dtype=torch.uint8)
    image = label[:, None].float().expand(1, 4, 5, 6, 7).contiguous()
    seen = set()
    for step in range(30):
        varied, classes = augment(image, label, torch.ones(1, 4, dtype=torch.bool), [(0, step, 0)])
        assert torch.equal(varied[:, 1], classes.float())
        seen.add(classes.numpy().tobytes())
    assert len(seen) == 8


def test_turning_moves_image_and_label_alike() -> None:
    axes = [torch.arange(n) - (n - 1) / 2 for n in (24, 32, 28)]
    inside = (axes[0][:, None, None] / 8) ** 2 + (axes[1][None, :, None] / 11) ** 2 + (axes[2][None, None] / 6) ** 2 < 1
    image = inside.float().expand(4, *inside.shape).contiguous()
    rngs = [np.random.default_rng(seed) for seed in range(5)]
    images, labels = image.expand(5, *image.shape), inside.to(torch.uint8).expand(5, *inside.shape)
    for turned, classes in zip(*spatial.turn_and_scale(images, labels, rngs), strict=True):
        agreement = ((turned[0] > 0.5) == (classes > 0)).float().mean()
        assert agreement > 0.985
        assert 0.4 < classes.sum() / inside.sum() < 2.2


@pytest.mark.parametrize("shape", [(9, 9, 9), (5, 9, 7)])
def test_a_quarter_turn_is_exact(shape: tuple[int, int, int]) -> None:
    """90 degrees about z, in a patch whose sides differ: voxels, not normalised coordinates, are turned."""
    image = torch.zeros(1, 1, *shape)
    d, h, w = (n // 2 for n in shape)
    image[0, 0, d, h, w + 2] = 1
    matrix = np.array([[[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    turned = torch.nn.functional.grid_sample(
        image, spatial.sampling_grid(matrix, shape, image.device), align_corners=False
    )
    assert turned[0, 0].argmax() in (torch.tensor(np.ravel_multi_index((d, h + s, w), shape)) for s in (-2, 2))
    assert turned.max() == pytest.approx(1, abs=1e-5)


def test_gamma_keeps_mean_and_deviation() -> None:
    image = torch.randn(2, 4, 16, 16, 16)
    mask = torch.ones_like(image, dtype=torch.bool)
    bent = intensity.gamma(image, mask, [np.random.default_rng(seed) for seed in (1, 2)])
    assert not torch.equal(bent[0], image[0])
    assert not torch.equal(bent[1], image[1])
    assert torch.allclose(bent.mean((2, 3, 4)), image.mean((2, 3, 4)), atol=1e-4)
    assert torch.allclose(bent.std((2, 3, 4)), image.std((2, 3, 4)), rtol=1e-3)


@pytest.mark.parametrize("change", [intensity.blur, intensity.low_resolution])
def test_filters_keep_a_constant_and_lower_a_spike(change: Callable[..., Tensor]) -> None:
    image = torch.full((2, 4, 20, 18, 22), 2.0)
    rngs = [np.random.default_rng(seed) for seed in (0, 1)]
    assert torch.allclose(change(image, image > 0, rngs), image, atol=1e-5)
    noisy = torch.randn(2, 4, 20, 18, 22, generator=torch.Generator().manual_seed(0))
    smooth = change(noisy, noisy != 0, rngs)
    weaker = smooth.std((2, 3, 4)) < noisy.std((2, 3, 4)) - 0.05
    same = (smooth == noisy).flatten(2).all(-1)
    assert weaker.any()
    assert same.any(), "half of the modalities are left alone"
    assert (weaker | same).all()


def test_blur_is_a_gaussian_along_each_axis() -> None:
    """Against scipy's, away from the borders, which it treats in another way."""
    volume = np.random.default_rng(0).normal(size=(20, 24, 22)).astype(np.float32)
    blurred = torch.from_numpy(volume)[None]
    for axis in (-3, -2, -1):
        matrix = torch.from_numpy(intensity.gaussian(volume.shape[axis], 1.1))
        blurred = intensity.along_axis(blurred, matrix[None], axis)
    expected = gaussian_filter(volume, 1.1, truncate=9)
    inner = (slice(7, -7),) * 3
    np.testing.assert_allclose(blurred[0].numpy()[inner], expected[inner], atol=1e-5)


@pytest.mark.parametrize(("voxels", "share"), [(20, 0.5), (21, 0.63), (32, 0.9), (1, 0.5)])
def test_low_resolution_is_what_torch_interpolates(voxels: int, share: float) -> None:
    line = torch.randn(1, 1, voxels)
    small = functional.interpolate(line, max(1, round(voxels * share)), mode="nearest-exact")
    expected = functional.interpolate(small, voxels, mode="linear", align_corners=False)
    found = torch.from_numpy(intensity.down_and_up(voxels, share)) @ line[0, 0]
    torch.testing.assert_close(found, expected[0, 0])


@pytest.mark.gpu
def test_on_a_gpu(sample: tuple[Tensor, Tensor, Tensor]) -> None:
    image, label, available = (tensor.cuda() for tensor in sample)
    first, second = (augment(image, label, available, KEYS) for _ in range(2))
    assert first[0].is_cuda
    assert torch.equal(first[1], second[1])
    assert torch.allclose(first[0], second[0], atol=1e-5)
