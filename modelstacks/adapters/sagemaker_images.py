"""The ImageCatalog port: AWS's own inference images, from the tables that the SageMaker SDK ships.

No network: the SDK carries the tables as JSON. Importing it takes seconds, which is why only `lock` comes
here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

__all__ = ["SageMakerImages"]

# The framework that the model server states -> the SDK's name for it. Frameworks that AWS has no image for
# are absent.
CATALOGUE = {
    "xgboost": "xgboost",
    "scikit-learn": "sklearn",
    "sklearn": "sklearn",
    "transformers": "huggingface",
}


class SageMakerImages:
    """Images by framework and version."""

    def serving_images(self, framework: str, version: str) -> Mapping[str, str]:
        """Region -> URI of the image that can load what this version wrote.

        That is one of the same minor version, in its newest build.

        Model files are not promised to load in an older framework, and pickles not in a newer one either.
        """
        name = CATALOGUE.get(framework)
        if name is None:
            return {}
        return _images(name, _numbers(version)[:2])


@cache  # several models are often of one framework, and a lookup reads the tables once for each region
def _images(name: str, minor: tuple[int, ...]) -> Mapping[str, str]:
    from sagemaker.core import image_uris

    config = image_uris.config_for_framework(name)
    table = config.get("inference") or config
    matching = [known for known in table["versions"] if _numbers(known)[:2] == minor]
    if not matching:
        return {}
    newest = max(matching, key=_numbers)
    entry = table["versions"][newest]
    bases = sorted(
        (key for key in entry if key.startswith("pytorch")), key=_numbers
    )  # Hugging Face's have one
    found = {}
    for region in sorted((entry[bases[-1]] if bases else entry)["registries"]):
        try:
            found[region] = image_uris.retrieve(
                name,
                region,
                version=newest,
                base_framework_version=bases[-1] if bases else None,
                image_scope="inference",
                instance_type="ml.m5.large",
            )
        except (ValueError, KeyError):  # the table names the region but has no CPU image for it
            continue
    return MappingProxyType(found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
