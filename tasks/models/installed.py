"""Networks of other packages: what an installed package declares, and nothing else.

A package declares a builder in its metadata (entry points of the Python packaging specifications):

    [project.entry-points."consilium.models"]
    my_net = "my_package.net:build"

A study names it as ``my_package.net:build``. That text is compared with the declarations of the packages that are
installed where it is read; it is never imported as a path, and nothing is downloaded. So whoever installs packages at a
hospital decides what code there is, and the hospital's ``policy.models`` decides which of it may be trained.
"""

from __future__ import annotations

import traceback
from dataclasses import astuple
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from torch import nn

from conf.schema import model as schema
from tasks.input_spec import InputSpec
from tasks.models import trial
from tasks.models.network import Network

GROUP = "consilium.models"
"""The group of entry points in which packages declare builders of networks."""
_tried: set[tuple[object, InputSpec]] = set()


class NotUsable(ValueError):
    """No installed package declares the network, it is of another version, or it cannot be trained privately."""


def package_of(entry: str) -> str:
    """The distribution that declares an entry, with its version, such as ``my-net 1.0``.

    Raises:
        NotUsable: none does, or several do.
    """
    return _package(_declared(entry))


def build(options: schema.Custom, form: InputSpec) -> Network:
    """The network that the builder makes: it gets ``shape`` of an input and the number of ``outputs``, as keywords, and
    gives a module from float32 (images, *shape) to logits (images, outputs).

    Raises:
        NotUsable: with the reason.
    """
    found = _declared(options.entry)
    if options.version and options.version != (here := _package(found)):
        raise NotUsable(f"the study needs {options.version}, {here} is installed here: install the same version")
    try:
        module = found.load()(shape=form.shape, outputs=form.outputs)
    except Exception as error:  # of somebody else's code, whatever it is
        raise NotUsable(f"it cannot be built: {_told(error)}") from error
    if not isinstance(module, nn.Module):
        raise NotUsable(f"its builder gives {type(module).__name__}, not a torch.nn.Module")
    return Network(None, module)


def refuse_unfit(network: Network, options: schema.Custom, form: InputSpec) -> None:
    """Pass if the network can be trained privately; what has passed is not tried again by this process.

    Raises:
        NotUsable: with every reason.
    """
    if (astuple(options), form) in _tried:
        return
    try:
        problems = trial.problems(network, form)
    except Exception as error:
        raise NotUsable(f"it fails on noise of the task's shape {form.shape}: {_told(error)}") from error
    if problems:
        raise NotUsable("; ".join(problems))
    _tried.add((astuple(options), form))


def _declared(entry: str) -> EntryPoint:
    declared = entry_points(group=GROUP)
    found = {_package(each): each for each in declared if each.value == entry}
    if len(found) > 1:
        raise NotUsable(f"{' and '.join(sorted(found))} both declare it: uninstall one of them")
    if not found:
        there = ", ".join(sorted({each.value for each in declared})) or "none"
        raise NotUsable(f"no package installed here declares it ({GROUP} has {there}); see conf/model/README.md")
    return next(iter(found.values()))


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.metadata['Name']} {entry.dist.version}" if entry.dist is not None else "a package"


def _told(error: Exception) -> str:
    """An error in one line, with the place that raised it."""
    text = next(iter(str(error).strip().splitlines()), "")
    places = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {text}{where}"
