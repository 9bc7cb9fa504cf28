"""Make the API reference from the docstrings: `python -W error docs/reference.py site`."""

import importlib
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pdoc

PARTS = (
    "data", "methods", "models", "pretrained", "training", "generation", "evaluation", "recipe", "runs", "sweep",
    "report", "errors",
)  # fmt: skip


def main(folder: str) -> None:
    names = ["jaxft", *(f"jaxft.{part}" for part in PARTS)]
    for module in map(importlib.import_module, names):
        for name in getattr(module, "__all__", ()):  # pdoc looks into the module, where some appear at first use
            setattr(module, name, getattr(module, name))
    # A named tuple's __init__ has lost the module in which its annotations mean something; they are shown as text.
    warnings.filterwarnings("ignore", message=r"Error parsing type annotation ForwardRef.*__init__")
    pdoc.pdoc(*names, output_directory=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
