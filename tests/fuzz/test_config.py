"""Random configurations: values of every type in every place, and unknown keys, are used or named in one message."""

from datetime import date
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ccsd.config.load import load_config
from ccsd.config.schema import Config
from ccsd.snakemake import split_options
from ccsd.study import Study
from support.fuzzing import attempt

EASY = {"suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**30), 2**63, 0, 1]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["full", "ccsd", "flair+t1", "bf16", "unet", "../x", "a b", "\0", "$(id)", "x" * 300, "{{7*7}}"]),
    st.dates(date(1900, 1, 1)),
    st.binary(max_size=8),
)
names = st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)


def sections(model: type[BaseModel], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return every dotted key of the schema with its field."""
    found = []
    for name, field in model.model_fields.items():
        found.append(((*above, name), field))
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += sections(kind, (*above, name))
    return found


KEYS = sections(Config)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Return a sound configuration with one to four values replaced by anything."""
    raw: dict[str, Any] = {"name": "x", "phantom": {"cases": 4}, "experiments": {"a": {"train.steps": 3}}}
    for _ in range(draw(st.integers(1, 4))):
        place, field = draw(st.sampled_from(KEYS))
        own = [field.default] if isinstance(field.default, int | float | str | bool) else []
        node = raw
        for step in place[:-1]:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                break
        else:
            key = place[-1] if draw(st.integers(0, 9)) else draw(st.text(max_size=10))
            node[key] = draw(st.one_of(values, st.sampled_from([*own, "1", 1, 0.5])))
    return raw


def test_random_values(tries: int, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"

    def one(raw: dict[str, Any]) -> None:
        path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
        config, message = attempt(lambda: load_config(path), repr(raw))
        assert str(path) in message if message else isinstance(config, Config)
        study, message = attempt(lambda: Study.from_mapping(raw), repr(raw))
        if not message:
            attempt(lambda: (study.parts, study.runs, study.groups, split_options(study)), repr(raw))

    settings(max_examples=8 * tries, **EASY)(given(configurations())(one))()
