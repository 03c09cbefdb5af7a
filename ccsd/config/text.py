"""YAML as this program reads it: plain values only, no key twice, nothing that grows without bounds."""

from collections import Counter
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

YAML_ERRORS = (yaml.YAMLError, AttributeError, LookupError, RecursionError, ValueError)
"""What `read_yaml` raises for a text that it refuses; PyYAML has no word of its own for `2024-13-45` or `!!int ""`."""

_MOST_KEYS = 10_000


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse a key that is given twice, of which PyYAML takes the last without a word."""
        node = super().compose_mapping_node(anchor)
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, number in counts.items() if number > 1]
        if twice:
            raise ComposerError("in a mapping", node.start_mark, f"{', '.join(twice[:5])}: given twice", node.end_mark)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Merge `<<` keys, a limited number: a few lines can ask for billions."""
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            raise ConstructorError("in a mapping", node.start_mark, f"more than {_MOST_KEYS} keys", node.end_mark)


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises
    ------
    YAML_ERRORS
        If it is not valid, has a key twice, or is nested or merged without bounds.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader, which makes plain values only
