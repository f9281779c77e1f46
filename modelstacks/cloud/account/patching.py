"""Where moto's service APIs forget what they were told, refuse what AWS allows, or accept what AWS refuses.

One file a service. CloudFormation's types call the same APIs, so a refusal here holds for both.

Each module's `install()` changes moto's classes in this process, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelstacks.cloud.services import service_modules

__all__ = ["afterwards", "beforehand", "install"]


def install() -> None:
    """Apply every fix."""
    for module in service_modules("patches"):
        module.install()


def afterwards(responses: Any, action: str) -> Callable[[Callable[[Any, Any], Any]], None]:
    """Decorator: after `action`, call the function with moto's response object and its answer.

    What the function returns is the answer.
    """

    def install_around(function: Callable[[Any, Any], Any]) -> None:
        original = getattr(responses, action)

        def extended(self: Any) -> Any:
            return function(self, original(self))

        setattr(responses, action, extended)

    return install_around


def beforehand(responses: Any, action: str) -> Callable[[Callable[[Any], None]], None]:
    """Decorator: before `action`, call the function with moto's response object.

    What the function raises is the answer.
    """

    def install_around(function: Callable[[Any], None]) -> None:
        original = getattr(responses, action)

        def checked(self: Any) -> Any:
            function(self)
            return original(self)

        setattr(responses, action, checked)

    return install_around
