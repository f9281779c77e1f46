"""The real doors behind `lock` and `package`, each opened when it is first used."""

from __future__ import annotations
