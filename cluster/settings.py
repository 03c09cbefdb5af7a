"""The resources that a job requests from the machine or the cluster: typed, validated, unknown names rejected.

JobSettings.from_options(["cluster=slurm", "nodes=2", "tasks_per_node=4", "gpus_per_node=4"])
"""

import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from cluster.errors import SettingsError
from cluster.texts import gpu_count, minutes

OPTION_NAME = re.compile(r"^[a-z][a-z0-9-]*$")
OWN_OPTIONS = {
    "chdir": "the folder the command is started in",
    "error": "the log folder of the run",
    "job-name": "derived from the run folder, so that a later launcher finds the job",
    "open-mode": "always append, so that a requeued job keeps its log",
    "output": "the log folder of the run",
    "requeue": "always on, so that the job survives preemption and node failures",
    "no-requeue": "requeueing is always on",
    "signal": "the setting signal_delay_s",
}
"""sbatch options that the launcher sets itself, and what decides them."""

TYPED_OPTIONS = {
    "nodes": "nodes",
    "ntasks": "nodes and tasks_per_node",
    "ntasks-per-node": "tasks_per_node",
    "gpus-per-node": "gpus_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_gb",
    "time": "timeout_min",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
}
"""sbatch options that have their own setting."""


class JobSettings(BaseModel):
    """Where a distributed command runs, and with which resources. Machine facts only, nothing about the science."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    cluster: Literal["local", "slurm", "executor"] = Field(
        "local",
        description="local: this machine; slurm: through sbatch; executor (in the workflow only): a job of Snakemake's "
        "executor",
    )
    nodes: PositiveInt = Field(1, description="machines; 1 unless on `slurm`")
    tasks_per_node: PositiveInt = Field(1, description="processes on each machine, usually one per GPU")
    gpus_per_node: Annotated[int | str, BeforeValidator(gpu_count)] = Field(
        0,
        description="GPUs on each machine; on slurm also with a type, e.g. a100:2; 0 requests none",
    )
    cpus_per_task: PositiveInt = Field(1, description="CPU cores of each process")
    mem_gb: float | None = Field(None, gt=0, description="memory of each node in GB; if unset, the cluster's default")
    timeout_min: Annotated[PositiveInt | None, BeforeValidator(minutes)] = Field(
        None,
        description="time limit on slurm, in minutes or as 90m, 24:00:00 or 2-00:00:00; the job is then requeued; if "
        "unset, the cluster's default",
    )
    partition: str | None = Field(None, description="SLURM partition")
    account: str | None = Field(None, description="SLURM account")
    qos: str | None = Field(None, description="SLURM quality of service")
    constraint: str | None = Field(None, description="SLURM node features")
    signal_delay_s: PositiveInt = Field(
        120, description="seconds that a job has for saving: before its time limit or, on `local`, after Ctrl-C"
    )
    max_requeues: NonNegativeInt = Field(
        100, description="how often a SLURM job may be started again before the launcher gives up"
    )
    python: str | None = Field(
        None,
        description="command that starts Python in each process, such as apptainer exec --nv ccsd.sif python; if "
        "unset, the launcher's Python",
    )
    extra: dict[str, str | bool] = Field(
        default={},
        description="further sbatch options, e.g. extra.reservation=NAME; true for an option without a value",
    )

    @property
    def tasks(self) -> int:
        """Return the number of processes, all nodes together."""
        return self.nodes * self.tasks_per_node

    @property
    def gpus(self) -> int:
        """Return the number of GPUs on each node."""
        return int(str(self.gpus_per_node).rpartition(":")[2])

    @property
    def interpreter(self) -> list[str]:
        """Return the words that start Python in each process."""
        return [sys.executable] if self.python is None else interpreter(self.python)

    @classmethod
    def from_options(cls, options: Iterable[str]) -> Self:
        """Build settings from `KEY=VALUE` texts; `extra={NAME: VALUE}` is YAML whose values are all read as text.

        Raises
        ------
        SettingsError
            If an option is malformed, unknown or out of range; the message lists what is allowed.
        """
        raw: dict[str, Any] = {}
        for option in options:
            key, value = _parse(option)
            section, _, name = key.partition(".")
            if value is None:
                raw.pop(key, None)  # `KEY=` leaves a setting at its default
            elif section == "extra" and name:
                raw["extra"] = {**raw.get("extra", {}), name: value}
            else:
                raw[key] = value
        return cls.from_mapping(raw)

    @classmethod
    def from_mapping(cls, raw: dict[str, Any]) -> Self:
        """Validate settings; the `SettingsError` lists every problem."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            problems = "\n".join(f"  {_problem(item)}" for item in error.errors())
            raise SettingsError(f"the job settings cannot be used:\n{problems}") from None

    @model_validator(mode="after")
    def _fits_the_cluster(self) -> Self:
        if self.cluster == "slurm":
            return self
        here = f"cluster={self.cluster}"
        if self.nodes > 1:
            raise ValueError(f"nodes={self.nodes} needs cluster=slurm; {here} is one machine: use tasks_per_node")
        if self.timeout_min is not None:
            raise ValueError(f"timeout_min={self.timeout_min} needs cluster=slurm; {here} has no time limit")
        if ":" in str(self.gpus_per_node):
            raise ValueError(f"gpus_per_node={self.gpus_per_node} needs cluster=slurm; {here} takes a number")
        return self

    @model_validator(mode="after")
    def _has_a_gpu_for_each_process(self) -> Self:
        if self.gpus not in (0, self.tasks_per_node):
            raise ValueError(
                f"gpus_per_node={self.gpus_per_node} and tasks_per_node={self.tasks_per_node}: each process uses its "
                f"own GPU; use gpus_per_node={self.tasks_per_node}, tasks_per_node={self.gpus}, or "
                "gpus_per_node=0 to compute on the CPU"
            )
        return self

    @model_validator(mode="after")
    def _options_are_single_lines(self) -> Self:
        """Reject line breaks: each option is one `#SBATCH` line of the script, and a second line is another option."""
        options = self.model_dump(exclude={"extra"}) | {f"extra.{name}": value for name, value in self.extra.items()}
        for name, value in options.items():
            if not str(value).isprintable():
                raise ValueError(f"{name}: {value!r} must be a single line of printable characters")
        return self

    @model_validator(mode="after")
    def _extra_is_really_extra(self) -> Self:
        for name in self.extra:
            if not OPTION_NAME.match(name):
                raise ValueError(
                    f"extra.{name}: write a long sbatch option without dashes, e.g. extra.reservation=NAME"
                )
            if name in OWN_OPTIONS:
                raise ValueError(f"extra.{name}: set by the launcher ({OWN_OPTIONS[name]})")
            if name in TYPED_OPTIONS:
                raise ValueError(f"extra.{name}: use the setting {TYPED_OPTIONS[name]} instead")
        return self


