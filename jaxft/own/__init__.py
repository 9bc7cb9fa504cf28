"""Small T5s of our own: `jaxft:t5-tiny` comes with the package, `jaxft:t5-mini` and `jaxft:t5-small` can be made.

    model = jaxft.load("jaxft:t5-tiny")     # no network

All are T5 v1.1, share one tokenizer and were pretrained by span corruption and instructions at once (see the model card
in `t5-tiny/README.md`). `experiments/pretraining/own_t5.py --size mini` writes the larger ones under
`$JAXFT_RUNS/own` (default: `runs/own`), where they are looked for.
"""

from __future__ import annotations

import os
from pathlib import Path

from jaxft.errors import UsageError, nearest

SIZES = ("tiny", "mini", "small")


def find(name: str) -> Path:
    """Return the model directory of `name` ("t5-tiny"); UsageError for an unknown name and for one not made yet."""
    known = [f"t5-{size}" for size in SIZES]
    if name not in known:
        raise UsageError(f"jaxft:{name}: jaxft has no model of this name{nearest(name, known)}")
    shipped = Path(__file__).parent / name
    made = Path(os.environ.get("JAXFT_RUNS") or "runs").expanduser() / "own" / name / "model"
    for folder in (shipped, made):
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(
        f"jaxft:{name} does not come with the package and is not at {made}: make it with "
        f"`python experiments/pretraining/own_t5.py --size {name.removeprefix('t5-')}`, or take jaxft:t5-tiny"
    )
