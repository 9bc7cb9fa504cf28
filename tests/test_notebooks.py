"""A notebook's code runs; where it trains nothing, it prints today what it shows."""

import contextlib
import io
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "experiments/notebooks").glob("*.ipynb"))
EXACT = ("rouge_and_bleu",)  # the others take minutes each and were executed on 2026-11-22


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem in EXACT else pytest.mark.slow, id=path.stem) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path):
    names = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec("".join(cell["source"]), names)
            if path.stem in EXACT:
                shown = "".join(line for output in cell["outputs"] for line in output["text"])
                # sacrebleu's signature ends in its version.
                assert printed.getvalue().split("|version:")[0] == shown.split("|version:")[0]
