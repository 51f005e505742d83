"""Builds the native neuron kernel. Everything else is in pyproject.toml.

The kernel is optional: without a C++ compiler the installation succeeds and neurons run as plain PyTorch.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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


class BuildKernel(build_ext):
    """Compiler flags by the kind of compiler."""

    def build_extensions(self):
        for extension in self.extensions:
            extension.extra_compile_args = MSVC_FLAGS if self.compiler.compiler_type == "msvc" else UNIX_FLAGS
        super().build_extensions()


setup(
    ext_modules=[
        Extension("sddpm.neurons.kernels._cpu", ["src/sddpm/neurons/kernels/neuron.cpp"], language="c++", optional=True)
    ],
    cmdclass={"build_ext": BuildKernel},
)
