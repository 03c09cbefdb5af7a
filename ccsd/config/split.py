"""Which cases train, validate and test."""

from typing import Self

from pydantic import Field, model_validator

from ccsd.config.section import Fraction, Section, UserPath


class SplitSettings(Section):
    """Which cases train, validate and test."""

    list: UserPath | None = Field(
        None, description="TSV with columns case and split, or case and fold; without it a seeded split is drawn"
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="draw so many folds, which each train a model and together hold out every case once; of "
        "the cases of a list those that are not for testing; not needed where the list has a column fold",
    )
    fold: int | None = Field(
        None, ge=0, description="the fold of a single `ccsd train`; a study trains those of `folds` beside `seeds`"
    )
    patients: UserPath | None = Field(
        None, description="TSV with columns case and patient, for scans of one patient whose names do not show it"
    )
    allow_torn_patients: bool = Field(False, description="allow a list with scans of one patient in several parts")
    seed: int = Field(0, ge=0, description="seed of the drawn split or folds")
    train: Fraction = Field(0.7, description="share of training cases in a drawn split")
    val: Fraction = Field(
        0.1, description="share of validation cases in a drawn split or fold; the rest is tested, or in a fold trained"
    )

    @model_validator(mode="after")
    def _leaves_a_test_set(self) -> Self:
        if self.folds is not None:
            self._refuse_unfit_shares(self.folds)
        elif self.list is None and self.train + self.val >= 1:
            raise ValueError(f"train + val is {self.train + self.val:g}; it must be below 1 to leave a test set")
        return self

    def _refuse_unfit_shares(self, folds: int) -> None:
        if self.train != type(self).model_fields["train"].default:
            raise ValueError(
                "train has no meaning with folds: a fold trains on what it neither holds out nor validates"
            )
        if self.val + 1 / folds >= 1:
            raise ValueError(
                f"val is {self.val:g}; of {folds} folds it must be below {1 - 1 / folds:.3g}, to leave cases"
            )
