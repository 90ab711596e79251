# SPDX-License-Identifier: MIT
"""Builds the extensions of sofattn with CMake, from the checkout that this folder is a part of."""

import os
import pathlib
import re
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

root = pathlib.Path(__file__).resolve().parents[2]


def version() -> str:
    """What CMakeLists.txt says."""
    lists = root / "CMakeLists.txt"
    if not lists.is_file():
        sys.exit(f"sofattn: {lists} is not there: install from a checkout, not from a copy of this folder")
    return re.search(r"project\(sofattn\s+VERSION ([0-9.]+)", lists.read_text(encoding="utf-8"))[1]


class cmake_build(build_ext):
    """All extensions are one CMake project; it installs them with the library beside them."""

    def run(self) -> None:
        into = pathlib.Path(self.build_lib).resolve() / "sofattn"
        if self.editable_mode:
            sys.exit("sofattn: editable installs are not there: build with CMake, PYTHONPATH=<build>/python")
        build = pathlib.Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "Python_EXECUTABLE": sys.executable,
            "SOFATTN_BUILD_TESTS": "OFF",
            "SOFATTN_BUILD_BENCH": "OFF",
            "SOFATTN_BUILD_EXAMPLES": "OFF",
            "SOFATTN_BUILD_LIBRARY": "ON",
            "SOFATTN_BUILD_PYTHON": "ON",
        }
        cmake = os.environ.get("CMAKE", "cmake")
        subprocess.run(
            [cmake, "-S", root, "-B", build] + [f"-D{name}={value}" for name, value in options.items()],
            check=True,
        )
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "1")  # a job may take 2 GiB
        subprocess.run(
            [cmake, "--build", build, "--target", "sofattn_python", "--parallel", jobs], check=True
        )
        subprocess.run(
            [cmake, "--install", build, "--component", "python", "--prefix", into], check=True
        )


setup(
    version=version(),
    ext_modules=[Extension("sofattn._core", sources=[])],
    cmdclass={"build_ext": cmake_build},
)
