"""Security groups: the source's groups must let a connection out, and the target's groups must let it in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from modelstacks.cloud.network import Refused
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface, Rule
from modelstacks.cloud.snapshot import Account

__all__ = ["connect", "leave"]

ANYWHERE = "0.0.0.0/0"


def connect(
    account: Account, source: NetworkInterface, target: NetworkInterface, port: int, protocol: str = "tcp"
) -> Refused | None:
    """Whether `source` may open a connection to `target`'s `port`."""
    hop = f"{source.what} -> {target.what}"
    here, there = (account[Ec2Snapshot].vpc_of(end) for end in (source, target))
    if here != there:
        return Refused(hop, f"{source.what} is in {here} and {target.what} in {there}", "network")
    if not _admits(account, source.security_group_ids, "egress", target, port, protocol):
        wanted = f"{protocol} {port} to {_named(target)}"
        return Refused(hop, _missing(account, source, "egress", wanted), "network")
    if not _admits(account, target.security_group_ids, "ingress", source, port, protocol):
        wanted = f"{protocol} {port} from {_named(source)}"
        return Refused(hop, _missing(account, target, "ingress", wanted), "network")
    return None


def leave(
    account: Account, source: NetworkInterface, port: int, *, prefix_list: str = "", to: str
) -> Refused | None:
    """Whether `source` may open a TCP connection to the internet, or to a prefix list's addresses."""
    for rule in _rules(account, source.security_group_ids, "egress"):
        if _carries(rule, port, "tcp") and (
            ANYWHERE in rule.cidrs or (prefix_list and prefix_list in rule.prefix_list_ids)
        ):
            return None
    wanted = f"tcp {port} to {to}" + (f" ({prefix_list})" if prefix_list else "")
    return Refused(f"{source.what} -> {to}", _missing(account, source, "egress", wanted), "network")


def _rules(account: Account, group_ids: Iterable[str], direction: str) -> Iterable[Rule]:
    for group_id in group_ids:
        if group := account[Ec2Snapshot].security_groups.get(group_id):
            yield from group.egress if direction == "egress" else group.ingress


def _admits(
    account: Account,
    group_ids: Iterable[str],
    direction: str,
    peer: NetworkInterface,
    port: int,
    protocol: str,
) -> bool:
    """Every address of the peer must be covered: AWS would drop what comes from or goes to the others."""
    rules = [rule for rule in _rules(account, group_ids, direction) if _carries(rule, port, protocol)]
    if any(set(rule.group_ids) & set(peer.security_group_ids) for rule in rules):
        return True
    networks = [ipaddress.ip_network(cidr, strict=False) for rule in rules for cidr in rule.cidrs]
    addresses = [ipaddress.ip_address(address) for address in account[Ec2Snapshot].addresses_of(peer)]
    return bool(addresses) and all(any(address in network for network in networks) for address in addresses)


def _carries(rule: Rule, port: int, protocol: str) -> bool:
    if rule.protocol == "-1":
        return True
    return rule.protocol == protocol and rule.from_port <= port <= rule.to_port


def _named(interface: NetworkInterface) -> str:
    return f"{interface.what} ({', '.join(interface.security_group_ids) or 'no security group'})"


def _missing(account: Account, holder: NetworkInterface, direction: str, wanted: str) -> str:
    groups = [
        f"{group_id} ({account[Ec2Snapshot].security_groups[group_id].name})"
        if group_id in account[Ec2Snapshot].security_groups
        else group_id
        for group_id in holder.security_group_ids
    ]
    if not groups:
        return f"{holder.what} has no security group, so no {direction} rule for {wanted}"
    plural = "security groups" if len(groups) > 1 else "security group"
    has = "have" if len(groups) > 1 else "has"
    return f"{plural} {', '.join(groups)} of {holder.what} {has} no {direction} rule for {wanted}"
