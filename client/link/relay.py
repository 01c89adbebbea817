"""Pass connections on to one address and to nothing else: a trainer's only way to an archive if it has no route out.

    python -m client.link.relay LISTEN_HOST:PORT ARCHIVE_HOST:PORT

Bytes are passed on as they are, so TLS is between trainer and archive.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress

_BLOCK = 1 << 16
_CONNECT_S = 10.0


async def relay(listen: tuple[str, int], archive: tuple[str, int]) -> asyncio.Server:
    """Listen, and connect every connection with the archive.

    Raises:
        OSError: the address cannot be listened at.
    """

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.wait_for(asyncio.open_connection(*archive), _CONNECT_S)
        except OSError as error:
            print(f"{archive[0]}:{archive[1]}: {error}", file=sys.stderr, flush=True)
            writer.transport.abort()
            return
        await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))
        for one in (writer, there[1]):
            one.close()

    return await asyncio.start_server(meet, *listen)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()


def _end(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise SystemExit(f"{text!r} must be HOST:PORT")
    return host.strip("[]"), int(port)


async def _run(listen: tuple[str, int], archive: tuple[str, int]) -> None:
    async with await relay(listen, archive) as server:
        await server.serve_forever()


def main(words: Sequence[str]) -> None:
    """Run until ended."""
    if len(words) != 2:
        raise SystemExit("usage: python -m client.link.relay LISTEN_HOST:PORT ARCHIVE_HOST:PORT")
    asyncio.run(_run(_end(words[0]), _end(words[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
