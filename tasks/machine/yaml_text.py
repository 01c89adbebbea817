"""Settings in YAML, read so that nothing which somebody wrote is passed over in silence."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode


class BadYaml(ValueError):
    """A text is not YAML, or says one thing twice."""


class _Once(yaml.SafeLoader):
    """YAML whose keys occur once. Of two the last would count, whichever of them its reader has seen: a cap on privacy
    loss, for instance."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if isinstance(key, ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise BadYaml(f"{key.value} is set twice, in lines {lines[key.value]} and {line}; take one out")
                lines[key.value] = line
        return super().construct_mapping(node, deep)


def values(text: str) -> Any:
    """What a text in YAML says.

    >>> values("a: 1\\nb: [2, 3]")
    {'a': 1, 'b': [2, 3]}

    Raises:
        BadYaml: it is no YAML, it says nothing, or a name is set twice; with the line, and what to do.
    """
    try:
        loader = _Once(text)
        try:
            found = loader.get_single_data()
        finally:
            loader.dispose()
    except BadYaml:
        raise
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # some values, such as dates, fail only on construction, with errors of any kind
        tab = getattr(error, "problem", None) or ""
        remedy = "indent with spaces, YAML takes no tabs" if "\\t" in tab else (
            "correct that line (a value with ':' or '#' is quoted)"
        )  # fmt: skip
        raise BadYaml(f"{' '.join(str(error).split())}; {remedy}") from error
    if not isinstance(found, dict):
        raise BadYaml("it holds no settings, one 'name: value' a line; is it the right file?")
    return found
