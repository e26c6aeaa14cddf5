"""The library's face: `BuckiaClient`, which puts the parts together."""

from buckia.client.face import BuckiaClient

__all__ = ["BuckiaClient"]
