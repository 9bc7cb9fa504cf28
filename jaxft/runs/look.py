"""What is inside an adapter on disk: as tables, and as pictures.

look("runs/x/adapter", "pictures")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxft.errors import Error, UsageError
from jaxft.methods.inspection import Nearest, UpdateNorms, draw_norms, draw_tokens, nearest_tokens, update_norms
from jaxft.runs.merging import load_on_base


def look(
    adapter: str | Path, out: str | Path, source: str | None = None, console: Console | None = None, k: int = 5
) -> list[Path]:
    """Print the tables of an adapter and write its pictures into `out`; return the pictures' paths.

    Of LoRA and its family: the norm and effective rank of every update. Of a soft prompt: the `k` nearest tokens, by
    cosine and by distance. Raises `UsageError` for an adapter that has neither, and as `load_on_base` does.
    """
    console = console or Console()
    model, variables = load_on_base(adapter, source)
    if not {"lora", "prompt"} & variables.keys():
        held = ", ".join(sorted(variables.keys() - {"params"})) or "changed weights"
        raise UsageError(f"{adapter}: there is nothing to look into ({held}); LoRA and soft prompts can be shown")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _look(model, variables, folder, console, k)
    except OSError as problem:
        raise Error(f"{folder}: the pictures could not be written ({problem.strerror or problem})") from problem


def _look(model, variables, folder, console, k):
    written = []
    if "lora" in variables:
        norms = update_norms(variables)
        show_norms(norms, console)
        draw_norms(norms, folder / "norms.png", "LoRA's updates")
        written.append(folder / "norms.png")
    prompt = variables.get("prompt", {})
    for side, tree in ({"": prompt} if "embedding" in prompt else prompt).items():
        for measure in ("cosine", "euclid"):
            near = nearest_tokens(model, tree["embedding"], k, measure)
            title = f"Tokens nearest to the {f'{side} ' if side else ''}prompt"
            show_tokens(near, console, title)
            path = folder / f"tokens_{f'{side}_' if side else ''}{measure}.png"
            draw_tokens(near, path, title)
            written.append(path)
    return written


def show_norms(norms: Mapping[str, UpdateNorms], console: Console) -> None:
    """Print the mean over layers, and the layer of the largest relative norm, of each kernel's update."""
    title = "updates, means over layers"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("kernel", overflow="fold")
    for heading in ("layers", "norm", "of kernel's", "spectral", "eff. rank", "most in layer"):
        table.add_column(heading, justify="right")
    for name, norm in norms.items():
        most = norm.relative.argmax()
        means = (f"{norm.frobenius.mean():.3g}", f"{norm.relative.mean():.2%}", f"{norm.spectral.mean():.3g}")
        largest = f"{norm.layers[most]} ({norm.relative[most]:.2%})"
        table.add_row(
            name.replace("layers/", ""), str(len(norm.layers)), *means, f"{norm.effective_rank.mean():.1f}", largest
        )
    console.print(table)


def show_tokens(near: Nearest, console: Console, title: str) -> None:
    """Print the nearest tokens, a row for each soft token."""
    how = "cosine" if near.measure == "cosine" else "distance"
    table = Table(title=f"{title}: {how}", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("", justify="right")
    for rank in range(near.ids.shape[1]):
        table.add_column(f"{rank + 1}.", overflow="fold")
    for row, (tokens, values) in enumerate(zip(near.tokens, near.values, strict=True)):
        cells = [Text(f"{token!r} {value:.2f}") for token, value in zip(tokens, values, strict=True)]
        table.add_row(str(row), *cells)
    console.print(table)
