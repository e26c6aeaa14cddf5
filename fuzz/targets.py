"""All targets, by name."""

from __future__ import annotations

from fuzz import format_targets, text_targets
from fuzz.target import REGISTRY, Target

MODULES = (format_targets, text_targets)

TARGETS: dict[str, Target] = REGISTRY.targets
