"""Runs: a recipe, carried out in a folder that says everything about it."""

from jaxft.runs.parts import Parts, load_model, make_parts, read_rows
from jaxft.runs.run import run
from jaxft.runs.sizes import Sizes, sizes

__all__ = ["Parts", "Sizes", "load_model", "make_parts", "read_rows", "run", "sizes"]
