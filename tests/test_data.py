"""The data package stands apart: it imports nothing of jaxft but itself and the errors, no arrays but numpy's."""

import ast
from pathlib import Path

import jaxft.data

FILES = sorted(Path(jaxft.data.__file__).parent.rglob("*.py"))
HEAVY = {"jax", "flax", "torch", "transformers", "datasets", "pyarrow", "pandas", "rich"}


def imported(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_it_imports_only_itself_and_the_errors():
    for file in FILES:
        names = set(imported(ast.walk(ast.parse(file.read_text()))))
        ours = {name for name in names if name.split(".")[0] == "jaxft"}
        assert all(name == "jaxft.errors" or name.startswith("jaxft.data.") for name in ours), file
        assert not {name.split(".")[0] for name in names} & {"jax", "flax", "torch"}, file


def test_heavy_packages_are_imported_where_they_are_used():
    for file in FILES:
        names = {name.split(".")[0] for name in imported(ast.parse(file.read_text()).body)}
        assert not names & HEAVY, file


def test_the_public_names_exist_and_are_documented():
    assert all(getattr(jaxft.data, name).__doc__ for name in jaxft.data.__all__ if name not in ("Batch", "Row"))
