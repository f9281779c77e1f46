"""How a service's patches.py changes moto: a function that runs before or after one of moto's actions.

moto's service APIs forget some settings, refuse some that AWS allows, and accept some that AWS refuses. The
resource types of CloudFormation call the same APIs, so a refusal there is a refusal of the stack too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["afterwards", "beforehand"]


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
