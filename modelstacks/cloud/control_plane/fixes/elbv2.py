"""Elastic Load Balancing v2: rules that remember their transforms."""

from __future__ import annotations

from typing import Any

from moto.elbv2.responses import ELBV2Response

from modelstacks.cloud.control_plane.fixes import afterwards


def install() -> None:
    """Change moto's load balancers."""

    @afterwards(ELBV2Response, "create_rule")
    def keep_transforms(self: Any, answer: Any) -> Any:
        for rule in answer.result["Rules"]:
            rule.transforms = self._get_param("Transforms", [])
        return answer

    @afterwards(ELBV2Response, "modify_rule")
    def change_transforms(self: Any, answer: Any) -> Any:
        for rule in answer.result["Rules"]:
            given = self._get_param("Transforms")
            if given or self._get_bool_param("ResetTransforms", False):
                rule.transforms = given or []
        return answer
