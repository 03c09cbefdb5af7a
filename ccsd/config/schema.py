"""The configuration as typed models: what an experiment is and how it runs. Profiles define partitions and nodes.

The descriptions of the fields are the reference documentation; unknown keys are rejected everywhere.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ccsd.config.method import Distillation, Model
from ccsd.config.of_task import canonical, default_validation, or_value_error
from ccsd.config.predict import Predict
from ccsd.config.runtime import Runtime
from ccsd.config.section import Fraction, Section, UserPath, UserText
from ccsd.config.split import SplitSettings
from ccsd.plugins.find import Method
from preprocess.task import AnyTask, Task, default_task

Shape = tuple[PositiveInt, PositiveInt, PositiveInt]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$", max_length=100)]
StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
_ModelName = Annotated[UserText, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]


class Phantom(Section):
    """A phantom cohort to generate instead of reading real data."""

    cases: PositiveInt = Field(24, description="number of cases")
    size: int = Field(64, ge=32, le=1024, description="voxels along each axis")
    seed: int = Field(0, ge=0, description="the same seed gives the same bytes")
    difficulty: Fraction = Field(0.5, description="0: clean images, strong contrast; 1: noisy images, weak contrast")


class Convert(Section):
    """Conversion of NIfTI to Zarr."""

    cases_per_job: PositiveInt = Field(32, description="cases converted by one job of the workflow")
    allow: tuple[str, ...] = Field((), description="names of checks that do not reject a case")
    layout: UserText | None = Field(
        None, description="name or YAML file of the layout of the source; unset: detected for each file"
    )
    labels: str | None = Field(
        None,
        description="label convention of the source, instead of that of the layout: one of the task",
    )
    max_rejected: Fraction = Field(
        0.05, description="share of cases that may be rejected and left out; more stop the study before training"
    )


class Train(Section):
    """Optimisation: what determines the result, independent of the machine."""

    steps: PositiveInt = Field(60_000, description="optimizer steps")
    batch_size: PositiveInt = Field(2, description="samples per step, over all processes together")
    patch: Shape = Field((128, 128, 128), description="voxels of a training patch: depth, height, width")
    foreground: Fraction = Field(0.5, description="share of patches centred on a tumour voxel")
    augment: bool = Field(True, description="random flips, affine, intensity, noise, blur, low resolution, gamma")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="adamw, or sgd with Nesterov momentum 0.99, for which nnU-Net uses learning_rate 1.0e-2"
    )
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    schedule: Literal["poly", "cosine"] = Field(
        "poly", description="decay of the learning rate after the warm-up: polynomial with power 0.9, or half a cosine"
    )
    weight_decay: NonNegativeFloat = Field(
        1e-4, description="weight decay: decoupled for adamw, added to the gradient for sgd"
    )
    warmup: Fraction = Field(0.02, description="share of the steps during which the learning rate rises linearly")
    clip: NonNegativeFloat = Field(12.0, description="largest gradient norm; 0 disables clipping")
    precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="autocast; fp16: for GPUs before Ampere")
    ema: float = Field(
        0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights per step, such as 0.999; the average is validated and "
        "becomes the model; 0 disables it",
    )
    validate_every: PositiveInt = Field(5000, description="steps between validations")
    validate_subsets: tuple[str, ...] = Field(
        (),
        description="combinations validated during training; empty means flair+t1+t1ce+t2, flair+t1+t2, t1ce and flair "
        "for the task brats-gli-pre, for others all sequences together and each of the first four alone",
    )
    select: Literal["best", "last"] = Field("best", description="weights that become the model: best validated or last")
    init: _ModelName | None = Field(
        None,
        description="fine-tuning: the model to start from: folder of a finished run, packed file, or name or address "
        "of one",
    )
    init_rate: float = Field(
        0.3, gt=0, le=1, description="fine-tuning: share of the learning rate for weights taken from `init`"
    )
    freeze: Fraction = Field(
        0.0, description="fine-tuning: share of the steps, from the first on, during which the encoders are frozen"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the weights, the patches and the subsets")

    @model_validator(mode="after")
    def _fine_tunes_something(self) -> Self:
        given = [key for key in ("init_rate", "freeze") if getattr(self, key) != type(self).model_fields[key].default]
        if self.init is None and given:
            raise ValueError(
                f"train.{given[0]} is for fine-tuning; set train.init to the run to start from, or leave it out"
            )
        return self


UNSCORED = {"subsets", "subsets_per_job", "calibrate"}
"""Settings of the evaluation that affect no score of a case and combination."""
OF_MODELS = {"overlap", "flips"}
"""Those that affect what a model segments, but not how a label map is scored."""


class Evaluation(Section):
    """Scoring of the test cases for each combination of modalities."""

    subsets: tuple[str, ...] = Field(
        (),
        description="combinations to evaluate; empty means all, or with more than five sequences those of one, of all "
        "but one, and of all",
    )
    subsets_per_job: PositiveInt | None = Field(
        None,
        description="combinations scored by one job: 1 means one job each; null or all of them, a single job that "
        "encodes each window once",
    )
    overlap: float = Field(0.5, ge=0, lt=1, description="overlap of neighbouring windows, as a share")
    flips: bool = Field(False, description="average over the 8 mirror images: 8 times the work")
    both_empty: Literal["score", "skip"] = Field(
        "score", description="a correctly absent region: scored (Dice 1, HD95 0), or left out of the means (skip)"
    )
    hd95_penalty: float = Field(373.13, ge=0, description="HD95 in mm if exactly one of the two regions is empty")
    cleanup: bool = Field(True, description="also score with the clean-up of the task, if it has one (*_clean columns)")
    keep_predictions: bool = Field(True, description="write the predicted label maps as NIfTI")
    calibrate: bool = Field(
        False,
        description="also calibrate each model on its validation cases, so that `predict` says which Dice to expect",
    )

    def of(self, task: Task) -> Self:
        """Return the settings with the canonical names of the combinations.

        Raises
        ------
        ValueError
            If the task does not have a sequence.
        """
        return self.model_copy(update={"subsets": canonical("subsets", self.subsets, task)})


class Config(Section):
    """Everything about a study. All sections except `runtime` affect its results."""

    name: StudyName = Field(description="name of the study; results go to results/NAME")
    source: UserPath | None = Field(None, description="folder with cases, for example BraTS; leave out to use phantoms")
    phantom: Phantom | None = Field(None, description="phantom cohort to use instead of a source")
    task: AnyTask = Field(
        default_factory=default_task,
        description="which classes are segmented from which sequences: the name of a task that comes with the program "
        "(default: brats-gli-pre), the path of a YAML file of your own, or the task itself",
    )
    convert: Convert = Convert()
    split: SplitSettings = SplitSettings()
    model: Model = Model()
    distillation: Distillation = Field(Distillation(), validate_default=True)
    train: Train = Field(Train(), validate_default=True)
    runtime: Runtime = Runtime()
    evaluation: Evaluation = Evaluation()
    predict: Predict = Predict()
    experiments: dict[RunName, dict[str, str | int | float | bool]] = Field(
        default={"ccsd": {}},
        description="experiments to compare: name -> settings that differ, with dotted keys; if left out, there is one "
        "with the settings as they are, named after distillation.method, or own for a method of your own",
        min_length=1,
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        (0,), min_length=1, description="training seeds; every experiment is repeated with each"
    )
    folds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="folds to train, with every seed; empty means all folds of the split"
    )
    ensembles: bool = Field(
        False,
        description="also score the mean probabilities of an experiment's seeds, as an experiment such as ccsd-s0+1, "
        "and of its folds, such as ccsd-f0+1-s0, on test cases that are in no fold",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_an_experiment(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "experiments" in given:
            return given
        own = given.get("distillation", {})
        method = own.get("method", "ccsd") if isinstance(own, dict) else getattr(own, "method", "ccsd")
        return given | {"experiments": {method if method in get_args(Method) else "own": {}}}

    @field_validator("convert")
    @classmethod
    def _labels_are_of_the_task(cls, convert: Convert, info: ValidationInfo) -> Convert:
        if (task := _task_of(info)) and convert.labels is not None:
            or_value_error("labels", lambda: task.convention(str(convert.labels)))
        return convert

    @field_validator("predict")
    @classmethod
    def _predicts_labels_of_the_task(cls, predict: Predict, info: ValidationInfo) -> Predict:
        if (task := _task_of(info)) and predict.labels != "auto":
            or_value_error("labels", lambda: task.convention(predict.labels))
        return predict

    @field_validator("distillation")
    @classmethod
    def _distillation_fits_the_task(cls, distillation: Distillation, info: ValidationInfo) -> Distillation:
        task = _task_of(info)
        return distillation if task is None else distillation.of(task)

    @field_validator("train")
    @classmethod
    def _validates_what_the_task_has(cls, train: Train, info: ValidationInfo) -> Train:
        if (task := _task_of(info)) is None:
            return train
        names = canonical("validate_subsets", train.validate_subsets, task) or default_validation(task)
        return train.model_copy(update={"validate_subsets": names})

    @field_validator("evaluation")
    @classmethod
    def _evaluates_what_the_task_has(cls, evaluation: Evaluation, info: ValidationInfo) -> Evaluation:
        task = _task_of(info)
        return evaluation if task is None else evaluation.of(task)

    @model_validator(mode="after")
    def _patch_fits_the_network(self) -> Self:
        multiple = self.model.multiple
        if any(side % unit for side, unit in zip(self.train.patch, multiple, strict=True)):
            raise ValueError(
                f"train.patch {list(self.train.patch)} does not fit the network: "
                f"depth, height and width must be multiples of {', '.join(map(str, multiple))}"
            )
        return self

    @field_validator("folds", mode="before")
    @classmethod
    def _folds_are_listed(cls, folds: object) -> object:
        if isinstance(folds, int):
            text = f"lists the folds to train, such as [0, 1]; for the number of folds, set split.folds: {folds}"
            raise ValueError(text)  # noqa: TRY004 - of which pydantic makes a message
        return folds

    @model_validator(mode="after")
    def _ensembles_have_members(self) -> Self:
        if self.ensembles and len(set(self.seeds)) == 1 and self.split.folds is None and self.split.list is None:
            raise ValueError("ensembles: true averages over seeds and needs two or more, such as seeds: [0, 1]")
        return self

    @model_validator(mode="after")
    def _has_one_origin_of_data(self) -> Self:
        if (self.source is None) == (self.phantom is None):
            raise ValueError("give exactly one of 'source' (a folder with cases) and 'phantom'")
        return self


def _task_of(info: ValidationInfo) -> Task | None:
    """Return the task of the configuration; None if it is invalid, which is reported as a separate error."""
    task = info.data.get("task")
    return task if isinstance(task, Task) else None
