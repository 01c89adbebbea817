"""Changes to a ``site.yaml`` that leave its comments, its order and every other line as they are."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from client.errors import SiteMisconfigured

_EXAMPLE = {"path": "/data/dicom", "labels": "/data/labels.csv"}
"""The source of the shipped example, which stands for one that nobody has described yet."""


def example(name: str) -> str:
    """The commented ``site.yaml`` for a hospital of that name."""
    text = (files("client") / "container" / "site.example.yaml").read_text("utf-8")
    return text.replace("example-hospital", name)


def simulated_example(name: str, task: str, model: str) -> str:
    """The same for a simulated hospital of one task."""
    text = example(name)
    for before, after in (
        ("# simulated: false\n", "simulated: true\n"),
        ("public_size: 200\n", "# public_size: 200\n"),
        ("tasks: [breast_ultrasound]", f"tasks: [{task}]"),
        ("models: [scatter_linear]", f"models: [{model}]"),
    ):
        if text.count(before) != 1:
            raise AssertionError(f"site.example.yaml has no single {before!r}")
        text = text.replace(before, after)
    return text


def with_source(text: str, source: Mapping[str, Any], where: Path) -> str:
    """The settings with one more source, in the place of the example's if that is still there.

    Args:
        where: the file, for messages.

    Raises:
        SiteMisconfigured: it has no list of sources, one item a line, to add to; with the lines to add by hand.
    """
    item = yaml.safe_dump([dict(source)], sort_keys=False, allow_unicode=True)
    sources = _sources(text)
    if sources is None:
        raise SiteMisconfigured(f"{where} has no list `sources` with one entry a line; add to it by hand:\n{item}")
    lines, last = text.splitlines(keepends=True), sources.value[-1]
    indented = textwrap.indent(item, " " * sources.start_mark.column)
    end = _last_line(last) + 1
    start = last.start_mark.line if len(sources.value) == 1 and _is_example(last) else end
    before = "".join(lines[:start])
    return before + ("" if before.endswith("\n") else "\n") + indented + "".join(lines[end:])


def _sources(text: str) -> SequenceNode | None:
    """The node of the list, if it is one that lines can be added to."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    pairs = root.value if isinstance(root, MappingNode) else []
    node = next((value for key, value in pairs if key.value == "sources"), None)
    if not isinstance(node, SequenceNode) or node.flow_style or not node.value:
        return None
    return None if any(getattr(one, "flow_style", False) for one in node.value) else node


def _last_line(node: Node) -> int:
    """The last line that has a value of a node; its own end mark lies behind the comments that follow."""
    if isinstance(node, ScalarNode) or not node.value:
        return int(node.end_mark.line - (node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line))
    if getattr(node, "flow_style", False):
        return int(node.end_mark.line)
    inner = [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else node.value
    return max(map(_last_line, inner))


def _is_example(node: Node) -> bool:
    values = {key.value: value.value for key, value in node.value} if isinstance(node, MappingNode) else {}
    return _EXAMPLE.items() <= values.items()
