"""Settings for new cases that the models of a study segment."""

from pydantic import Field, PositiveInt

from ccsd.config.section import Section, UserPath, UserText


class Predict(Section):
    """New cases that the models of a study segment; windows and mirror images are set in the evaluation."""

    source: UserPath | None = Field(
        None, description="folder with new cases to segment, into predictions/MODEL; unset: none"
    )
    models: tuple[str, ...] = Field(
        (),
        description="models that segment them: runs such as ccsd-s0, or several seeds or folds together such as "
        "ccsd-s0+1; empty means all that are scored",
    )
    cases_per_job: PositiveInt = Field(32, description="cases segmented by one job of the workflow")
    layout: UserText | None = Field(
        None, description="name or YAML file of the layout of the source; unset: detected for each file"
    )
    labels: str = Field("auto", description="label convention of the output: auto, or one of the task")
    allow: tuple[str, ...] = Field((), description="names of checks that do not reject a case")
    probabilities: bool = Field(False, description="also write the probabilities of the regions")
    preview: bool = Field(False, description="also write a picture of each case")
    cleanup: bool = Field(False, description="apply the clean-up of the task")
