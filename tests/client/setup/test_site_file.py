"""A source is added to ``site.yaml`` without touching any other line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from client.errors import SiteMisconfigured
from client.setup.site_file import example, simulated_example, with_source
from client.site import load

SOURCE = {"kind": "folder", "task": "chest_xray", "issuer": "b", "path": "/x", "labels": "/y: z.csv"}
WHERE = Path("site.yaml")


def test_the_examples_source_is_replaced_and_every_other_line_stays() -> None:
    before = example("birch")
    after = with_source(before, SOURCE, WHERE)
    assert yaml.safe_load(after)["sources"] == [SOURCE]
    assert {**yaml.safe_load(after), "sources": 0} == {**yaml.safe_load(before), "sources": 0}
    comments = [line for line in before.splitlines() if line.startswith("#")]
    assert [line for line in after.splitlines() if line.startswith("#")] == comments
    twice = with_source(after, SOURCE | {"issuer": "c"}, WHERE)
    assert [one["issuer"] for one in yaml.safe_load(twice)["sources"]] == ["b", "c"]


def test_the_simulated_example_can_be_used_as_it_is(tmp_path: Path) -> None:
    text = with_source(simulated_example("birch", "chest_xray", "scatter_linear"), SOURCE, WHERE)
    (tmp_path / "site.yaml").write_text(text, "utf-8")
    settings = load(tmp_path / "site.yaml")
    assert (settings.simulated, settings.policy.tasks, settings.public_size) == (True, ["chest_xray"], None)


@pytest.mark.parametrize("text", ["name: x\n", "sources: []\n", "sources: [{kind: folder}]\n", "- a\n", ": :\n", ""])
def test_what_cannot_be_added_to_is_shown_to_be_added_by_hand(text: str) -> None:
    with pytest.raises(SiteMisconfigured, match=r"by hand:\n- kind: folder\n  task: chest_xray"):
        with_source(text, SOURCE, WHERE)


_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
_ITEMS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), _TEXTS | st.integers() | st.lists(_TEXTS, max_size=3), min_size=1
)


@given(
    st.lists(_ITEMS, min_size=1, max_size=3),
    st.integers(0, 4),
    st.dictionaries(_TEXTS, _TEXTS, min_size=1),
    st.booleans(),
)
def test_any_list_in_block_style_grows_by_one(
    items: list[dict[str, Any]], indent: int, source: dict[str, str], ends: bool
) -> None:
    block = yaml.safe_dump(items, allow_unicode=True, sort_keys=False)
    lines = [" " * indent + line for line in block.splitlines()]
    text = "\n".join(["name: x", "sources:", *lines] + (["# a comment", "", "policy: 1"] if ends else []))
    if yaml.safe_load(text).get("sources") != items:
        return  # a value over several lines that this indentation changes
    after = yaml.safe_load(with_source(text, source, WHERE))
    assert after == {**yaml.safe_load(text), "sources": [*items, source]}
