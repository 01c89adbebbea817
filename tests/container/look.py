"""What can be seen from inside a container, as JSON. Fed to the container's own Python; imports nothing of ours.

Arguments: paths that are tried for writing, then ``--``, then what is dialled, as HOST:PORT.
"""

import json
import os
import socket
import sys
from importlib.util import find_spec


def wrong_with_writing(path: str) -> str:
    try:
        with open(path, "w"):
            pass
    except OSError as error:
        return error.strerror or "?"
    os.unlink(path)
    return ""


def wrong_with_dialling(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError as error:
        return str(error)
    return ""


def processes() -> list[dict[str, object]]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status") as file:
                status = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\0")
            with open(f"/proc/{pid}/environ") as file:
                variables = dict(each.split("=", 1) for each in file.read().split("\0") if "=" in each)
        except FileNotFoundError:  # it has ended
            continue
        ids = {int(number) for kind in ("Uid", "Gid") for number in status[kind].split()}
        capable = {kind: int(status[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        found.append({"pid": int(pid), "words": words, "ids": sorted(ids), "groups": status["Groups"].split(),
                      "no_new_privileges": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
                      "environment": variables} | capable)  # fmt: skip
    return found


def sockets(name: str, state: str) -> list[str]:
    """Local addresses of sockets, as the kernel writes them: little-endian words."""
    found = []
    with open(f"/proc/net/{name}") as file:
        for line in file.read().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == state:
                words = [bytes.fromhex(address[n : n + 8])[::-1] for n in range(0, len(address), 8)]
                family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
                found.append(f"{socket.inet_ntop(family, b''.join(words))}:{int(port, 16)}")
    return sorted(found)


def resolved(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, 443)[0][4][0])
    except OSError:
        return ""


def routes() -> list[str]:
    """Destinations, dotted, with the length of the prefix."""
    found = []
    with open("/proc/net/route") as file:
        for line in file.read().splitlines()[1:]:
            words = line.split()
            length = bin(int(words[7], 16)).count("1")
            found.append(f"{socket.inet_ntoa(bytes.fromhex(words[1])[::-1])}/{length}")
    return found


def main(words: list[str]) -> None:
    mark = words.index("--")
    with open("/proc/self/mounts") as file:
        mounts = {line.split()[1]: line.split()[3].split(",") for line in file.read().splitlines()}
    print(
        json.dumps(
            {
                "processes": processes(),
                "writes": {path: wrong_with_writing(path) for path in words[:mark]},
                "dialled": {address: wrong_with_dialling(address) for address in words[mark + 1 :]},
                "networks": sorted(os.listdir("/sys/class/net")),
                "listening": sockets("tcp", "0A") + sockets("tcp6", "0A"),
                "datagrams": sockets("udp", "07") + sockets("udp6", "07"),
                "routes": routes(),
                "resolved": {name: resolved(name) for name in ("debian.org", "pypi.org")},
                "mounts": mounts,
                "modules": {
                    name: find_spec(name) is not None for name in ("mlflow", "pip", "torch", "flwr", "tasks.phantoms")
                },
            }
        )
    )


main(sys.argv[1:])
