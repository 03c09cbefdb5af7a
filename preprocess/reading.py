"""Reading hand-written files: YAML, and tables that may come from a spreadsheet."""

import csv
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError

from preprocess.errors import InputError, first_few

YAML_ERRORS = (yaml.YAMLError, ValueError)
"""What `read_yaml` raises for invalid text; a date such as `2024-13-45` raises a bare ValueError."""
ModelT = TypeVar("ModelT", bound=BaseModel)
_DELIMITERS = "\t;,"


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        """Reject a key that is given twice; PyYAML silently uses the last one."""
        node = super().compose_mapping_node(anchor)
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, number in counts.items() if number > 1]
        if twice:
            raise ComposerError("in a mapping", node.start_mark, f"{', '.join(twice[:5])}: given twice", node.end_mark)
        return node


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises
    ------
    YAML_ERRORS
        If it is not valid or has a key twice.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader, which makes plain values only


def read_mapping(path: Path, what: str, expected: str) -> dict[str, Any]:
    """Return the top-level mapping of a YAML file.

    Parameters
    ----------
    what, expected
        What the file is, and what it must contain, for messages.

    Raises
    ------
    InputError
        If it cannot be read, is not valid YAML or has no keys.
    """
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what}: {error.strerror}") from None
    except YAML_ERRORS as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected {expected}")
    return values


def read_model(path: Path, model: type[ModelT], what: str) -> ModelT:
    """Return a YAML file as a model; without a `name` it gets that of the file.

    Parameters
    ----------
    what
        What the file is, for messages.

    Raises
    ------
    InputError
        If it cannot be read, or has keys or values that cannot be used; every problem is listed.
    """
    values = read_mapping(path, what, f"the keys of a {what}; docs/how-to/data.md has an example")
    try:
        return model.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        found = [_problem(item, model) for item in error.errors(include_url=False)]
        raise InputError(f"{path}: the {what} cannot be used: {first_few(found, 10, '; ')}") from None


def _problem(item: Any, model: type[BaseModel]) -> str:
    where, text = ".".join(str(part) for part in item["loc"]), str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        text = "unknown key" + (f"; allowed: {', '.join(model.model_fields)}" if len(item["loc"]) == 1 else "")
    elif item["type"] == "string_type" and item["loc"][-1] == "[key]":
        text = f"{item['input']!r} is not a string: put names such as on, no or 1 in quotes"
    elif item["type"] == "too_short":
        text = f"give at least {item['ctx']['min_length']}"
    elif item["type"] == "too_long":
        text = f"give at most {item['ctx']['max_length']}"
    return f"{where}: {text}" if where else text


def read_table(path: Path, required: Iterable[str]) -> dict[int, dict[str, str]]:
    """Return the rows of a table by line number; each row maps lower-case column names to values.

    Columns are separated by tabs, commas or semicolons, whichever the first line has. What spreadsheets leave behind
    does not matter: a byte order mark, Windows line endings, quotes and empty lines.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a required column, or has a row with more cells than columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        first = lines[0] if lines else ""
        delimiter = next((mark for mark in _DELIMITERS if mark in first), "\t")
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}; save it as UTF-8 text with tabs or commas") from None
    columns = [name.lower() for name in rows[0]] if rows else []
    if missing := [name for name in required if columns.count(name) != 1]:
        raise InputError(f"{path}: expected a column {missing[0]!r} in the first line, which has: {first!r:.100}")
    found = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if any(row[len(columns) :]):
            raise InputError(f"{path}, line {number}: {len(row)} cells, but the first line names {len(columns)}")
        found[number] = dict(zip_longest(columns, row[: len(columns)], fillvalue=""))
    return found
