"""The run that a training is fine-tuned from (`train.init`), and why a run may not serve. Without torch."""

from pathlib import Path

from ccsd.config.method import Model
from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.packed.find import single_model
from ccsd.plugins.find import BACKBONE, is_plugin
from ccsd.saved import SavedModel

FREE = {"deep_supervision", "options"}
"""Settings of the network that may differ: heads that one of both lacks start from scratch or are skipped.

So are weights of a plugin whose name or shape its options change.
"""
UNETS = {"light", "unet"}
OF_UNETS = {"width", "levels"}


def start_of(config: Config, *own: Path) -> SavedModel | None:
    """Return the run that a configuration starts from; None where it trains from scratch. The weights are not read.

    Parameters
    ----------
    config
        The resolved configuration.
    own
        Folders of the runs that are trained with it.

    Raises
    ------
    UsageError
        If there is no finished run, it is one of `own`, its network is another one, or no sequence is in both tasks.
    """
    if config.train.init is None:
        return None
    try:
        start = single_model(config.train.init)
        assert start.config
    except (UsageError, ValueError) as error:  # a path with a NUL is no path
        raise UsageError(
            f"train.init: {error}; give the folder of a finished training run, such as results/NAME/runs/ccsd-s0"
        ) from None
    folder = start.folder
    if folder is not None and any(path.resolve() == folder.resolve() for path in own):
        raise UsageError(
            f"train.init: {folder} is trained by this very configuration, which would replace its own start; train "
            "into another folder, in the workflow as a study of another name"
        )
    _refuse_other_network(start, config.model)
    _refuse_strangers(start, config)
    return start


def _refuse_other_network(start: SavedModel, model: Model) -> None:
    theirs = start.config.model
    free = FREE | (set() if theirs.backbone != model.backbone or model.backbone in UNETS else OF_UNETS)
    differing = [
        key for key in type(model).model_fields if key not in free and getattr(theirs, key) != getattr(model, key)
    ]
    if differing:
        had, has = (", ".join(f"model.{key}={getattr(m, key)}" for key in differing) for m in (theirs, model))
        raise UsageError(
            f"train.init: the network of {start.where} has {had}, the configuration {has}; weights only fit a network "
            f"of the same kind and size: set {had}, or train from scratch"
        )


def _refuse_strangers(start: SavedModel, config: Config) -> None:
    theirs, ours = start.config.task, config.task
    if is_plugin(BACKBONE, config.model.backbone) and theirs.modalities != ours.modalities:
        raise UsageError(
            f"train.init: {start.where} knows {', '.join(theirs.modalities)} (task {theirs.name}), the task "
            f"{ours.name} has {', '.join(ours.modalities)}; which weights of model.backbone={config.model.backbone} "
            "belong to which sequence is not known: use the same sequences in the same order, or train from scratch"
        )
    if not set(theirs.modalities) & set(ours.modalities):
        raise UsageError(
            f"train.init: {start.where} knows {', '.join(theirs.modalities)} (task {theirs.name}), and the task "
            f"{ours.name} has none of them but {', '.join(ours.modalities)}; encoders are matched by the name of the "
            "sequence: give the same sequences the same names in the task, or train from scratch"
        )
