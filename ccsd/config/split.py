"""Settings for the split into training, validation and test cases."""

from typing import Self

from pydantic import Field, model_validator

from ccsd.config.section import Fraction, Section, UserPath


class SplitSettings(Section):
    """The split into training, validation and test cases."""

    list: UserPath | None = Field(
        None, description="TSV with columns case and split, or case and fold; unset: a seeded split is drawn"
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="number of folds to draw: each trains a model, and together they hold out every case once; drawn "
        "from the cases of a list that are not for testing; not needed if the list has a column fold",
    )
    fold: int | None = Field(
        None, ge=0, description="the fold of a single `ccsd train`; a study trains those of the top-level `folds`"
    )
    patients: UserPath | None = Field(
        None, description="TSV with columns case and patient, if the names do not show which scans share a patient"
    )
    allow_shared_patients: bool = Field(False, description="allow a list with scans of one patient in several parts")
    seed: int = Field(0, ge=0, description="seed of the drawn split or folds")
    train: Fraction = Field(0.7, description="share of training cases in a drawn split")
    val: Fraction = Field(
        0.1,
        description="share of validation cases in a drawn split or fold; the rest is for testing, or in a fold for "
        "training",
    )

    @model_validator(mode="after")
    def _leaves_a_test_set(self) -> Self:
        if self.folds is not None:
            self._reject_unfit_shares(self.folds)
        elif self.list is None and self.train + self.val >= 1:
            raise ValueError(f"train + val is {self.train + self.val:g}; it must be below 1 to leave a test set")
        return self

    def _reject_unfit_shares(self, folds: int) -> None:
        if self.train != type(self).model_fields["train"].default:
            raise ValueError(
                "train does not apply to folds: a fold trains on all cases that it does not hold out or validate on"
            )
        if self.val + 1 / folds >= 1:
            raise ValueError(
                f"val is {self.val:g}; with {folds} folds it must be below {1 - 1 / folds:.3g}, to leave training cases"
            )
