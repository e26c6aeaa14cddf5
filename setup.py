"""The optional C extension; everything else is in pyproject.toml.

Without a compiler the installation goes on, and buckia chunks with NumPy or in pure Python: slower, same cuts.
"""

import sysconfig

from setuptools import Extension, setup

# Free-threaded builds of CPython before 3.15 have no limited API.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "buckia.core._gear",
            ["buckia/core/_gearmodule.c"],
            depends=["buckia/core/_gear.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if limited else [],
            py_limited_api=limited,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if limited else {},
)
