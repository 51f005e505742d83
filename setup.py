"""Builds the native kernels, and puts the configs into wheels. Everything else is in pyproject.toml.

The kernels are optional: without a C++ compiler the installation succeeds and all runs as plain PyTorch.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# -ffp-contract=off keeps the arithmetic PyTorch's, bit for bit; -fno-trapping-math lets the compiler vectorise selects.
UNIX_FLAGS = [
    "-std=c++11",
    "-O3",
    "-g0",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fvisibility=hidden",
]
MSVC_FLAGS = ["/O2", "/fp:precise"]
SOURCES = "src/sddpm/csrc"


class BuildKernel(build_ext):
    """Compiler flags by the kind of compiler; files that compile side by side."""

    def build_extensions(self):
        msvc = self.compiler.compiler_type == "msvc"
        for extension in self.extensions:
            extension.extra_compile_args = MSVC_FLAGS if msvc else UNIX_FLAGS
        if not msvc:
            self.compiler.compile = in_parallel(self.compiler.compile)
        super().build_extensions()


def in_parallel(compile_files):
    """A compiler's method that compiles one file after another, for several at once."""

    def compile_in_parallel(sources, **options):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = pool.map(lambda source: compile_files([source], **options), sources)
            return [name for names in objects for name in names]

    return compile_in_parallel


class BuildPackage(build_py):
    """In a wheel the configs, which lie at the root of the source tree, are part of the package."""

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "sddpm", "configs")
            folder.mkdir(parents=True, exist_ok=True)
            for path in Path("configs").glob("*.yaml"):
                self.copy_file(str(path), str(folder / path.name))


setup(
    ext_modules=[
        Extension(
            "sddpm._native",
            sorted(glob(f"{SOURCES}/*.cpp")),
            depends=sorted(glob(f"{SOURCES}/*.h")),
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernel, "build_py": BuildPackage},
)
