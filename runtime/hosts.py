"""What names this machine in HTTP: the addresses it is told to serve at, and Host headers."""

import ipaddress
import socket


def url(host: str, port: int) -> str:
    """Of what is served at a name or address."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_own(header: str, host: str) -> bool:
    """Whether a Host header names this machine in a way that no other name can (DNS rebinding).

    An address is not subject to name resolution, so that no foreign name hides behind it.

    Args:
        header: of the request.
        host: name or address that is listened at.
    """
    name, colon, port = header.rpartition(":")
    if not colon or not port.isdecimal():
        name = header
    name = name.strip("[]").rstrip(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().lower()
        return name in {"localhost", host.lower(), own, f"{own}.local"}
    return True
