"""`ccsd export RUN FILE -m SUBSET`: one combination of a trained model as a file that requires only PyTorch."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ccsd import __version__
from ccsd.errors import UsageError
from ccsd.inference.case import training_spacing
from ccsd.model import Network, load_model
from ccsd.packed.find import single_model
from preprocess.files import complete_or_absent
from preprocess.task import Subset, Task

SUFFIX = ".pt2"
ABOUT = "ccsd.json"
"""Name of the description inside the file."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """What was written, and by how much its probabilities differ from the model's on a random window."""

    path: Path
    difference: float


class OneSubset(nn.Module):
    """The network for one combination: the given modalities in, probabilities of the regions out."""

    def __init__(self, net: Network, task: Task, used: Subset) -> None:
        super().__init__()
        self.net = net
        self.encoded = tuple(task.modalities.index(name) for name in used)
        self.register_buffer("mask", torch.tensor([[[name in used for name in task.modalities]]]))

    def forward(self, image: Tensor) -> Tensor:
        """Map 1 x m x D x H x W, the modalities of the combination in order, to 1 x R x D x H x W."""
        assert isinstance(self.mask, Tensor)
        batch, _, depth, height, width = image.shape
        full = image.new_zeros(batch, self.mask.shape[-1], depth, height, width)
        full[:, list(self.encoded)] = image
        features = self.net.encode(full, encoded=self.encoded)
        return torch.sigmoid(self.net.decode(features, self.mask, 1)[0])


@torch.no_grad()
def export(model: Path | str, out: Path, names: str) -> Exported:
    """Write a model for one combination and one window with `torch.export`, and read it back to check it.

    Parameters
    ----------
    model
        What `--model` takes, such as the folder of a finished training run.
    out
        The file; its name ends in `.pt2`.
    names
        The combination.

    Raises
    ------
    UsageError
        If the model cannot be used or the file has another suffix.
    """
    if out.suffix != SUFFIX:
        raise UsageError(f"{out}: the name of an exported program must end in {SUFFIX}")
    trained = load_model(single_model(model))
    task = trained.config.task
    used = task.subset(names)
    window = trained.config.train.patch
    wrapped = OneSubset(trained.net, task, used).eval()
    example = torch.randn(1, len(used), *window, generator=torch.Generator().manual_seed(0))
    expected = wrapped(example)  # builds the part of the encoder that is used
    program = torch.export.export(wrapped.requires_grad_(requires_grad=False), (example,))
    sides = " x ".join(str(side) for side in window)
    spacing = " x ".join(f"{side:g}" for side in training_spacing(trained.record))
    about = {
        "made_by": f"ccsd {__version__}",
        "model_hash": trained.record.model_hash,
        "shape": [1, len(used), *window],
        "input": f"float32, 1 x {len(used)} x {sides}: {'+'.join(used)}, each z-scored on its own brain and 0 "
        f"outside it; axes down to up, back to front, left to right; {spacing} mm",
        "output": f"float32, 1 x {len(task.regions)} x {sides}: probabilities of {', '.join(task.regions)}",
        "task": task.label,
    }
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about, indent=2)})
    buffer.seek(0)
    difference = float((torch.export.load(buffer).module()(example) - expected).abs().max())
    if difference > TOLERANCE:
        raise UsageError(f"{out}: the exported program differs from the model by {difference:g}; nothing was written")
    with complete_or_absent(out) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return Exported(out, difference)
