"""Settings of the network and of the objective, either of which may be a plugin."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from ccsd.config.of_task import known_order, removal_order
from ccsd.config.section import Fraction, Section
from ccsd.plugins.find import BACKBONE, NAME, OBJECTIVE, BuiltInBackbone, Kind, Method, is_plugin
from preprocess.task import Task

WITH_HMSD = ("hmsd", "ccsd")
WITH_DMCD = ("dmcd", "ccsd")
UNETS = ("light", "unet")
"""Backbones with a width and levels."""
FEWEST_LEVELS = 2
MOST_SETS_KEPT = 8
"""With more sequences than this, nothing is stored or computed for each of the 2^M sets."""

PluginName = Annotated[str, Field(pattern=NAME, max_length=200)]


class Model(Section):
    """The shared-specific encoder-decoder."""

    backbone: BuiltInBackbone | PluginName = Field(
        "light",
        description="light: residual 3-D U-Net with few channels at full resolution; unet: the same with the usual "
        "widths there; shaspec: 3-D ResNet-50 with ASPP, 188 M parameters; or one of your own: an entry point of the "
        "group ccsd.backbones, or package.module:factory",
    )
    options: dict[str, Any] = Field({}, description="backbone of your own: arguments of its factory")
    width: PositiveInt = Field(
        16,
        description="light, unet: channels of the first level, where light has half of them but at least 8; each "
        "level doubles them, up to 16 x width",
    )
    levels: int = Field(5, ge=FEWEST_LEVELS, le=6, description="light, unet: resolutions, each half of the one before")
    deep_supervision: bool = Field(
        False, description="light, unet, shaspec: also supervise the decoder at half and a quarter of the resolution"
    )

    @model_validator(mode="after")
    def _options_are_of_a_plugin(self) -> Self:
        _reject_options(BACKBONE, self.backbone, self.options)
        return self

    @model_validator(mode="after")
    def _has_coarser_outputs_to_supervise(self) -> Self:
        if self.deep_supervision and self.backbone in UNETS and self.levels <= FEWEST_LEVELS:
            raise ValueError(
                f"deep_supervision needs levels of at least {FEWEST_LEVELS + 1}: with {self.levels}, the decoder has "
                "no output between the full and the lowest resolution"
            )
        return self

    @property
    def multiple(self) -> tuple[int, int, int]:
        """Depth, height and width of an input must be multiples of this; unknown for a plugin until it is built."""
        if is_plugin(BACKBONE, self.backbone):
            return 1, 1, 1
        if self.backbone == "shaspec":
            return 16, 32, 32
        side: int = 2 ** (self.levels - 1)
        return side, side, side


class Distillation(Section):
    """How the sets of modalities teach one another (docs/explanation/method.md has the formulas)."""

    method: Method | PluginName = Field(
        "ccsd",
        description="full: complete sets only; dropout: random subsets; hmsd, dmcd: one distillation; ccsd: both; or "
        "an objective of your own: an entry point of the group ccsd.objectives, or package.module:factory",
    )
    options: dict[str, Any] = Field({}, description="objective of your own: arguments of its factory")
    hmsd_pairs: Literal["levels", "all", "adjacent"] = Field(
        "levels",
        description="levels: the full set teaches one random subset of each size; all: it teaches every subset; "
        "adjacent: each size teaches the next smaller one",
    )
    per_step: Literal["all", "one"] = Field(
        "one",
        description="all: a training step visits a subset of each size, or those of hmsd_pairs, and every step of "
        "DMCD's path; one: it visits one subset drawn from these (with adjacent, the whole chain) or, alternately, "
        "walks one step drawn from the path",
    )
    supervise_path: bool = Field(False, description="whether the labels teach the sets of DMCD's path, too")
    weight_full: NonNegativeFloat = Field(
        2.0, description="weight of the supervised loss of the full set; the weight for the partial sets is 1"
    )
    criterion: Literal["loss", "kl", "static", "random", "least"] = Field(
        "loss",
        description="which modality DMCD removes next. loss or least: the one whose removal increases the supervised "
        "loss most or least; kl: the one whose removal changes the prediction most (needs no label); static: a fixed "
        "order; random: any",
    )
    static_order: tuple[str, ...] = Field(
        (),
        description="for criterion: static, every sequence, the most critical first; the task brats-gli-pre has a "
        "default order",
    )
    every_n: PositiveInt = Field(
        4,
        description="compute the criterion at every n-th step that needs it and use running means in between; with "
        "more than 8 sequences it is 1",
    )
    temperature: float = Field(4.0, gt=0, description="T of the distillation's KL divergence")
    weight_hmsd: NonNegativeFloat = Field(0.5, description="weight of the HMSD loss")
    weight_dmcd: NonNegativeFloat = Field(0.5, description="weight of the DMCD loss")
    weight_shared: NonNegativeFloat = Field(0.1, description="weight of the alignment of shared features")
    weight_specific: NonNegativeFloat = Field(0.02, description="weight of the modality classification")
    ramp: Fraction = Field(0.1, description="share of the training during which the distillation weight rises to 1")

    @property
    def is_scored(self) -> bool:
        """Whether the criterion has to be measured."""
        return self.criterion not in ("static", "random")

    @model_validator(mode="after")
    def _options_are_of_a_plugin(self) -> Self:
        _reject_options(OBJECTIVE, self.method, self.options)
        return self

    def of(self, task: Task) -> Self:
        """Return the settings with our names for sequences.

        Raises
        ------
        ValueError
            If they do not fit the task.
        """
        order = removal_order(self.static_order, task)
        if self.criterion == "static" and not (order or static_order(self, task)):
            raise ValueError(
                f"criterion: static needs static_order for the task {task.name}: every sequence once, the most "
                f"critical first, for example [{', '.join(task.modalities)}]"
            )
        update: dict[str, Any] = {"static_order": order}
        many = len(task.modalities) > MOST_SETS_KEPT
        if many and "every_n" not in self.model_fields_set:
            update["every_n"] = 1
        fitted = self.model_copy(update=update)
        if many:
            _reject_every_set(fitted)
        return fitted


def _reject_every_set(settings: Distillation) -> None:
    many = f"too many with more than {MOST_SETS_KEPT} sequences"
    if settings.every_n > 1 and settings.is_scored:
        raise ValueError(f"every_n: {settings.every_n} needs a running mean for each set of sequences, {many}; use 1")
    if settings.hmsd_pairs == "all":
        raise ValueError(f"hmsd_pairs: all visits every set of sequences, {many}; use levels or adjacent")


def static_order(settings: Distillation, task: Task) -> tuple[str, ...]:
    """Return the fixed order of removal, the most critical sequence first; empty if none is known."""
    return settings.static_order or known_order(task)


def _reject_options(kind: Kind, name: str, options: dict[str, Any]) -> None:
    if options and not is_plugin(kind, name):
        raise ValueError(
            f"options: {kind.options} are for a {kind.noun} of your own, but {kind.key} is {name}; leave them out, or "
            "set them in the experiments that use yours"
        )
