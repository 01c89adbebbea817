"""What is in an image: a list in CycloneDX 1.6, and a table of licences that fails on one that nobody has permitted.

    python -m tests.container.sbom ENGINE FOLDER IMAGE...       (make sbom)

The list names every Python distribution that is installed in the image, from the metadata beside it, and every Debian
package, from dpkg's own list. ENGINE is podman or docker; nothing is installed in the image or left in it.

The rule: each Python distribution must declare a licence of ``PERMITTED``, all of them where it declares several with
AND, one where with OR. It is a list of what may be, so AGPL, GPL, LGPL, SSPL, source-available and non-commercial terms
are refused like everything else that nobody has looked at. Debian packages are listed and not judged: which base an
image stands on is the choice of who builds it. What a wheel has in it that is compiled in, its own licence files tell.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable, Iterator
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import ExpressionError, LicenseExpression, Licensing

PERMITTED = frozenset({
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
    "LicenseRef-BSD",  # some BSD licence; the metadata do not say which
    "LicenseRef-public-domain",
    "MPL-2.0",  # asks for the source of its own files, which are installed as they are published
})  # fmt: skip
_WORDED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "BSD": "LicenseRef-BSD",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "LicenseRef-BSD",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: Public Domain": "LicenseRef-public-domain",
}
"""What distributions write where SPDX has a name for it."""
_READ = {"huey": "MIT", "skops": "MIT"}
"""Licences that were read in the file LICENSE of distributions whose metadata name none."""

_METADATA = "cd /opt/consilium/lib/python3*/site-packages && tar -cf - *.dist-info"
_PACKAGES = "dpkg-query -W -f '${Package}\\t${Version}\\t${Architecture}\\n'"

_SPDX = Licensing()
Run = Callable[[str], bytes]
"""Runs a line of shell in the image and returns what it prints."""


class Unlicensed(Exception):
    """Some distribution has a licence that is not permitted, or none that can be found."""


def inside(engine: str, image: str) -> Run:
    """How a line of shell is run in an image, without a network."""

    def run(line: str) -> bytes:
        words = [*engine.split(), "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", line]
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout

    return run


def bill(run: Run, image: str) -> dict[str, Any]:
    """What is in the image, as a CycloneDX document.

    Raises:
        ValueError: the document is not valid CycloneDX.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = _python(run, Path(folder))
    found["metadata"]["component"] = {
        "bom-ref": image, "type": "container", "name": image, "version": version("consilium-fl"),
    }  # fmt: skip
    found["components"] += [_debian(line) for line in run(_PACKAGES).decode().splitlines()]
    found.pop("dependencies", None)  # of an environment that has no root; the image needs all of it
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))
    if wrong is not None:
        raise ValueError(f"the bill of {image} is not valid CycloneDX 1.6: {wrong}")
    return found


def _python(run: Run, folder: Path) -> dict[str, Any]:
    """Ask cyclonedx-py about an environment that has the image's metadata in it and nothing else."""
    venv.create(folder / "venv", with_pip=False)
    packages = next((folder / "venv" / "lib").glob("python3*")) / "site-packages"
    with tarfile.open(fileobj=io.BytesIO(run(_METADATA))) as archive:
        archive.extractall(packages, filter="data")
    wanted = ["--output-reproducible", "--spec-version", "1.6", "--output-file", str(folder / "bom.json")]
    tool = str(Path(sys.executable).parent / "cyclonedx-py")
    # Neither where this runs nor what this Python is told to import may add to what is in the image.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(
        [tool, "environment", *wanted, str(folder / "venv" / "bin" / "python")], check=True, cwd=folder, env=alone
    )
    found: dict[str, Any] = json.loads((folder / "bom.json").read_text("utf-8"))
    for component in found["components"]:
        if not component.get("licenses"):  # the tool passes over what is no name of SPDX
            component["licenses"] = list(_free_text(packages, component["name"], component["version"]))
    return found


def _free_text(packages: Path, name: str, number: str) -> Iterator[dict[str, Any]]:
    for path in packages.glob("*.dist-info/METADATA"):
        told = HeaderParser().parsestr(path.read_text("utf-8"))
        if (told["Name"], told["Version"]) == (name, number) and told["License"]:
            yield {"license": {"name": told["License"], "acknowledgement": "declared"}}


def _debian(line: str) -> dict[str, Any]:
    name, number, architecture = line.split("\t")
    url = f"pkg:deb/debian/{name}@{number.replace('+', '%2B')}?arch={architecture}"
    return {"bom-ref": url, "type": "library", "name": name, "version": number, "purl": url}


def licences(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Version and licence, as an SPDX expression, of every Python distribution; empty where none can be told."""
    return {
        component["name"]: (component["version"], _licence(component))
        for component in document["components"]
        if component["purl"].startswith("pkg:pypi/")
    }


def _licence(component: dict[str, Any]) -> str:
    """All that the metadata say, joined by AND: who says two things is taken at both."""
    said = []
    for each in component.get("licenses", []):
        text = each.get("expression") or each["license"].get("id") or each["license"]["name"]
        said.append(_WORDED.get(text, "" if text.startswith("License ::") else text))
    if any(said):
        return " AND ".join(f"({text})" if " OR " in text else text for text in dict.fromkeys(filter(None, said)))
    return _READ.get(component["name"], "")


def objections(found: dict[str, tuple[str, str]]) -> list[str]:
    """What is wrong with the licences, a sentence each."""
    return [
        f"{name} {number}: " + (f"{licence} is not permitted" if licence else "no licence is declared")
        for name, (number, licence) in found.items()
        if not permitted(licence)
    ]


def permitted(expression: str) -> bool:
    """Whether an SPDX expression lets us use the thing under permitted licences alone. What cannot be read does not."""
    try:
        parsed = _SPDX.parse(expression)
    except ExpressionError:
        return False
    return parsed is not None and _allowed(parsed)


def _allowed(part: LicenseExpression) -> bool:
    if isinstance(part, _SPDX.OR):
        return any(map(_allowed, part.args))
    if isinstance(part, _SPDX.AND):
        return all(map(_allowed, part.args))
    return str(part) in PERMITTED


def table(found: dict[str, tuple[str, str]]) -> str:
    """The licences as a table in Markdown."""
    rows = [f"| {name} | {number} | {licence} |" for name, (number, licence) in sorted(found.items(), key=_by_name)]
    return "\n".join(["| distribution | version | licence |", "|---|---|---|", *rows]) + "\n"


def _by_name(row: tuple[str, tuple[str, str]]) -> str:
    return row[0].lower()


def write(document: dict[str, Any], folder: Path, image: str) -> list[Path]:
    """Write ``IMAGE.cdx.json`` and ``IMAGE.licences.md``. Returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = image.rpartition("/")[2].partition(":")[0]
    listed, told = folder / f"{name}.cdx.json", folder / f"{name}.licences.md"
    listed.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
    told.write_text(table(licences(document)), "utf-8")
    return [listed, told]


def main(engine: str, folder: Path, images: list[str]) -> None:
    """Write the files of each image.

    Raises:
        Unlicensed: naming every distribution whose licence is not permitted.
    """
    wrong = []
    for image in images:
        document = bill(inside(engine, image), image)
        print(*write(document, folder, image), sep="\n")
        wrong += objections(licences(document))
    if wrong:
        raise Unlicensed("; ".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