def interpreter(command: str) -> list[str]:
    """Return the words of a command that starts Python, for example in a container.

    Raises
    ------
    SettingsError
        If it is not a valid shell command, or its program is not found here.
    """
    example = "use a shell command such as apptainer exec --nv /path/to/ccsd.sif python"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"python={command}: {error}; {example}") from None
    if not words or shutil.which(words[0]) is None:
        what = f"{words[0]}: no such program here" if words else "empty"
        raise SettingsError(f"python={command}: {what}; {example}. Load its module first, or give its full path")
    return words


def job_options(settings: Mapping[str, Any]) -> str:
    """Return `--job KEY=VALUE ...`, quoted for a shell, for the job settings in a mapping.

    Other keys are ignored, since Snakemake's resources of a rule have more; empty values leave the default.
    """
    given = [f"{name}={settings[name]}" for name in JobSettings.model_fields if settings.get(name) not in {None, ""}]
    return shlex.join(word for option in given for word in ("--job", option))


def _parse(option: str) -> tuple[str, Any]:
    """Split `KEY=VALUE`; a value stays text as typed, except for the mapping `extra` and its `true`."""
    key, separator, value = option.partition("=")
    key = key.strip()
    if not separator or not key:
        raise SettingsError(f"--job {option!r}: expected KEY=VALUE, for example nodes=2; {_allowed()}")
    if key != "extra":
        return key, (_flags(value.strip()) if key.startswith("extra.") else value.strip()) or None
    try:
        return key, _flags(yaml.BaseLoader(value).get_single_data())  # all scalars stay text
    except yaml.YAMLError:
        raise SettingsError(f"--job {option!r}: the value is not valid YAML; quote it") from None


def _flags(value: Any) -> Any:
    """Return a value with the text `true` as a boolean, which stands for an option without a value."""
    if isinstance(value, dict):
        return {name: _flags(item) for name, item in value.items()}
    return True if value in ("true", "True", "TRUE") else value or None


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown setting; {_allowed()}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return message if not where else f"{where}: {message} (got {item['input']!r})"


def _allowed() -> str:
    return f"allowed: {', '.join(JobSettings.model_fields)}"
