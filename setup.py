"""The part in C, which is optional: without a compiler everything works, and forwarding costs more (docs/compiled.md).

Everything else about the package stands in ``pyproject.toml``. ``HYPERDRIVE_COMPILED`` in the environment of the build: ``0`` does not
try, ``1`` fails where it cannot be compiled.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).parent))
from hyperdrive.proxy import mirrored

WANTED = os.environ.get("HYPERDRIVE_COMPILED", "")

LANE = Extension(
    "hyperdrive.proxy._lane",
    ["hyperdrive/proxy/_lane.c"],
    depends=[f"hyperdrive/{name}" for name in mirrored.FILES if name.endswith(".h")],
    define_macros=[("HYPERDRIVE_SOURCES", f'"{mirrored.digest()}"')],
    extra_compile_args=["-O2"],
    optional=WANTED != "1",
)

setup(ext_modules=[] if WANTED == "0" else [LANE])
