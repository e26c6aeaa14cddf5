"""Every run tests the same: property tests draw from a fixed seed and never fail for being slow."""

from hypothesis import settings

settings.register_profile("buckia", derandomize=True, deadline=None, print_blob=True, database=None)
settings.load_profile("buckia")
