"""New cases that the models of a study segment: the cases, the models, and the jobs of the workflow."""

from functools import cached_property
from pathlib import Path
from typing import Any

from ccsd.errors import UsageError
from ccsd.runs import members
from ccsd.study import Study, digest, part_names
from preprocess.parallel import select_part


class NewCases:
    """The cases, models and jobs that `predict` in a configuration leads to; empty without a source.

    Raises
    ------
    UsageError
        If it names a model that the study does not have.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.settings = study, study.config.predict
        for name in self.settings.models:
            runs = members(name)
            if len(set(runs)) < len(runs) or not set(runs) <= set(study.runs):
                raise UsageError(
                    f"configuration: predict.models: no model {name!r}; allowed: {', '.join(study.runs)}, or several "
                    "seeds or folds of an experiment together, such as ccsd-s0+1 or ccsd-f0+1-s0"
                )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the runs and ensembles that segment them."""
        return self.settings.models or tuple(self.study.models)

    @property
    def cases(self) -> list[str]:
        """Names of the cases, from file names alone, in the order of `ccsd predict`.

        Raises
        ------
        UsageError
            If there is a source without cases.
        """
        return list(self._taken)

    @cached_property
    def _taken(self) -> dict[str, dict[str, Any]]:
        """The files of each case by role.

        Raises
        ------
        UsageError
            If there is a source without cases.
        """
        if self.settings.source is None:
            return {}
        from ccsd.inference.finished import taken_for
        from preprocess.source.layouts import discover

        task = self.study.config.task
        found = {case.case: taken_for(case) for case in discover(self.settings.source, task, self.settings.layout)}
        if not found:
            raise UsageError(
                f"configuration: predict.source: {self.settings.source} has no case of the task {task.name}; `ccsd "
                f"audit {self.settings.source}` shows how its files are read"
            )
        return found

    @property
    def jobs(self) -> list[tuple[str, str]]:
        """For each job, the name of a model and of a part of the cases such as `1-of-40`."""
        parts = part_names(len(self.cases), self.settings.cases_per_job) if self.cases else []
        return [(model, part) for model in self.models for part in parts]

    def digest(self, model: str) -> str:
        """Return a digest of what affects the segmentations, besides the options of the command and the images."""
        from ccsd.inference.record import FORMAT

        return digest([self.study.weights_digest(model), self._taken, FORMAT])

    def outdated_marks(self) -> dict[Path, list[Path]]:
        """Return, for each folder from which results were deleted, the marks that say they exist."""
        found: dict[Path, list[Path]] = {}
        endings = [".nii.gz", *(["_probabilities.nii.gz"] if self.settings.probabilities else [])]
        endings += [".png"] if self.settings.preview else []
        for model, part in self.jobs:
            folder, mark = self.study.folder.predictions(model), self.study.folder.mark("predict", model, part)
            number, _, total = part.partition("-of-")
            cases = select_part(self.cases, (int(number), int(total)))
            if mark.exists() and not all((folder / f"{case}{ending}").exists() for case in cases for ending in endings):
                found.setdefault(folder, []).append(mark)
        return found
