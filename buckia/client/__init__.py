"""The library's face: `BuckiaClient`, which puts the parts together."""

from buckia.client.face import BuckiaClient
from buckia.engine.plan import Plan

__all__ = ["BuckiaClient", "Plan"]
