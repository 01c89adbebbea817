"""The trainer's contract with what Flower does not promise: when a name is gone, nothing runs."""

from __future__ import annotations

import inspect
from pathlib import Path

import httpx
import pytest
from flwr.supernode.runtime import run_clientapp

from client.link import flower_trainer
from tasks.machine.heartbeat import steady
from tests.client.link.names import started_without


def test_without_any_one_of_its_names_the_trainer_does_not_start() -> None:
    started_without(flower_trainer, "client.link.trainer", 12)


def test_nothing_that_unpacks_or_imports_a_bundle_is_reached() -> None:
    """``flwr-clientapp`` does both between pulling and answering; of its functions ours uses those around that."""
    source = Path(flower_trainer.__file__).read_text("utf-8")
    assert "install_from_fab(" in inspect.getsource(run_clientapp.run_clientapp)
    for name in ("install_from_fab", "get_load_client_app_fn", "run_clientapp(", "install_app_dependencies"):
        assert name not in source
    for function in ("pull_task_input", "push_message", "push_task_output"):
        text = inspect.getsource(getattr(run_clientapp, function))
        assert "install" not in text
        assert "load_client_app" not in text


def test_pulling_gives_message_context_run_and_bundle_in_this_order() -> None:
    assert "return message, context, run, fab\n" in inspect.getsource(run_clientapp.pull_task_input)


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://gateway/v1/runtime/x")
    return httpx.HTTPStatusError("refused", request=request, response=httpx.Response(status, request=request))


def test_a_task_s_heartbeat_survives_an_error_of_the_gateway() -> None:
    def fails() -> bool:
        raise answered(500)

    def refuses() -> bool:
        raise answered(401)

    assert not steady(fails)()
    with pytest.raises(httpx.HTTPStatusError):
        steady(refuses)()
