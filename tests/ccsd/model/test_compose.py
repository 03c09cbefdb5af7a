"""Composition against its definition, slot by slot."""

import torch
from torch import Tensor
from torch.nn import functional

from ccsd.model.compose import SubsetProjection, bottleneck_slots
from support.tasks import GLIOMA, SUBSETS

MASKS = torch.tensor([[m in s for m in GLIOMA.modalities] for s in SUBSETS])


def slots_by_definition(own: Tensor, shared: Tensor, subset: Tensor) -> Tensor:
    """One sample, M x C x ...: own features inside the subset, the mean of the shared ones over it elsewhere."""
    mean = torch.stack([shared[m] for m in range(4) if subset[m]]).mean(0)
    return torch.cat([own[m] if subset[m] else mean for m in range(4)])


def test_bottleneck_slots_match_the_definition() -> None:
    fused, shared = torch.randn(2, 2, 4, 3, 2, 2, 2)
    result = bottleneck_slots(fused, shared, MASKS.expand(2, -1, -1), range(4)).unflatten(0, (2, 15))
    for k, mask in enumerate(MASKS):
        for b in range(2):
            torch.testing.assert_close(result[b, k], slots_by_definition(fused[b], shared[b], mask))


def test_projection_matches_a_convolution_over_the_slots() -> None:
    torch.manual_seed(0)
    projection = SubsetProjection(4, 3, 5)
    features = torch.randn(2, 4, 3, 2, 3, 2)
    onto = torch.randn(30, 5, 2, 3, 2)
    up = lambda x, shift: x + shift.view(1, -1, 1, 1, 1)  # noqa: E731
    result = projection(features, MASKS.expand(2, -1, -1), range(4), up, onto)
    result = result.unflatten(0, (2, 15))
    weight = projection.weight.permute(1, 0, 2).flatten(1)[..., None, None, None]
    for k, mask in enumerate(MASKS):
        for b in range(2):
            slots = slots_by_definition(features[b], features[b], mask)
            expected = onto[15 * b + k] + functional.conv3d(slots[None], weight, projection.bias)[0]
            torch.testing.assert_close(result[b, k], expected, rtol=1e-4, atol=1e-5)
