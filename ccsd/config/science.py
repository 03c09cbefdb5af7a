"""A digest of what affects the result of a training. Without torch, as the workflow and the launchers use it too."""

import hashlib
import json

from ccsd.config.of_task import default_validation
from ccsd.config.schema import Config
from preprocess.task import default_task

SECTIONS = ("model", "distillation", "train")
"""What affects the weights of a run, besides its data."""

FIRST_DEFAULTS = {
    "model.backbone": "unet",
    "distillation.per_step": "all",
    "distillation.supervise_path": True,
    "distillation.weight_full": 1.0,
    "distillation.every_n": 1,
}
"""Original values of defaults that have changed: the digest leaves out these, never the new ones."""

EXPERIMENT_SECTIONS = (*SECTIONS, "runtime")
"""Sections in which the experiments of a study may differ."""


def science_digest(config: Config, split_hash: str, content_hash: str = "") -> str:
    """Return a digest of everything that affects what a training learns; a checkpoint only serves the same digest.

    `content_hash` is that of the training and validation cases. Without it, the digest is the one that earlier versions
    used, and says nothing about the contents of the cases.

    Defaults are left out, so that a setting added by a later version does not require training everything again. As a
    consequence, a default must not change unnoticed (a test pins the defaults); for one that changes, its original
    value is left out (`FIRST_DEFAULTS`). The default task is left out, too. For the start of a fine-tuned run, the hash
    of its weights counts, not the folder.

    Raises
    ------
    UsageError
        If the configuration cannot start from `train.init`.
    """
    from ccsd.start import start_of  # here, as it imports this module through records and the study

    sections = config.model_dump(mode="json", include=set(SECTIONS), exclude_defaults=True)
    for setting, first in FIRST_DEFAULTS.items():
        section, key = setting.split(".")
        value = getattr(getattr(config, section), key)
        sections.setdefault(section, {}).pop(key, None)
        if value != first:
            sections[section][key] = value
    content: list[object] = [{name: sections.get(name) or {} for name in SECTIONS}, split_hash]
    if config.train.validate_subsets == default_validation(config.task):
        sections.get("train", {}).pop("validate_subsets", None)
    if config.task.digest != default_task().digest:
        content.append(config.task.digest)
    if (start := start_of(config)) is not None:
        sections["train"].pop("init")  # its location does not matter
        content.append({"start": start.record.model_hash})
    if content_hash:
        content.append({"content": content_hash})
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
