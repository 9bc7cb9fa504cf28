"""Several measurements, each in a process of its own: what one leaves in memory is not the next one's peak."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def each_in_its_own_process(
    script: str, known: Iterable[str], measure: Callable[[str], dict], table: Callable, results: Path, names: list[str]
) -> None:
    """Append what `measure` says of one name to `results`; for several names, or none for all, run `script` on each.

    A run of all begins `results` anew. Those of several end with the table of what is there.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    if len(names) == 1:
        line = json.dumps(measure(names[0]))
        with results.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)
        return
    if not names:
        results.unlink(missing_ok=True)
    for name in names or known:
        subprocess.run([sys.executable, script, name], check=True)
    print(table([json.loads(line) for line in results.read_text().splitlines()]))
