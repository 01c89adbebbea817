"""Hospitals that answer badly, late or not at all, that are cut off, come late, leave and come back."""

from __future__ import annotations

import sys
import time

import pytest

from client.link import gateway
from client.site import load
from tests.e2e.deployment.federation import Federation, Process, site_command, until
from tests.e2e.drills.drill import SEEN, Seen, study
from tests.e2e.drills.proxy import Proxy

TOLD = {
    "nan": "values that are not finite",
    "shape": ", not float32",
    "missing": "are missing or unknown",
    "huge": "train: ",
    "silent": "train: no answer within 60 s",
}


@pytest.mark.parametrize("how", TOLD)
def test_a_hospital_that_answers_badly_is_dropped_by_name_and_stage(drilled: Federation, how: str) -> None:
    bad = drilled.hospitals[1]
    bad.stop()
    time.sleep(1)
    dials = Process(
        site_command("run", "--site", bad.site, "--gateway", bad.gateway, "--only", "gateway"),
        drilled.folder / "bad.log",
    )
    words = [sys.executable, "-m", "tests.e2e.drills.bad_trainer", how, bad.gateway, str(bad.link / "trainer.secret")]
    trainer = Process(words, drilled.folder / f"bad-{how}.log", CONSILIUM_SITE=str(bad.site))
    try:
        until(lambda: "answering orders" in trainer.text(), 120, "the bad trainer is served")
        with study(drilled, "federation.deadline_s=60", after=0) as running:
            running.break_now()
            SEEN.append(Seen(f"hospital: {how}", running.recovered(), time.monotonic() - running.broke, "dropped"))
        for one in drilled.rounds():
            assert list(one["dropped"]) == [bad.name]
            assert one["dropped"][bad.name].startswith("train: ")
            assert TOLD[how] in one["dropped"][bad.name]
    finally:
        trainer.end()
        dials.end()
        bad.start()


def test_a_reply_that_stops_midway_keeps_no_other_from_the_study(drilled: Federation) -> None:
    """Flower's grid would wait for the rest of it, for three minutes, or as long as a byte comes now and then."""
    bad = drilled.hospitals[1]
    bad.stop()
    time.sleep(1)
    link = gateway.link(load(bad.site))
    words = gateway.command(link, bad.gateway)
    words[words.index("client.link.supernode")] = "tests.e2e.drills.bad_gateway"
    dials = Process(words, drilled.folder / "bad-gateway.log", **gateway.environment(link))
    trains = Process(
        site_command("run", "--site", bad.site, "--gateway", bad.gateway, "--only", "trainer"),
        drilled.folder / "bad-gateway-trainer.log",
    )
    try:
        until(lambda: "acknowledges" in dials.text(), 120, "the bad gateway is heard")
        with study(drilled, "federation.deadline_s=45", after=0) as running:
            running.break_now()
            SEEN.append(Seen("reply stops midway", 0.0, running.recovered(), "dropped at the deadline"))
        first = drilled.rounds()[0]
        assert first["dropped"] == {bad.name: "train: no answer within 45 s"}
        assert list(first["hospitals"]) == [drilled.hospitals[0].name]
        assert 45 <= first["seconds"] < 75
    finally:
        trains.end()
        dials.end()
        bad.start()


def test_the_network_is_cut_and_restored(drilled: Federation) -> None:
    """Through a proxy: the hospital dials nothing but that."""
    proxy, hospital = Proxy(), drilled.hospitals[0]
    hospital.stop()
    hospital.start(HTTPS_PROXY=proxy.url, https_proxy=proxy.url)
    try:
        with study(drilled, after=1) as running:
            assert proxy.tunnels > 0
            log = hospital.site.parent / f"{hospital.name}.run.log"
            told = log.read_text().count("cannot be reached")
            running.break_now()
            proxy.cut()
            noticed = running.noticed(lambda: log.read_text().count("cannot be reached") > told, "the hospital says so")
            time.sleep(10)
            proxy.mend()
            SEEN.append(Seen("network cut for some 25 s", noticed, running.recovered(), "reconnects unaided"))
    finally:
        hospital.stop()
        proxy.close()
        hospital.start()


def test_a_hospital_that_comes_late_is_waited_for(drilled: Federation) -> None:
    hospital = drilled.hospitals[0]
    hospital.stop()
    with study(drilled, after=0) as running:
        running.break_now()
        time.sleep(15)
        assert running.process.running()
        assert drilled.rounds() == []
        hospital.start()
        SEEN.append(Seen("hospital comes 15 s late", 0.0, running.recovered(), "the first order waits for it"))
    assert all(hospital.name in one["hospitals"] for one in drilled.rounds())


def test_a_hospital_leaves_and_comes_back_under_the_same_key(drilled: Federation) -> None:
    hospital = drilled.hospitals[0]
    with study(drilled, after=1) as running:
        running.break_now()
        hospital.stop()
        noticed = running.noticed(
            lambda: drilled.status()["hospitals"][hospital.name]["state"] == "offline", "the server knows"
        )
        hospital.start()
        SEEN.append(Seen("hospital leaves, comes back", noticed, running.recovered(), "orders wait for it"))
    assert hospital.name in drilled.rounds()[-1]["hospitals"]
