"""Which resource and method of a REST API a request is for."""

from __future__ import annotations

from urllib.parse import unquote

from modelstacks.cloud.services.apigateway.snapshot import Method, Resource

__all__ = ["match"]


def match(
    resources: tuple[Resource, ...], path: str, method: str
) -> tuple[Resource, Method, dict[str, str]] | None:
    """The most specific resource that has the method: literals before {parameters} before {greedy+}."""
    wanted = [unquote(part) for part in path.strip("/").split("/")] if path != "/" else []
    best: tuple[tuple[int, ...], Resource, Method, dict[str, str]] | None = None
    for resource in resources:
        found = resource.methods.get(method) or resource.methods.get("ANY")
        pattern = [part for part in resource.path.split("/") if part]
        fit = _fit(pattern, wanted)
        if found is None or fit is None:
            continue
        rank, parameters = fit
        if best is None or rank < best[0]:
            best = (rank, resource, found, parameters)
    return best[1:] if best else None


def _fit(pattern: list[str], wanted: list[str]) -> tuple[tuple[int, ...], dict[str, str]] | None:
    rank: list[int] = []
    parameters: dict[str, str] = {}
    for index, part in enumerate(pattern):
        if part.startswith("{") and part.endswith("+}"):
            if index >= len(wanted):
                return None
            return (*rank, 2), {**parameters, part[1:-2]: "/".join(wanted[index:])}
        if index >= len(wanted):
            return None
        if part.startswith("{") and part.endswith("}"):
            parameters[part[1:-1]] = wanted[index]
            rank.append(1)
        elif part == wanted[index]:
            rank.append(0)
        else:
            return None
    return (tuple(rank), parameters) if len(pattern) == len(wanted) else None
