"""Runs in our environment: on request, reads crops with our stream, as RFNet does, and by plain copies."""

import random
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from measure import Answer, serve, timed
from torch.utils.data import DataLoader, Dataset

from ccsd.data import PatchReader, PatchStream
from preprocess.store.reader import list_cases
from preprocess.task import default_task

STORES, ARRAYS = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
_streams: dict[tuple[int, int], PatchStream] = {}
_loaders: dict[int, object] = {}


def stream(size: int, batch: int, workers: int) -> PatchStream:
    """Return a stream of random crops that is already running."""
    key = (size, workers)
    if key not in _streams:
        reader = PatchReader(
            STORES,
            list_cases(STORES),
            modalities=default_task().modalities,
            patch=(size, size, size),
            global_batch=batch,
            rank=0,
            world=1,
            seed=0,
            foreground=0.0,
        )
        _streams[key] = PatchStream(reader, workers=workers)
        list(islice(_streams[key], 8))
    return _streams[key]


def crops(size: int, count: int) -> Answer:
    """Read crops in this process."""
    source = stream(size, 1, 0)
    return timed(lambda: list(islice(source, count)))


def loader(size: int, count: int) -> Answer:
    """Draw batches of two from two workers."""
    source = stream(size, 2, 2)
    return timed(lambda: [float(batch.image[0, 0, 0, 0, 0]) for batch in islice(source, count)])


def read_whole(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Load a whole case, cut a random crop and put the modalities first, as RFNet and mmFormer do."""
    case = random.choice(_names())
    image, label = np.load(ARRAYS / f"{case}_vol.npy"), np.load(ARRAYS / f"{case}_seg.npy")
    box = tuple(slice(s, s + size) for s in (random.randint(0, max(0, n - size)) for n in label.shape))
    return torch.from_numpy(np.ascontiguousarray(image[box].transpose(3, 0, 1, 2))), torch.from_numpy(label[box].copy())


def whole_crops(size: int, count: int) -> Answer:
    """Read crops from whole arrays in this process."""
    return timed(lambda: [read_whole(size) for _ in range(count)])


class Whole(Dataset):
    """Crops from whole arrays."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return read_whole(self.size)


def whole_loader(size: int, count: int) -> Answer:
    """Draw batches of two crops from whole arrays, through PyTorch's loader with two workers."""
    if size not in _loaders:
        _loaders[size] = iter(DataLoader(Whole(size), batch_size=2, num_workers=2))
        [next(_loaders[size]) for _ in range(4)]
    return timed(lambda: [float(next(_loaders[size])[0][0, 0, 0, 0, 0]) for _ in range(count)])


def copies(size: int, count: int) -> Answer:
    """Copy crops within memory, from one array to another."""
    source, target = np.ones((4, size, size, size), np.float32), np.ones((4, size, size, size), np.float32)
    return timed(lambda: [np.copyto(target, source) for _ in range(count)])


def _names() -> list[str]:
    return sorted(path.name.removesuffix("_vol.npy") for path in ARRAYS.glob("*_vol.npy"))


if __name__ == "__main__":
    serve({"crops": crops, "loader": loader, "whole": whole_crops, "whole_loader": whole_loader, "copies": copies})
