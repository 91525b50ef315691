"""Who may associate: the called AE title, the list of peers, the number of associations (PS3.8 9.3.4)."""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from node.settings import Peer, Settings

Address = IPv4Address | IPv6Address
Resolve = Callable[[str], set[Address]]


@dataclass(frozen=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source, reason; and why, for the audit log."""

    result: int
    source: int
    reason: int
    why: str


CALLED_UNKNOWN = Rejection(1, 1, 7, "called AE title not recognized")
CALLING_UNKNOWN = Rejection(1, 1, 3, "calling AE title or host not in receive.peers")
TOO_MANY = Rejection(2, 3, 2, "receive.max_associations reached")


def resolve(name: str) -> set[Address]:
    """The addresses of a host name now; none if it is unknown."""
    try:
        return {ip_address(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except (OSError, ValueError):
        return set()


def judge(
    settings: Settings, called: str, calling: str, host: str, others: int, resolve: Resolve = resolve
) -> Rejection | None:
    """Why the association is refused, or None. `others`: associations that live already; `host`: an address.

    An empty list of peers admits everybody: settings see to it that this happens on loopback only, or by
    `insecure`.
    """
    if called.strip() != settings.node.ae_title:
        return CALLED_UNKNOWN
    peers = settings.receive.peers
    if peers and not settings.receive.insecure and not _is_listed(peers, calling.strip(), host, resolve):
        return CALLING_UNKNOWN
    if others >= settings.receive.max_associations:
        return TOO_MANY
    return None


def _is_listed(peers: Iterable[Peer], calling: str, host: str, resolve: Resolve) -> bool:
    address = _plain(ip_address(host.partition("%")[0]))
    return any(peer.ae_title == calling and _is_at(peer.host, address, resolve) for peer in peers)


def _is_at(host: str, address: Address, resolve: Resolve) -> bool:
    try:
        return address in ip_network(host, strict=False)
    except ValueError:
        return address in {_plain(found) for found in resolve(host)}


def _plain(address: Address) -> Address:
    """::ffff:10.0.0.1 is 10.0.0.1."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
