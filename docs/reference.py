"""Make the API reference from the docstrings: `python -W error docs/reference.py site`."""

import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pdoc

import jaxft

PARTS = (
    "data", "methods", "models", "pretrained", "training", "generation", "evaluation", "recipe", "runs", "sweep",
    "report", "errors",
)  # fmt: skip


def main(folder: str) -> None:
    for name in jaxft.__all__:  # pdoc looks into the module, where names appear at their first use
        setattr(jaxft, name, getattr(jaxft, name))
    # A named tuple's __init__ has lost the module in which its annotations mean something; they are shown as text.
    warnings.filterwarnings("ignore", message=r"Error parsing type annotation ForwardRef.*__init__")
    folders = [f"jaxft.{part}" for part in PARTS]
    hidden = [f"!jaxft.{part}.__main__" for part in PARTS]
    pdoc.pdoc("jaxft", *folders, *hidden, output_directory=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
