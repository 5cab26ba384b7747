"""Builds the compiled parts of bigft; everything else about the package is in pyproject.toml."""

from __future__ import annotations

from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

# No -march=native: a wheel built on one node of a cluster must run on all of them.
host = Pybind11Extension(
    "bigft._host",
    sources=sorted(glob("csrc/host/*.cpp")),
    depends=sorted(glob("csrc/host/*.h")),
    cxx_std=17,
    extra_compile_args=["-O3", "-Wall", "-Wextra"],
)

setup(ext_modules=[host], cmdclass={"build_ext": build_ext})
