"""Keep the values of a profile as they were typed.

On its way into a rule, a value is interpreted twice: as YAML, which reads 00123 as 83, 24:00:00 as 86400 and off as
false, and as a Python expression, in which 2-00 is 2 and `all` is a function. The first cannot be undone, so such
values are rejected. The second is skipped for the settings of a training, for names that SLURM knows, and for times.
"""

import ast
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import SettingsError
from cluster.settings import JobSettings, interpreter, job_options
from cluster.texts import minutes

EXECUTOR_RETRIES = "3"
"""How often a training that is a job of Snakemake's executor is started again, unless `max_requeues` is set."""

TEXTS = ("slurm_account", "slurm_partition", "qos", "constraint", "reservation", "gres", "gpu_model", "clusters")
"""Resources that are names for SLURM, never expressions."""

PYTHON = "python"
"""The resource with the command that starts Python in every job."""

_NUMBER = re.compile(r"((?:\w+:)?\w+)=(\d[\d_]*)")
_TIME = re.compile(r"[\d:-]+")
_SECTIONS = ("default-resources", "set-resources")


def read_texts(workflow: Any) -> None:
    """Give the rules that follow names as they were typed, and times in SLURM's formats as minutes.

    Raises
    ------
    SettingsError
        If YAML or Snakemake has already changed a value, or a time is invalid.
    """
    if workflow.is_main_process:
        check_command_line(sys.argv[1:])
        for file in _profiles(Path(workflow.basedir)):
            check_texts(file)
    settings = workflow.resource_settings
    _keep_texts("default-resources", settings._parsed_default_resources)  # noqa: SLF001
    for rule, resources in settings._parsed_overwrite_resources.items():  # noqa: SLF001
        _keep_texts(f"set-resources: {rule}", resources)


def _keep_texts(where: str, resources: Any) -> None:
    from snakemake.resources import Resource

    for name, resource in list(resources.items()):
        text = _as_typed(resource.raw)
        is_name = name in TEXTS and resource.raw is not None and " " not in text  # with a space it is an expression
        if is_name or name == PYTHON:
            resources[name] = Resource(name, text, raw=repr(text))
        elif name == "runtime" and _TIME.fullmatch(text):
            try:
                resources[name] = Resource(name, minutes(text))
            except ValueError as error:
                raise SettingsError(f"{where}: runtime: {error} (got {text!r})") from None


def training_settings(workflow: Any) -> tuple[JobSettings, str]:
    """Return the job settings that the profile and the command line give to the rule `train`, also as options.

    With `cluster: executor` the training is a job like any other. The word is removed from the resources, because
    SLURM's executor has a resource of this name.

    Raises
    ------
    SettingsError
        If a value is invalid, or YAML has changed it.
    """
    given = workflow.resource_settings._parsed_overwrite_resources.get("train", {})  # noqa: SLF001
    default = dict(workflow.resource_settings._parsed_default_resources.items())  # noqa: SLF001
    all_given = {name: resource for name, resource in default.items() if name == PYTHON} | dict(given.items())
    raw = {"cluster": "local", **{name: _as_typed(resource.raw) for name, resource in all_given.items()}}
    if raw["cluster"] == "executor":
        raw = {"max_requeues": EXECUTOR_RETRIES, **raw}
        del given._data["cluster"]  # noqa: SLF001 - both the rules and the jobs' Snakemakes read it from here
    # A job of our own may only have our settings; otherwise there may be resources for Snakemake or its executor.
    ours = [name for name in raw if name in JobSettings.model_fields or raw["cluster"] == "slurm"]
    settings = JobSettings.from_options(f"{name}={raw[name]}" for name in ours)
    return settings, job_options(raw)


def program(workflow: Any) -> str:
    """Return the program that rules call: `ccsd`, or its module with the Python of `default-resources: python`.

    Raises
    ------
    SettingsError
        If this Python cannot be started here.
    """
    given = dict(workflow.resource_settings._parsed_default_resources.items())  # noqa: SLF001
    if PYTHON not in given:
        return "ccsd"
    return f"{shlex.join(interpreter(_as_typed(given[PYTHON].raw)))} -m ccsd"


def check_texts(file: Path) -> None:
    """Reject values of resources that YAML reads as something else than what is written.

    Raises
    ------
    SettingsError
        If there are any; each is listed with its line and with what to write instead.
    """
    try:
        document = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeError, yaml.YAMLError):
        return  # Snakemake has read the file before and reports this itself
    sections = _children(document)
    problems = [
        f"  line {node.start_mark.line + 1}: {name}: YAML reads {_text(node)} as {_meaning(node)}; put it in quotes: "
        f'{name.rpartition(" ")[2]}: "{_text(node)}"'
        for section in _SECTIONS
        for name, node in _values(section, sections.get(section))
        if _changes(node)
    ]
    if problems:
        raise SettingsError("\n".join([f"{file}: values that YAML would change:", *problems]))


def check_command_line(words: Sequence[str]) -> None:
    """Reject numbers in `--set-resources` and `--default-resources` that Snakemake would change, as 00123 to 123.

    Raises
    ------
    SettingsError
        If there is one.
    """
    option = ""
    for given in words:
        word = given
        if given.startswith("-"):
            option, _, word = given.partition("=")
        found = _NUMBER.fullmatch(word)
        if option.lstrip("-") in _SECTIONS and found and found[2] != str(int(found[2])):
            raise SettingsError(
                f"{word}: Snakemake reads this as {int(found[2])}; put it in two pairs of quotes: "
                f"{found[1]}=\"'{found[2]}'\""
            )


def _profiles(repository: Path) -> list[Path]:
    """Return the files of the profiles that this Snakemake was started with.

    With --directory, Snakemake has already left the folder in which it was started, usually the repository.
    """
    from snakemake.cli import get_argument_parser, get_profile_dir

    given, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    named = [str(name) for name in (*(given.profile or []), given.workflow_profile or "none") if name != "none"]
    if given.directory:
        named = [str(repository / name) if (repository / name).exists() else name for name in named]
    found = [get_profile_dir(name) for name in named]
    return [entry[1] for entry in found if entry is not None]


def _as_typed(raw: Any) -> str:
    """Return a value without the quotes that keep Snakemake from evaluating it, and with shell variables expanded."""
    text = str(raw)
    if text[:1] in {"'", '"'}:
        try:
            text = str(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            return text
    return os.path.expandvars(text)


def _children(node: yaml.Node | None) -> Mapping[str, yaml.Node]:
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _values(name: str, node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the values in a section, each with its path as the name."""
    if isinstance(node, yaml.MappingNode):
        for key, child in _children(node).items():
            yield from _values(f"{name}: {key}", child)
    elif node is not None:
        yield name, node


def _changes(node: yaml.Node) -> bool:
    """Return whether YAML turns a value into something that does not read like it."""
    if isinstance(node, yaml.SequenceNode):
        return True
    kind = node.tag.rpartition(":")[2]
    if kind == "int":
        return str(node.value) != str(_value(node))
    return kind in {"bool", "timestamp"} or (kind == "float" and ":" in node.value)


def _text(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(_text(item) for item in node.value)}]"
    return str(node.value)


def _meaning(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else repr(_value(node))


def _value(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_object(node, deep=True)
