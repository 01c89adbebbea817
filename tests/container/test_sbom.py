"""What is in both images, and under which licences."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.container import sbom
from tests.container.engine import Engine


def test_alternatives_need_one_permitted_licence_and_conjunctions_all() -> None:
    assert sbom.permitted("MIT")
    assert sbom.permitted("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0")
    assert sbom.permitted("MIT OR GPL-3.0-only")
    assert sbom.permitted("(GPL-2.0-only OR MIT) AND BSD-3-Clause")
    assert not sbom.permitted("MIT AND GPL-3.0-only")
    assert not sbom.permitted("(MIT OR Apache-2.0) AND AGPL-3.0-or-later")
    assert not sbom.permitted("Apache-2.0 WITH Commons-Clause")


@pytest.mark.parametrize("licence", [
    "AGPL-3.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "LGPL-3.0-only", "SSPL-1.0", "BUSL-1.1", "CC-BY-NC-4.0",
    "Other/Proprietary License", "LICENSE", "", "MIT AND", "Copyright (c) 2018 Somebody. All rights reserved.",
])  # fmt: skip
def test_what_nobody_has_permitted_is_refused(licence: str) -> None:
    assert not sbom.permitted(licence)
    assert len(sbom.objections({"thing": ("1.0", licence)})) == 1


def component(*licences: dict[str, Any]) -> dict[str, Any]:
    return {"components": [{"name": "thing", "version": "1", "purl": "pkg:pypi/thing@1", "licenses": [*licences]}]}


def test_who_declares_two_licences_is_taken_at_both() -> None:
    found = sbom.licences(component({"license": {"id": "MIT"}}, {"license": {"id": "AGPL-3.0-only"}}))
    assert found == {"thing": ("1", "MIT AND AGPL-3.0-only")}
    assert sbom.objections(found) == ["thing 1: MIT AND AGPL-3.0-only is not permitted"]


def test_a_classifier_that_nobody_has_looked_at_is_no_licence() -> None:
    found = sbom.licences(component({"license": {"name": "License :: Other/Proprietary License"}}))
    assert sbom.objections(found) == ["thing 1: no licence is declared"]


@pytest.fixture(scope="module", params=["site", "server"])
def billed(
    request: pytest.FixtureRequest, engine: Engine, monkeypatch_module: pytest.MonkeyPatch
) -> tuple[str, dict[str, Any], Engine]:
    for name, value in engine.environment.items():
        monkeypatch_module.setenv(name, value)
    image = str(request.getfixturevalue(f"{request.param}_image"))
    return image, sbom.bill(sbom.inside("podman", image), image), engine


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


_INSTALLED = "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))"


def test_every_distribution_and_every_package_of_the_image_is_in_its_bill(
    billed: tuple[str, dict[str, Any], Engine],
) -> None:
    image, document, engine = billed
    options = ("--network=none", "--entrypoint", "python3")
    installed = json.loads(engine.run(image, "-c", _INSTALLED, options=options).splitlines()[-1])
    listed = {(one["name"], one["version"]) for one in document["components"] if one["purl"].startswith("pkg:pypi/")}
    assert len(installed) > 60
    assert listed == {tuple(one) for one in installed}
    packages = {one["name"] for one in document["components"] if one["purl"].startswith("pkg:deb/")}
    assert {"libc6", "python3"} <= packages
    assert ("nginx-light" in packages) is image.endswith("server")
    assert any(name == "mlflow" for name, _ in listed) is image.endswith("server")


def test_every_licence_is_known_and_permitted(billed: tuple[str, dict[str, Any], Engine]) -> None:
    image, document, _ = billed
    found = sbom.licences(document)
    assert sbom.objections(found) == []
    assert "pylibjpeg-libjpeg" not in found, "it is GPL"
    assert "| torch | " in sbom.table(found)
    written = sbom.write(document, Path(os.environ.get("CONSILIUM_SBOM", "outputs/sbom")), image)
    assert [path.suffix for path in written] == [".json", ".md"]


def test_no_licence_was_read_by_hand_that_is_declared_by_now(billed: tuple[str, dict[str, Any], Engine]) -> None:
    _, document, _ = billed
    for one in document["components"]:
        if one["name"] in sbom._READ:
            said = [each["license"]["name"] for each in one["licenses"] if "license" in each]
            assert said in ([], ["License :: OSI Approved"]), f"{one['name']} declares {said}"
