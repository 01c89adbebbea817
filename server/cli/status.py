"""The state of the server: programs, hospitals, people and studies, and the queue.

Tested in ``tests/server/cli/test_people.py``.
"""

from __future__ import annotations

from rich.console import Console

from server.cli.output import DOWN, HERE, AsJson, HomeFolder, answer, fail, table
from server.deployment import pki, queue
from server.deployment.overview import overview, queued
from server.deployment.server_dir import read
from tasks.machine.supervision import holder


def status(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Show server health, connected hospitals and study progress. Exit code 3 if it is not running or not healthy."""
    server_dir = read(home)
    facts = overview(server_dir, lambda text: Console(stderr=True).print(text, markup=False))
    shown = [
        table("Programs", ("", "process", "healthy", "starts"), [
            (name, p["pid"] or "-", "yes" if p["well"] else "no", p["starts"]) for name, p in facts["programs"].items()
        ]),
        table("Hospitals", ("", "state", "admitted", "size", "key"), [
            (name, h["state"], h["admitted"], h["public_size"] or "-", h["key"])
            for name, h in facts["hospitals"].items()
        ]),
        table("People", ("", "role", "certificate"), [
            (name, p["role"], f"{p['days']} days") for name, p in facts["people"].items()
        ]),
        table("Studies", ("", "asked by", "state", "rounds", "error"), [
            (name, s["asked_by"], s["state"], f"{s['committed']} of {s['rounds']}", s["error"])
            for name, s in facts["studies"].items()
        ]),
    ]  # fmt: skip
    if facts["certificate_days"] < pki.WARN_DAYS:
        days = facts["certificate_days"]
        shown.append(table(f"The certificate has {days} days left: consilium-server renew", (), []))
    answer(as_json, facts, *shown)
    if not facts["up"] or not all(program["well"] for program in facts["programs"].values()):
        fail(DOWN)


def waiting(home: HomeFolder = HERE, as_json: AsJson = False) -> None:
    """Show which studies run, and in which order the others wait."""
    server_dir = read(home)
    is_up, facts = holder(server_dir.lock) is not None, queued(server_dir)
    lines = [] if is_up else ["The server is not running. This is how it was; all go on when it runs again."]
    shown = table(
        f"Studies, {facts['at_once']} at once", ("", "study", "task", "asked by", "since"), queue.shown(facts)
    )
    answer(as_json, facts | {"up": is_up}, shown, *lines)
