"""What names this machine: the addresses that it is told to serve at, and Host headers."""

import ipaddress
import socket

from .errors import EarmarkError


def url(host: str, port: int) -> str:
    """Of what is served at a name or address."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def named(host: str) -> str:
    """The host itself, which must not be empty: that would be all networks.

    Raises:
        EarmarkError: it is empty.
    """
    if not host:
        raise EarmarkError(
            "the host to listen at is empty: name one, 127.0.0.1 for this machine alone"
        )
    return host


def port_number(text: str) -> int:
    """Raises ValueError where ``text`` is no port."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError("a number from 0 to 65535 is needed")
    return int(text)


def exposure(address: str, at: str) -> str | None:
    """What people should know where other machines can reach a service; None where they cannot.

    Args:
        address: IP address that is listened at.
        at: the service's name for people.
    """
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return None
    return (
        f"{at} can be reached from other machines, and asks nobody who they are: keep it inside a "
        "network that you trust"
    )


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
