"""Files made from the code, so that they cannot differ from it: `python docs/generate.py` writes them all.

A test fails when one of them is out of date.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ccsd.config.schema import Config
from ccsd.evaluation.tables import KEYS, PROVENANCE, SURE
from ccsd.inference.measure import MeasuredLesion
from ccsd.inference.record import FilesRecord, InputRecord, OptionsRecord, PredictionRecord
from ccsd.inference.table import COLUMNS as PREDICTION_COLUMNS
from ccsd.metrics.case import CLEANED, SCORE_COLUMNS
from cluster.settings import JobSettings
from preprocess.task import Task

SCHEMA = Path("workflow/schemas/config.schema.json")
PREDICTION_SCHEMA = Path("workflow/schemas/prediction.schema.json")
CONFIG = Path("docs/reference/config.md")
CLI = Path("docs/reference/cli.md")
TABLE = Path("docs/reference/metrics.md")
PREDICTION = Path("docs/reference/prediction.md")
HEADER = "<!-- made by `python docs/generate.py`; edit the descriptions in the code instead -->\n\n"

STUDY_TEXT = """\
Settings of a study live in a YAML file (`config/config.yaml`). A command overrides them with dotted keys,
`--set train.steps=100`, Snakemake with mappings, `--config "train={steps: 100}"`. Unknown keys are rejected.
"""
METRICS_TEXT = """\
One row per case, combination and region; `metrics.parquet` has the same columns. An empty field is a number that does
not exist. [outputs.md](outputs.md) explains how empty regions are scored, how lesions are counted and what the
clean-up does.
"""
PREDICTION_TEXT = """\
[predict.md](../how-to/predict.md#what-is-written) explains them. The JSON schema is
[workflow/schemas/prediction.schema.json](../../workflow/schemas/prediction.schema.json); `format`
grows when a key changes its meaning or goes.
"""
JOB_TEXT = """\
Where a training runs and on how much: `ccsd train --job KEY=VALUE`, in the workflow `set-resources: train:` of a
profile. Nothing here changes the result.
"""


def files() -> dict[Path, str]:
    """Return the text of every generated file by its path in the repository."""
    return {
        SCHEMA: schema(Config),
        PREDICTION_SCHEMA: schema(PredictionRecord, mode="serialization"),
        CONFIG: config_reference(),
        CLI: cli_reference(),
        TABLE: metrics_reference(),
        PREDICTION: prediction_reference(),
    }


def schema(model: type[BaseModel], mode: Literal["validation", "serialization"] = "validation") -> str:
    """Return the JSON schema of a file: of the configuration editors complete and check it by that."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(mode=mode)}
    return json.dumps(content, indent=2) + "\n"


def config_reference() -> str:
    """Return tables of all settings: of the science (config/) and of the machines (`--job`, profiles)."""
    text = [
        HEADER + "# Settings\n",
        STUDY_TEXT,
        _table("Study", Config, ""),
        *(_table(name, model, f"{name}.") for name, model in _sections(Config)),
        "# Job settings\n",
        JOB_TEXT,
        _table("Job", JobSettings, ""),
    ]
    return "\n".join(text)


def cli_reference() -> str:
    """Return the help of every command."""
    import typer.main

    from ccsd.cli import app

    group: Any = typer.main.get_command(app)
    text = [HEADER + "# Commands\n", "`ccsd STAGE --help` prints the same.\n"]
    for name, command in group.commands.items():
        if not command.hidden:
            text += [f"## ccsd {name}\n", f"{(command.help or '').strip()}\n", *_parameters(command), ""]
    return "\n".join(text)


def metrics_reference() -> str:
    """Return the columns of the table of scores."""
    clean = f"the same after the clean-up of the task: {', '.join(f'`{name}`' for name in CLEANED)}"
    columns = {**KEYS, **SCORE_COLUMNS, "*_clean": clean, **SURE, **PROVENANCE}
    text = [
        HEADER + "# Columns of metrics.tsv\n",
        METRICS_TEXT,
        "| column | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in columns.items()),
    ]
    return "\n".join(text) + "\n"


def prediction_reference() -> str:
    """Return the keys of CASE.json and the columns of predictions.tsv."""
    parts = {"": PredictionRecord, "options.": OptionsRecord, "files.": FilesRecord, "inputs.SEQUENCE.": InputRecord}
    parts["lesions.REGION[]."] = MeasuredLesion
    keys = [
        f"| `{prefix}{name}` | {field.description or 'see below'} |"
        for prefix, model in parts.items()
        for name, field in model.model_fields.items()
    ]
    columns = [f"| `{name}` | {meaning} |" for name, meaning in PREDICTION_COLUMNS.items()]
    text = [
        HEADER + "# What ccsd predict writes\n",
        PREDICTION_TEXT,
        "## CASE.json\n",
        "| key | meaning |",
        "|---|---|",
    ]
    text += [*keys, "", "## predictions.tsv\n", "REGION stands for each region of the task in turn.\n"]
    return "\n".join([*text, "| column | meaning |", "|---|---|", *columns]) + "\n"


def write(root: Path) -> None:
    """Write every generated file below the repository's root."""
    for path, text in files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        section = _section(field)
        if section not in (None, Task):  # its keys are those of a file of its own: docs/reference/data.md
            yield name, section


def _section(field: FieldInfo) -> type[BaseModel] | None:
    candidates = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None)


def _table(title: str, model: type[BaseModel], prefix: str) -> str:
    rows = [
        f"| `{prefix}{name}` | {_default(field)} | {_allowed(field)} | {field.description} |"
        for name, field in model.model_fields.items()
        if _section(field) is None or field.description
    ]
    summary = (model.__doc__ or "").strip().splitlines()[0]
    return "\n".join(
        [f"## {title}\n", summary + "\n", "| key | default | allowed | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Task):
        return f"`{value.name}`"
    return f"`{json.dumps(value, default=str)}`"


def _allowed(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
        if hasattr(item, name)
    ]
    return ", ".join([_kind(field.annotation), *bounds])


KINDS = {
    int: "whole number", float: "number", str: "text", bool: "`true` or `false`", Path: "path", dict: "mapping",
    type(None): "`null`", Task: "name, path or mapping",
}  # fmt: skip


def _kind(annotation: Any, plural: str = "") -> str:
    """Return in words what a setting holds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], plural)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"{'list of' if arguments[-1] is Ellipsis else len(arguments)} {_kind(arguments[0], 's')}"
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    return KINDS.get(origin or annotation, "section") + plural


def _parameters(command: Any) -> list[str]:
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        option = parameter.param_type_name == "option"
        names = parameter.opts if option else [parameter.metavar or (parameter.name or "").upper()]
        default = "required" if parameter.required else _shown_default(parameter.default)
        meaning = (getattr(parameter, "help", None) or "").replace("|", "\\|")
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {default} | {meaning} |")
    return rows


def _shown_default(value: Any) -> str:
    return "" if value is False or value in (None, (), [], "") or callable(value) else f"`{value}`"


if __name__ == "__main__":
    write(Path.cwd())
