"""Figures for Prometheus, at an address that the operator sets: text format, no TLS, meant for loopback.

A scrape gets the figures as they were at the last look, so it costs nothing, and nothing waits for whoever scrapes. The
only file that imports prometheus-client, and only where a server or a hospital sets ``metrics``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from tasks.machine.small_server import SmallServer

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def _possible(address: str) -> str:
    if not 0 < split(address)[1] < 2**16:
        raise ValueError(f"{address}: ports are numbers from 1 to 65535")
    return address


Address = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):\d{1,5}$"), AfterValidator(_possible)]
"""``metrics`` in ``server.yaml`` and ``site.yaml``: ``ADDRESS:PORT``."""
_LONGEST = 80


@dataclass(frozen=True)
class Figure:
    """One number that can be scraped.

    Attributes:
        name: of the metric, such as ``consilium_server_disk_free_bytes``; one that ends with ``_total`` only grows.
        help: what it is, with its unit.
        labels: which one of several it is. The values may be others' text: they are cut short and escaped.
    """

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Exposition:
    """Serves the figures that ``figures`` returns, in a thread of its own.

    Args:
        address: ``host:port``.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, address: str, figures: Callable[[], Sequence[Figure]]) -> None:
        from prometheus_client import CollectorRegistry, make_wsgi_app
        from prometheus_client.registry import Collector

        class Figures(Collector):
            def collect(self) -> Iterator[Metric]:
                return _families(figures())

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Figures())
        self._server = SmallServer(*split(address), make_wsgi_app(registry), "metrics")

    def close(self) -> None:
        """Stop serving."""
        self._server.close()


def _families(figures: Sequence[Figure]) -> Iterator[Metric]:
    """The figures by their metric, as the text format wants them."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    by_name: dict[str, list[Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, []).append(figure)
    for name, same in by_name.items():
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, same[0].help, labels=list(same[0].labels))
        for figure in same:
            family.add_metric([shortened(value) for value in figure.labels.values()], figure.value)
        yield family


def shortened(text: str) -> str:
    """Others' text as far as a label or a line can show it: printable, and not too long."""
    return "".join(c for c in text[:_LONGEST] if c.isprintable())


def split(address: str) -> tuple[str, int]:
    """Host and port of an address such as ``127.0.0.1:9464`` or ``[::1]:9464``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_local(address: str) -> bool:
    """Whether only this machine reaches the address."""
    host, _ = split(address)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
