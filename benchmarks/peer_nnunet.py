"""Runs in nnU-Net's environment: converts and reads with nnU-Net's own code, on request."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.utilities.file_and_folder_operations import load_json
from measure import Answer, peak_mib, serve, timed
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.data import DataLoader, Dataset

DATASET = sys.argv[1]
RAW = Path(os.environ["nnUNet_raw"]) / DATASET
DONE = Path(os.environ["nnUNet_preprocessed"]) / DATASET
OUT = DONE / "3d_fullres"
torch.set_num_threads(1)


def convert(case: str) -> Answer:
    """Preprocess and save one case as `nnUNetv2_preprocess` does."""
    plans = PlansManager(str(DONE / "nnUNetPlans.json"))
    configuration = plans.get_configuration("3d_fullres")
    configuration.configuration["patch_size"] = [128, 128, 128]
    OUT.mkdir(parents=True, exist_ok=True)
    for older in OUT.glob(f"{case}*"):
        older.unlink()  # it does not overwrite files
    images = [str(path) for path in sorted((RAW / "imagesTr").glob(f"{case}_*.nii.gz"))]
    label = str(RAW / f"labelsTr/{case}.nii.gz")
    description = load_json(str(RAW / "dataset.json"))
    times = timed(
        lambda: DefaultPreprocessor(verbose=False).run_case_save(
            str(OUT / case), images, label, plans, configuration, description
        )
    )
    return {**times, "peak": peak_mib(), "bytes": sum(p.stat().st_size for p in OUT.glob(f"{case}*"))}


def read_crop(dataset: nnUNetDatasetBlosc2, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a random crop as nnU-Net's data loader does."""
    data, seg, _, _ = dataset.load_case(random.choice(dataset.identifiers))
    first = [random.randint(min(0, n - size), max(0, n - size)) for n in data.shape[1:]]
    box = [[start, start + size] for start in first]
    image = torch.from_numpy(crop_and_pad_nd(data, box, 0)).float()
    label = torch.from_numpy(crop_and_pad_nd(seg, box, -1, cast_cropped_to=np.int16)).to(torch.int16)
    return image, label


def crops(size: int, count: int) -> Answer:
    """Read crops in this process."""
    dataset = nnUNetDatasetBlosc2(str(OUT))
    return timed(lambda: [read_crop(dataset, size) for _ in range(count)])


class Batches(Dataset):
    """Batches of two crops, assembled as nnU-Net's data loader does."""

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count
        self.dataset = nnUNetDatasetBlosc2(str(OUT))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.empty(2, 4, *[self.size] * 3)
        label = torch.empty(2, 1, *[self.size] * 3, dtype=torch.int16)
        for position in range(2):
            image[position], label[position] = read_crop(self.dataset, self.size)
        return image, label


_loaders: dict[int, object] = {}


def loader(size: int, count: int) -> Answer:
    """Draw batches from PyTorch's loader with two workers that are already running."""
    if size not in _loaders:
        _loaders[size] = iter(DataLoader(Batches(size, 10**6), batch_size=None, num_workers=2))
        [next(_loaders[size]) for _ in range(4)]
    return timed(lambda: [float(next(_loaders[size])[0][0, 0, 0, 0, 0]) for _ in range(count)])


if __name__ == "__main__":
    serve({"convert": convert, "crops": crops, "loader": loader})
