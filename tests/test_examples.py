"""The examples in docstrings are run, and those of settings read, so that what a newcomer copies from them works."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from client.sources.settings import DicomwebSource, DimseSource, Source

MODULES = (
    "conf.load",
    "tasks.task",
    "tasks.contract",
    "tasks.protocol.wire",
    "tasks.protocol.encoding",
    "tasks.metrics.ranking",
    "tasks.metrics.operating",
    "tasks.models.registry",
    "tasks.models.model_file",
    "client.ledger.ledger",
    "client.ledger.accounting",
    "client.ledger.audit_log",
    "client.link.flower_gateway",
    "server.strategy.strategy",
)


CLIENT = Path(__file__).parent.parent / "client"
COMMENTED = (
    (CLIENT / "container" / "site.example.yaml").read_text("utf-8").split("An archive (PACS)")[1].split("\n# ")[0]
)
ARCHIVES = [
    *re.findall(r"```yaml\n(sources:\n.*?)```", (CLIENT / "README.md").read_text("utf-8"), re.DOTALL),
    "sources:\n" + "\n".join(re.findall(r"^  # ((?:-|  ).*)", COMMENTED, re.MULTILINE)),
]


@pytest.mark.parametrize("example", ARCHIVES, ids=["dicomweb", "dimse", "move", "site.example.yaml"])
def test_the_examples_of_archives_are_accepted(example: str) -> None:
    """As they stand in README and site.example.yaml, with TLS, secrets and labels; a misspelt field is refused."""
    sources = yaml.safe_load(example)["sources"]
    assert sources
    one: TypeAdapter[Source] = TypeAdapter(Source)
    for source in sources:
        settled = one.validate_python(source)
        assert isinstance(settled, DicomwebSource | DimseSource)
        assert settled.url.startswith("https:") if isinstance(settled, DicomwebSource) else settled.tls
        assert settled.labels is not None
        with pytest.raises(ValidationError):
            one.validate_python(source | {"lables": "labels.csv"})


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_give_what_they_show(module: str) -> None:
    failed, tried = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert tried > 0, "there is an example"
