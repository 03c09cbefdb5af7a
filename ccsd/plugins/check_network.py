"""Checks of a network alone: shapes, absent sequences, gradients, samples apart, determinism, sizes, memory.

Shapes: K subsets, B batch, M sequences, R regions, D H W space.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ccsd.config import Config
from ccsd.errors import UsageError
from ccsd.model import Network, build_network
from ccsd.plugins.outcome import Check, Outcome
from ccsd.precision import autocast
from preprocess.errors import first_few

BATCH = 2
CLOSE = 1e-4
"""How far logits may differ, as a share of their spread, when sums are taken in another order."""
BF16 = 0.2
"""The same in bfloat16, whose numbers have 8 significant bits."""
LEAST_SIDE = 16
MIB = 2**20


def patch_for(multiple: Sequence[int]) -> tuple[int, int, int]:
    """Return the smallest patch of at least 16 voxels a side that a network allows."""
    depth, height, width = (-(-LEAST_SIDE // unit) * unit for unit in multiple)
    return depth, height, width


class NetworkChecks:
    """The checks of a configuration's network; `without_gradient` are prefixes of the weights that need no gradient."""

    def __init__(self, config: Config, without_gradient: Sequence[str] = ()) -> None:
        self.config, self.without_gradient = config, tuple(without_gradient)
        self.sequences, self.regions = len(config.task.modalities), len(config.task.regions)
        self.subsets = _subsets(self.sequences)
        self.image = self._noise(0, config.train.patch)

    def all(self) -> dict[str, Check]:
        """Return the checks by name, in order."""
        return {
            "shapes": self.shapes,
            "absent sequences": self.absent,
            "sets apart": self.sets_apart,
            "sequences count": self.counting,
            "gradients": self.gradients,
            "samples apart": self.samples_apart,
            "determinism": self.determinism,
            "state_dict": self.state_dict,
            "bf16": self.bf16,
            "patch sizes": self.sizes,
            "memory": self.memory,
        }

    def shapes(self) -> Outcome:
        """Logits of every subset, finite."""
        found = self._logits(self._network().eval(), self.image)
        expected = (len(self.subsets), BATCH, self.regions, *self.config.train.patch)
        finite = bool(found.isfinite().all())
        squashed = all(self._looks_like_probabilities(seed) for seed in range(3))  # one seed alone could be by chance
        words = (", not all finite" if not finite else "") + (
            ", all from 0 to 1, like probabilities" if squashed else ""
        )
        return Outcome(
            "shapes", tuple(found.shape) == expected and not words, f"finite logits {_by(expected)}",
            f"{_by(found.shape)}{words}",
            "Return one channel for each region, at the size of the input, before any sigmoid or softmax",
        )  # fmt: skip

    def absent(self) -> Outcome:
        """Noise in a sequence changes no subset without it."""
        net, worst = self._network().eval(), 0.0
        right = self._logits(net, self.image)
        for number in range(self.sequences):
            other = self.image.clone()
            other[:, number] = 100 * self._noise(1, self.config.train.patch)[:, number]
            without = ~self.subsets[:, number]
            worst = max(worst, _distance(self._logits(net, other)[without], right[without]))
        return Outcome(
            "absent sequences", worst <= CLOSE, f"logits that noise in absent sequences changes by at most {CLOSE:g}",
            f"{worst:.2g} of their spread",
            "In compose, use only features of the sequences in the subset; in encode, keep the sequences apart",
        )  # fmt: skip

    @torch.no_grad()
    def sets_apart(self) -> Outcome:
        """A set gives the same logits when encoded and decoded alone as among all others."""
        net, worst = self._network().eval(), 0.0
        for subset, right in zip(self.subsets, self._logits(net, self.image), strict=True):
            rows = subset.expand(BATCH, -1)
            found = net.decode_levels(net.encode(self.image, rows), rows[None], 1)[0][0]
            worst = max(worst, _distance(found, right))
        return Outcome(
            "sets apart", worst <= CLOSE, f"logits of a set alone within {CLOSE:g} of those among other sets",
            f"{worst:.2g} of their spread",
            "In encode, what is available must not change the features of another sequence; in compose and decode, do "
            "not change in place what the next set gets; do not divide by what is 0 where a sequence is 0",
        )  # fmt: skip

    def counting(self) -> Outcome:
        """Noise in a sequence changes the subsets that have it."""
        net, blind = self._network().eval(), []
        right = self._logits(net, self.image)
        for number, name in enumerate(self.config.task.modalities):
            other = self.image.clone()
            other[:, number] = self._noise(1, self.config.train.patch)[:, number]
            seen = self.subsets[:, number]
            if torch.equal(self._logits(net, other)[seen], right[seen]):
                blind.append(name)
        found = f"none in {', '.join(blind)}" if blind else "a change in each"
        return Outcome(
            "sequences count", not blind, "logits that change with each sequence that is present", found,
            "Make every sequence reach the decoder",
        )  # fmt: skip

    def gradients(self) -> Outcome:
        """A finite gradient for every weight, also where sequences are missing."""
        net, one = self._network().train(), self.subsets[:1].expand(BATCH, -1)
        alone = net.decode_levels(net.encode(self.image, one), one[None], 1)
        torch.autograd.backward(self._loss(net) + torch.stack([z.float().square().mean() for z in alone]).sum())
        own = {name.removeprefix("network."): parameter for name, parameter in net.named_parameters()}
        needed = {name: p for name, p in own.items() if not name.startswith(self.without_gradient or ("\0",))}
        return gradient_outcome(
            needed, "Use every weight in every step, or name those that need no gradient with --without-gradient"
        )

    def samples_apart(self) -> Outcome:
        """A sample's logits are the same beside another one in training, and alone in evaluation.

        In training the batch keeps its size, so that layers that draw random numbers draw the same again.
        """
        other, distances = self.image.clone(), []
        other[1:] = 3 + 2 * self._noise(1, self.config.train.patch)[1:]
        for training, image in ((True, other), (False, self.image[:1])):
            right, found = (self._logits(self._network().train(training), z)[:, :1] for z in (self.image, image))
            distances.append(_distance(found, right))
        return Outcome(
            "samples apart", max(distances) <= CLOSE, f"logits of a sample that others change by at most {CLOSE:g}",
            f"{distances[0]:.2g} of their spread in training, {distances[1]:.2g} in evaluation",
            "Normalise each sample separately (GroupNorm, InstanceNorm), not the batch",
        )  # fmt: skip

    def determinism(self) -> Outcome:
        """The same seed and state give the same logits and gradients; in evaluation any seed gives the same."""
        results, net = [], self._network().train()
        state = {name: value.clone() for name, value in net.state_dict().items()}
        for _ in range(2):
            net.load_state_dict(state)
            net.zero_grad()
            torch.manual_seed(1)
            loss = self._loss(net)
            torch.autograd.backward(loss)
            results.append([loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)])
        same = all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        still = torch.equal(self._logits(net.eval(), self.image), self._logits(net, self.image))
        found = "them" if same else "different ones"
        return Outcome(
            "determinism", same and still,
            "equal loss and gradients for equal seeds and state, no randomness in eval()",
            found if still else f"{found}, and different logits in eval() each time",
            "Draw random numbers only from torch's own generator and only in training, not from random, numpy, your "
            "own generator or the clock; keep all state in parameters and persistent buffers",
        )  # fmt: skip

    def state_dict(self) -> Outcome:
        """The weights carry everything into a new network."""
        net, other = self._network(), self._network(seed=1)
        other.load_state_dict({name: value.clone() for name, value in net.state_dict().items()})
        distance = _distance(self._logits(other.eval(), self.image), self._logits(net.eval(), self.image))
        return Outcome(
            "state_dict", distance == 0, "equal logits from a new network with these weights", f"{distance:.2g}",
            "Register all state as parameters or persistent buffers",
        )  # fmt: skip

    def bf16(self) -> Outcome:
        """Autocast gives nearly the same logits."""
        net = self._network().eval()
        with autocast("bf16", torch.device("cpu")):
            found = self._logits(net, self.image)
        distance = _distance(found.float(), self._logits(net, self.image))
        return Outcome(
            "bf16", distance <= BF16, f"logits within {BF16:g} of those in float32", f"{distance:.2g} of their spread",
            "Compute sums, means and exponentials in float32",
        )  # fmt: skip

    def sizes(self) -> Outcome:
        """Each side may be longer by `multiple`; a network of one size rejects the others with a ValueError."""
        net, patch, seen = self._network().eval(), self.config.train.patch, []
        for axis in range(3):
            longer = tuple(side + net.multiple[axis] * (axis == other) for other, side in enumerate(patch))
            try:
                shape = self._logits(net, self._noise(0, longer)).shape[-3:]
                seen.append((tuple(shape) == longer, _by(shape)))
            except UsageError as error:  # our own, about the output
                seen.append((False, str(error)))
            except ValueError as error:
                seen.append((True, f"{_by(longer)} rejected ({str(error)[:100]})"))
            except Exception as error:  # noqa: BLE001 - the code is someone else's
                seen.append((False, f"{_by(longer)}: {type(error).__name__}: {str(error)[:200]}"))
        return Outcome(
            "patch sizes", all(good for good, _ in seen),
            f"logits for {_by(patch)} with {_by(net.multiple)} more along each axis",
            "; ".join(text for _, text in seen),
            "Set `multiple` to what the sides must be multiples of; a network of one size must raise a ValueError for "
            "others",
        )  # fmt: skip

    def memory(self) -> Outcome:
        """The memory that a step keeps."""
        net, kept = self._network().train(), {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            torch.autograd.backward(self._loss(net))
        weights = sum(p.numel() * p.element_size() for p in net.parameters())
        return Outcome(
            "memory", True, "a step that can be measured",
            f"{weights / MIB:.1f} MiB of weights (4 times that with gradients and AdamW), "
            f"{sum(kept.values()) / MIB:.1f} MiB kept for the backward pass of {len(self.subsets)} subsets of {BATCH} "
            f"patches of {_by(self.config.train.patch)} in float32",
            "",
        )  # fmt: skip

    def _looks_like_probabilities(self, seed: int) -> bool:
        logits = self._logits(self._network(seed).eval(), self.image)
        return bool((logits.min() >= 0) & (logits.max() <= 1) & (logits.min() < logits.max()))

    def _network(self, seed: int = 0) -> Network:
        torch.manual_seed(seed)
        return build_network(self.config.model, self.config.task)

    def _noise(self, seed: int, patch: Sequence[int]) -> Tensor:
        return torch.randn(BATCH, self.sequences, *patch, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _logits(self, net: Network, image: Tensor) -> Tensor:
        """Return K x B x R x D x H x W."""
        return self._levels(net, image)[0]

    def _levels(self, net: Network, image: Tensor) -> list[Tensor]:
        everything = torch.ones(len(image), self.sequences, dtype=torch.bool)
        subsets = self.subsets[:, None].expand(-1, len(image), -1)
        return net.decode_levels(net.encode(image, everything), subsets, 4)

    def _loss(self, net: Network) -> Tensor:
        return torch.stack([level.float().square().mean() for level in self._levels(net, self.image)]).sum()


def _subsets(sequences: int) -> Tensor:
    """Return all sets of up to four sequences; for more, the full set, those of one, and those without one."""
    if sequences <= 4:  # noqa: PLR2004
        rows = [[n >> m & 1 for m in range(sequences)] for n in range(1, 2**sequences)]
    else:
        one = torch.eye(sequences).long()
        rows = [[1] * sequences, *one.tolist(), *(1 - one).tolist()]
    return torch.tensor(rows, dtype=torch.bool)


def _distance(found: Tensor, right: Tensor) -> float:
    """Return the largest difference as a share of the spread of the right values."""
    if not found.numel():
        return 0.0
    distance = (found - right).abs().max() / right.std().clamp(min=1e-12)
    return float(distance.nan_to_num(nan=torch.inf))


def gradient_outcome(needed: Mapping[str, Tensor], advice: str) -> Outcome:
    """Return whether all weights have a finite gradient."""
    lacking = [name for name, p in needed.items() if p.grad is None]
    broken = [name for name, p in needed.items() if p.grad is not None and not p.grad.isfinite().all()]
    found = [f"none for {first_few(lacking)}"] if lacking else []
    found += [f"one that is not finite for {first_few(broken)}"] if broken else []
    if broken:
        advice += "; the gradient of a root, a norm or a logarithm of 0 is not finite: add a little before taking it"
    return Outcome(
        "gradients", not found, f"finite gradients for {len(needed)} weights", " and ".join(found) or "them", advice
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
