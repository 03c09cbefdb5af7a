"""What decides the result of a training, as a digest. Without torch: the workflow and the launchers ask for it too."""

import hashlib
import json

from ccsd.config.of_task import default_validation
from ccsd.config.schema import Config
from preprocess.task import default_task

SECTIONS = ("model", "distillation", "train")
"""What decides the weights of a run, beside its data."""

FIRST_DEFAULTS = {"model.backbone": "unet"}
"""What defaults were that have changed: the digest leaves these out, and never the new ones."""

EXPERIMENT_SECTIONS = (*SECTIONS, "runtime")
"""What the experiments of a study may differ in."""


def science_digest(config: Config, split_hash: str) -> str:
    """Return a digest of all that decides what a training learns; a checkpoint serves only the same digest.

    Defaults are left out, so that a setting that a later version adds does not train everything again. The other side
    of this: a default must not change its meaning unnoticed (a test holds the defaults); one that changes stays out as
    it was first (`FIRST_DEFAULTS`). So is the default task. Of a
    run that is fine-tuned, the hash of its weights counts, not the folder.

    Raises
    ------
    UsageError
        If the configuration cannot start from `train.init`.
    """
    from ccsd.start import start_of  # which reads records, and these know the names of the study, which come here

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
        sections["train"].pop("init")  # where it lies decides nothing
        content.append({"start": start.record.model_hash})
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
