"""What a profile says, taken as it was typed.

On its way into a rule a value is read twice: as YAML, to which 00123 is 83, 24:00:00 is 86400 and off is false, and
as a Python expression, to which 2-00 is 2 and `all` a function. The first cannot be undone and is refused; the second
is left out for the settings of a training, for texts that SLURM knows, and for times.
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
"""How often a training that is a job of the executor is started again, unless `max_requeues` says otherwise."""

TEXTS = ("slurm_account", "slurm_partition", "qos", "constraint", "reservation", "gres", "gpu_model", "clusters")
"""Resources that are names to SLURM, never expressions."""

PYTHON = "python"
"""The resource that says what starts Python in every job."""

_NUMBER = re.compile(r"((?:\w+:)?\w+)=(\d[\d_]*)")
_TIME = re.compile(r"[\d:-]+")
_SECTIONS = ("default-resources", "set-resources")


def read_texts(workflow: Any) -> None:
    """Let rules that follow have names as they were typed, and times of SLURM's forms as minutes.

    Raises
    ------
    SettingsError
        If YAML or Snakemake has changed a value before, or a time is none.
    """
    if workflow.is_main_process:
        check_command_line(sys.argv[1:])
        for file in _profiles():
            check_texts(file)
    settings = workflow.resource_settings
    _keep_texts("default-resources", settings._parsed_default_resources)  # noqa: SLF001
    for rule, resources in settings._parsed_overwrite_resources.items():  # noqa: SLF001
        _keep_texts(f"set-resources: {rule}", resources)


def _keep_texts(where: str, resources: Any) -> None:
    from snakemake.resources import Resource

    for name, resource in list(resources.items()):
        text = _as_typed(resource.raw)
        is_name = name in TEXTS and resource.raw is not None and " " not in text  # with one it is an expression
        if is_name or name == PYTHON:
            resources[name] = Resource(name, text, raw=repr(text))
        elif name == "runtime" and _TIME.fullmatch(text):
            try:
                resources[name] = Resource(name, minutes(text))
            except ValueError as error:
                raise SettingsError(f"{where}: runtime: {error} (got {text!r})") from None


def training_settings(workflow: Any) -> tuple[JobSettings, str]:
    """Return the job settings that the profile and the command line give to the rule `train`, and as options.

    With `cluster: executor` the training is a job like any other: that word is taken out, because the executor of
    SLURM has a resource of this name.

    Raises
    ------
    SettingsError
        If a value cannot be used, or YAML has changed it.
    """
    given = workflow.resource_settings._parsed_overwrite_resources.get("train", {})  # noqa: SLF001
    default = dict(workflow.resource_settings._parsed_default_resources.items())  # noqa: SLF001
    all_given = {name: resource for name, resource in default.items() if name == PYTHON} | dict(given.items())
    raw = {"cluster": "local", **{name: _as_typed(resource.raw) for name, resource in all_given.items()}}
    if raw["cluster"] == "executor":
        raw = {"max_requeues": EXECUTOR_RETRIES, **raw}
        del given._data["cluster"]  # noqa: SLF001 - the one dictionary that rules and the jobs' Snakemakes take it from
    # Elsewhere it may have resources that only Snakemake or its executor reads; a job of our own has none but ours.
    ours = [name for name in raw if name in JobSettings.model_fields or raw["cluster"] == "slurm"]
    settings = JobSettings.from_options(f"{name}={raw[name]}" for name in ours)
    return settings, job_options(raw)


def program(workflow: Any) -> str:
    """Return what rules call: `ccsd`, or its module by the Python that the profile names (`default-resources: python`).

    Raises
    ------
    SettingsError
        If that Python cannot be started here.
    """
    given = dict(workflow.resource_settings._parsed_default_resources.items())  # noqa: SLF001
    if PYTHON not in given:
        return "ccsd"
    return f"{shlex.join(interpreter(_as_typed(given[PYTHON].raw)))} -m ccsd"


def check_texts(file: Path) -> None:
    """Refuse values of resources that are something else to YAML than what is written.

    Raises
    ------
    SettingsError
        If there are any; each is named with its line and with what to write instead.
    """
    try:
        document = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeError, yaml.YAMLError):
        return  # Snakemake, which read it before, has its own words for that
    sections = _children(document)
    problems = [
        f"  line {node.start_mark.line + 1}: {name}: {_text(node)} is {_meaning(node)} to YAML; write it in quotes: "
        f'{name.rpartition(" ")[2]}: "{_text(node)}"'
        for section in _SECTIONS
        for name, node in _values(section, sections.get(section))
        if _changes(node)
    ]
    if problems:
        raise SettingsError("\n".join([f"{file}: values that would not arrive as they are written:", *problems]))


def check_command_line(words: Sequence[str]) -> None:
    """Refuse numbers of `--set-resources` and `--default-resources` that Snakemake would change, as 00123 to 123.

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
                f"{word}: to Snakemake that is {int(found[2])}; write it in two pairs of quotes: "
                f"{found[1]}=\"'{found[2]}'\""
            )


def _profiles() -> list[Path]:
    """Return the files of the profiles that this Snakemake was started with."""
    from snakemake.cli import get_argument_parser, get_profile_dir

    given, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    named = [*(given.profile or []), *([given.workflow_profile] if given.workflow_profile else [])]
    found = [get_profile_dir(str(name)) for name in named if name != "none"]
    return [entry[1] for entry in found if entry is not None]


def _as_typed(raw: Any) -> str:
    """Return a value without the quotes that keep Snakemake from evaluating it, and with variables of the shell."""
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
    """Yield what a section holds, named by where it is."""
    if isinstance(node, yaml.MappingNode):
        for key, child in _children(node).items():
            yield from _values(f"{name}: {key}", child)
    elif node is not None:
        yield name, node


def _changes(node: yaml.Node) -> bool:
    """Tell whether YAML makes something of a value that does not read like it."""
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
