"""In a checkout, `modelstacks.cdk` is the folder stacks/; this file loads it under that name.

The wheel holds stacks/ itself in place of this file (pyproject.toml, `tool.hatch.build.targets.wheel`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stacks import *  # noqa: F403  its __all__ is the list of names that are published
else:
    import sys
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / "stacks"
    spec = spec_from_file_location(__name__, folder / "__init__.py", submodule_search_locations=[str(folder)])
    # The import system hands out what it finds in sys.modules at the end, so this module is replaced.
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
