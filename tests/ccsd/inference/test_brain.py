"""The brain that images show, outside of which nothing is painted."""

import torch

from ccsd.inference.brain import brain_of, cut


def ball(radius: float = 10.0, size: int = 28) -> torch.Tensor:
    axis = torch.arange(size) - size // 2
    d, h, w = torch.meshgrid(axis, axis, axis, indexing="ij")
    return (d**2 + h**2 + w**2) <= radius**2


def test_the_brain_is_what_any_image_shows() -> None:
    whole = ball()
    upper, lower = whole.float(), -whole.float()  # negative values are brain, too
    upper[14:], lower[:14] = 0, 0
    assert torch.equal(brain_of(torch.stack([upper, lower])), whole)
    assert torch.equal(brain_of(upper[None]), upper != 0)


def test_what_is_0_in_the_head_is_brain_even_where_it_opens_to_the_surface() -> None:
    whole = ball()
    ventricle, cavity = whole.clone(), whole.clone()
    ventricle[12:16, 12:16, 8:20] = False
    cavity[10:18, 10:18, :10] = False  # cut away up to the edge of the image
    assert torch.equal(brain_of(ventricle[None].float()), whole)
    found = brain_of(cavity[None].float())
    assert not (found & ~whole).any()
    lost = (whole & ~found).nonzero() - 14
    assert (lost.float().norm(dim=1) > 8).all()  # a cap as thin as the head is round
    assert (found & ~cavity).sum() > 0.75 * (whole & ~cavity).sum()


def test_nothing_is_brain_where_no_image_shows_any_and_beside_it() -> None:
    assert not brain_of(torch.zeros(2, 4, 5, 6)).any()
    two = torch.zeros(1, 9, 9, 9)
    two[0, 4, 4, [1, 7]] = 1
    assert brain_of(two).sum() == 2  # on both sides along one axis only


def test_probabilities_outside_become_0_and_their_share_is_told() -> None:
    brain = torch.zeros(2, 2, 2, dtype=torch.bool)
    brain[0] = True
    probabilities = torch.full((3, 2, 2, 2), 0.9)
    assert cut(probabilities, brain).item() == 0.5
    assert torch.equal(probabilities > 0, brain.expand(3, 2, 2, 2))
    assert cut(torch.zeros(3, 2, 2, 2), brain).item() == 0
