"""The run that a training is fine-tuned from (`train.init`), and reasons to reject one. Without torch."""

from pathlib import Path

from ccsd.config.method import UNETS, Model
from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.packed.find import single_model
from ccsd.plugins.find import BACKBONE, is_plugin
from ccsd.saved import SavedModel

FREE = {"deep_supervision", "options"}
"""Settings of the network that may differ: heads that only one of the two has start from scratch or are skipped.

The same holds for weights of a plugin whose name or shape depends on its options.
"""
OF_UNETS = {"width", "levels"}


def start_of(config: Config, *own: Path) -> SavedModel | None:
    """Return the run that a configuration starts from; None if it trains from scratch. The weights are not read.

    Parameters
    ----------
    config
        The resolved configuration.
    own
        Folders of the runs that are trained with it.

    Raises
    ------
    UsageError
        If there is no finished run, it is one of `own`, its network differs, or the tasks have no sequence in common.
    """
    if config.train.init is None:
        return None
    try:
        start = single_model(config.train.init)
        assert start.config
    except (UsageError, ValueError) as error:  # a path may not contain NUL
        raise UsageError(
            f"train.init: {error}; give the folder of a finished training run, such as results/NAME/runs/ccsd-s0"
        ) from None
    folder = start.folder
    if folder is not None and any(path.resolve() == folder.resolve() for path in own):
        raise UsageError(
            f"train.init: {folder} is trained by this configuration, which would overwrite its own start; train into "
            "another folder; in the workflow, use another study name"
        )
    _reject_other_network(start, config.model)
    _reject_strangers(start, config)
    return start


def _reject_other_network(start: SavedModel, model: Model) -> None:
    theirs = start.config.model
    free = FREE | (set() if theirs.backbone != model.backbone or model.backbone in UNETS else OF_UNETS)
    differing = [
        key for key in type(model).model_fields if key not in free and getattr(theirs, key) != getattr(model, key)
    ]
    if differing:
        had, has = (", ".join(f"model.{key}={getattr(m, key)}" for key in differing) for m in (theirs, model))
        raise UsageError(
            f"train.init: the network of {start.where} has {had}, but the configuration {has}; weights only fit a "
            f"network of the same kind and size: set {had}, or train from scratch"
        )


def _reject_strangers(start: SavedModel, config: Config) -> None:
    theirs, ours = start.config.task, config.task
    if is_plugin(BACKBONE, config.model.backbone) and theirs.modalities != ours.modalities:
        raise UsageError(
            f"train.init: {start.where} knows {', '.join(theirs.modalities)} (task {theirs.name}), but the task "
            f"{ours.name} has {', '.join(ours.modalities)}; for model.backbone={config.model.backbone} it is unknown "
            "which weights belong to which sequence: use the same sequences in the same order, or train from scratch"
        )
    if not set(theirs.modalities) & set(ours.modalities):
        raise UsageError(
            f"train.init: {start.where} knows {', '.join(theirs.modalities)} (task {theirs.name}), but the task "
            f"{ours.name} has none of them, only {', '.join(ours.modalities)}; encoders are matched by the name of the "
            "sequence: give the same sequences the same names in the task, or train from scratch"
        )
