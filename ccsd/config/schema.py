"""The configuration as typed models: what an experiment is, and how it runs. Partitions and nodes are in profiles.

Every field's description is the reference documentation; unknown keys are refused everywhere.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

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
from ccsd.config.section import Fraction, Section, UserPath
from ccsd.config.split import SplitSettings
from preprocess.task import AnyTask, Task, default_task

Shape = tuple[PositiveInt, PositiveInt, PositiveInt]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$", max_length=100)]
StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
_ModelName = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]


class Phantom(Section):
    """A phantom cohort to generate instead of reading real data."""

    cases: PositiveInt = Field(24, description="number of cases")
    size: int = Field(64, ge=32, le=1024, description="voxels along each axis")
    seed: int = Field(0, ge=0, description="the same seed gives the same bytes")
    difficulty: Fraction = Field(0.5, description="0 clean images with strong contrast, 1 noisy with weak contrast")


class Convert(Section):
    """Conversion of NIfTI to Zarr."""

    cases_per_job: PositiveInt = Field(32, description="cases converted by one job of the workflow")
    allow: tuple[str, ...] = Field((), description="names of audit checks that do not refuse a case")
    layout: str | None = Field(
        None, description="name or YAML file of the layout of the source; without it each file's layout is found out"
    )
    labels: str | None = Field(
        None,
        description="what the label numbers mean, instead of what the layout says: a label convention of the task",
    )
    max_refused: Fraction = Field(
        0.05, description="share of the cases that may be refused and left out; more stops the study before training"
    )


class Train(Section):
    """Optimisation: what decides the numbers, whatever it runs on."""

    steps: PositiveInt = Field(60_000, description="optimizer steps")
    batch_size: PositiveInt = Field(2, description="samples per step over all processes together")
    patch: Shape = Field((128, 128, 128), description="voxels of a training patch: depth, height, width")
    foreground: Fraction = Field(0.5, description="share of patches centred on a tumour voxel")
    augment: bool = Field(True, description="random flips, affine, intensity, noise, blur, low resolution, gamma")
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="adamw, or sgd with Nesterov's momentum of 0.99, with which nnU-Net takes 1.0e-2"
    )
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    schedule: Literal["poly", "cosine"] = Field(
        "poly", description="how the learning rate falls after the warm-up: as a power of 0.9, or as half a cosine"
    )
    weight_decay: NonNegativeFloat = Field(
        1e-4, description="weight decay: decoupled in adamw, added to the gradient in sgd"
    )
    warmup: Fraction = Field(0.02, description="share of the steps over which the learning rate rises linearly")
    clip: NonNegativeFloat = Field(12.0, description="largest gradient norm; 0 does not clip")
    precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="autocast; fp16: for GPUs before Ampere")
    ema: float = Field(
        0,
        ge=0,
        lt=1,
        description="what a step keeps of the moving average of the weights, such as 0.999; the average is validated "
        "and becomes the model; 0 has none",
    )
    validate_every: PositiveInt = Field(5000, description="steps between validations")
    validate_subsets: tuple[str, ...] = Field(
        (),
        description="combinations validated during training; empty means flair+t1+t1ce+t2, flair+t1+t2, t1ce and flair "
        "in the task brats-gli-pre, in others all sequences together and each of at most four alone",
    )
    select: Literal["best", "last"] = Field("best", description="weights that become the model: best validated or last")
    init: _ModelName | None = Field(
        None,
        description="fine-tuning: what this one starts from: folder of a finished run, packed file, or name or "
        "address of one",
    )
    init_rate: float = Field(
        0.3, gt=0, le=1, description="fine-tuning: share of the learning rate for weights that were taken from `init`"
    )
    freeze: Fraction = Field(
        0.0, description="fine-tuning: share of the steps, from the first on, in which the encoders stand still"
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


class Evaluation(Section):
    """Scoring of the test cases for each combination of modalities."""

    subsets: tuple[str, ...] = Field(
        (),
        description="combinations to evaluate; empty means all, and with more than five sequences those of one, of all "
        "but one, and of all",
    )
    subsets_per_job: PositiveInt | None = Field(
        None,
        description="1 fans out one job per combination; null, or all of them, one job that encodes each window once",
    )
    overlap: float = Field(0.5, ge=0, lt=1, description="share of a window that overlaps its neighbour")
    flips: bool = Field(False, description="average over the 8 mirror images: 8 times the work")
    both_empty: Literal["score", "skip"] = Field(
        "score", description="a region that is rightly absent: scored (Dice 1, HD95 0), or left out of the means (skip)"
    )
    hd95_penalty: float = Field(373.13, ge=0, description="HD95 in mm where exactly one of both regions is empty")
    cleanup: bool = Field(True, description="also score with the clean-up of the task, if it has one (*_clean columns)")
    keep_predictions: bool = Field(True, description="write the predicted label maps as NIfTI")
    calibrate: bool = Field(
        False,
        description="also calibrate each model on its validation cases, so that `predict` says which Dice to expect",
    )

    def of(self, task: Task) -> Self:
        """Return the settings with the combinations by their canonical names.

        Raises
        ------
        ValueError
            If the task does not have a sequence.
        """
        return self.model_copy(update={"subsets": canonical("subsets", self.subsets, task)})


class Config(Section):
    """Everything about a study. All but `runtime` decides its numbers."""

    name: StudyName = Field(description="name of the study; results go to results/NAME")
    source: UserPath | None = Field(None, description="folder with BraTS cases; leave out to use phantoms")
    phantom: Phantom | None = Field(None, description="phantom cohort to use instead of a source")
    task: AnyTask = Field(
        default_factory=default_task,
        description="what is segmented from what: the name of a task that comes with the program (brats-gli-pre is the "
        "default), the path of a YAML file of your own, or the task itself",
    )
    convert: Convert = Convert()
    split: SplitSettings = SplitSettings()
    model: Model = Model()
    distillation: Distillation = Distillation()
    train: Train = Field(Train(), validate_default=True)
    runtime: Runtime = Runtime()
    evaluation: Evaluation = Evaluation()
    predict: Predict = Predict()
    experiments: dict[RunName, dict[str, str | int | float | bool]] = Field(
        default={"ccsd": {"distillation.method": "ccsd"}},
        description="experiments to compare: name -> settings that differ, as dotted keys",
        min_length=1,
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        (0,), min_length=1, description="training seeds to repeat"
    )
    folds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="folds to train, with every seed; empty means all that the split has"
    )
    ensembles: bool = Field(
        False,
        description="also score the mean probabilities of an experiment's seeds, as an experiment such as ccsd-s0+1, "
        "and of its folds, such as ccsd-f0+1-s0, on test cases that are in no fold",
    )

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
            text = f"lists the folds to train, such as [0, 1]; that there are {folds} of them is split.folds"
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
            raise ValueError("give exactly one of 'source' (a folder with BraTS cases) and 'phantom'")
        return self


def _task_of(info: ValidationInfo) -> Task | None:
    """Return the task of the configuration; None where it is wrong itself, which is an error of its own."""
    task = info.data.get("task")
    return task if isinstance(task, Task) else None
