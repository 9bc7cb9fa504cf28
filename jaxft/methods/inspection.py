"""Look inside what was trained: what a soft prompt is near to, and how large and how wide LoRA's updates are.

near = nearest_tokens(model, trainable["embedding"], k=5)
draw_tokens(near, "tokens.png")
norms = update_norms(method.bind(trainable, frozen))
draw_norms(norms, "norms.png")
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxft.errors import UsageError, nearest
from jaxft.methods.arithmetic import factors
from jaxft.methods.method import Variables
from jaxft.methods.targets import find_kernels
from jaxft.methods.trees import places, spelled
from jaxft.models import Model

MEASURES = ("cosine", "euclid")
# What is drawn of an update: its title, the numbers on its scale, and where that begins.
PANELS = {
    "relative": ("norm of the update / of the kernel", "{x:.1%}", 0),
    "effective_rank": ("effective rank", "{x:.1f}", 1),
}
ROWS = 50  # soft tokens in a column of the picture


class Nearest(NamedTuple):
    """The nearest tokens of each soft token, nearest first: ids and values `[P, k]`, and their texts."""

    measure: str
    ids: np.ndarray
    values: np.ndarray
    tokens: list[list[str]]


class UpdateNorms(NamedTuple):
    """What LoRA adds to one kernel, a number for each layer that it updates (all `[n]`).

    The Frobenius norm, that norm in units of the kernel's, the spectral norm, and the effective rank: the exponential
    of the entropy of the normalised singular values (Roy & Vetterli 2007), 0 where there is no update.
    """

    layers: np.ndarray
    frobenius: np.ndarray
    relative: np.ndarray
    spectral: np.ndarray
    effective_rank: np.ndarray


def nearest_tokens(model: Model, embedding: jax.Array, k: int = 5, measure: str = "cosine") -> Nearest:
    """Return the tokens whose embeddings are nearest to each soft token of `embedding` `[P, D]`.

    Values are cosines for the measure "cosine" (as Lester et al. 2021 §7 have it) and distances for "euclid". Rows of
    the table beyond the tokenizer's vocabulary, which pad it, are left out. Raises `UsageError` for an unknown measure,
    another width than the model's, and a `k` outside the vocabulary.
    """
    if measure not in MEASURES:
        raise UsageError(f"measure: {measure!r}{nearest(measure, MEASURES)}")
    table = model.params["embedding"]
    table = table if model.tokenizer is None else table[: len(model.tokenizer)]
    if embedding.ndim != 2 or embedding.shape[1] != table.shape[1]:
        raise UsageError(f"embedding: {list(embedding.shape)} is not [P, {table.shape[1]}], as this model's tokens are")
    if not 1 <= k <= len(table):
        raise UsageError(f"k: {k} is not between 1 and the {len(table)} tokens there are")
    ids, values = (np.asarray(found) for found in _nearest(jnp.asarray(embedding), table, k, measure))
    return Nearest(measure, ids, values, [[_text(model.tokenizer, int(token)) for token in row] for row in ids])


def update_norms(variables: Variables) -> dict[str, UpdateNorms]:
    """Return the norms of the update of each kernel, `{"layers/attention/q": UpdateNorms}`.

    `variables` is what `bind` gives for LoRA or one of its family, the scale included (of DoRA, what is added before
    the columns are scaled). Everything comes from an R x R core: no update is multiplied out.
    Raises `UsageError` where no LoRA is bound.
    """
    pairs = places(variables.get("lora", {}))
    if not pairs:
        others = ", ".join(sorted(set(variables) - {"params"})) or "only params"
        raise UsageError(f"update_norms: there is no update of low rank here ({others})")
    found: dict[str, list[tuple]] = {}
    first: dict[str, int] = {}
    for place, kernel in sorted(find_kernels(variables["params"], ".").items(), key=lambda item: _segment(item[0])):
        name, size = spelled(place), kernel.shape[0]
        layers = np.arange(size) + first.get(name, 0)
        first[name] = first.get(name, 0) + size
        if place in pairs:
            found.setdefault(name, []).append((layers, *_norms(kernel, pairs[place]["a"], pairs[place]["b"])))
    return {name: UpdateNorms(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in found.items()}


def draw_norms(norms: Mapping[str, UpdateNorms], path: Path | str, title: str = "") -> None:
    """Write a picture of the updates, layers across and kernels down: their norms, and their effective ranks."""
    from matplotlib.figure import Figure

    stacks: dict[str, list[str]] = {}
    for name in norms:
        stacks.setdefault(name.rpartition("layers/")[0].strip("/"), []).append(name)
    stacks = dict(sorted(stacks.items(), reverse=True))  # the encoder first
    tables = {stack: {field: _table(norms, names, field) for field in PANELS} for stack, names in stacks.items()}
    heights = [len(names) for names in stacks.values()]
    longest = max(len(norm.layers) for norm in norms.values())
    size = (2 * (2.0 + max(2.2, 0.17 * longest)), 1.1 + 0.34 * sum(heights) + 0.5 * len(stacks))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(stacks), 2, squeeze=False, height_ratios=heights)
    for column, (field, (label, ticks, low)) in enumerate(PANELS.items()):
        high = max(float(np.nanmax(table[field])) for table in tables.values())
        for axes, (stack, names) in zip(grid[:, column], stacks.items(), strict=True):
            axes.set_facecolor("0.88")  # a layer that is not updated
            colours = {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1}
            image = axes.imshow(tables[stack][field], aspect="auto", interpolation="nearest", **colours)
            kernels = [name.rpartition("layers/")[2] for name in names]
            axes.set_yticks(range(len(names)), kernels if column == 0 else [""] * len(names))
            axes.tick_params(axis="y", length=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_title(f"{stack}: {label}" if stack else label, loc="left", fontsize=9)
        grid[-1, column].set_xlabel("layer")
        figure.colorbar(image, ax=list(grid[:, column]), format=ticks)
    figure.savefig(path, dpi=150)


def draw_tokens(near: Nearest, path: Path | str, title: str = "") -> None:
    """Write a picture of the nearest tokens, a row for each soft token and the nearest to the left."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, get_font

    count, k = near.ids.shape
    blocks = [range(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
    size = (len(blocks) * (0.5 + 1.3 * k) + 0.9, 0.9 + 0.27 * min(count, ROWS))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    low, high = float(near.values.min()), float(near.values.max())
    grid = figure.subplots(1, len(blocks), squeeze=False)[0]
    for axes, rows in zip(grid, blocks, strict=True):
        # The nearest are dark, whichever way the measure runs.
        colours = "Blues" if near.measure == "cosine" else "Blues_r"
        image = axes.imshow(near.values[rows.start : rows.stop], aspect="auto", cmap=colours, vmin=low, vmax=high)
        for row in rows:
            for rank in range(k):
                value, token = float(near.values[row, rank]), near.tokens[row][rank]
                label = _label(token, int(near.ids[row, rank]), glyphs)
                dark = np.mean(image.cmap(image.norm(value))[:3]) < 0.6
                style = {"color": "white" if dark else "black", "va": "center", "parse_math": False}
                axes.text(rank - 0.46, row - rows.start, label, fontsize=9, **style)
                axes.text(rank + 0.46, row - rows.start, f"{value:.2f}", fontsize=6.5, ha="right", **style)
        axes.set_ylim(ROWS - 0.5 if len(blocks) > 1 else len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [str(row) for row in rows], fontsize=8)
        axes.set_xticks(range(k), [f"{rank + 1}." for rank in range(k)], fontsize=8)
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
    grid[0].set_ylabel("soft token")
    figure.colorbar(image, ax=list(grid), label="cosine" if near.measure == "cosine" else "distance", aspect=40)
    figure.savefig(path, dpi=150)


def _segment(place):
    return tuple(key for key in place if isinstance(key, int))


@partial(jax.jit, static_argnums=(2, 3))
def _nearest(embedding, table, k, measure):
    soft, table = (jnp.asarray(rows, jnp.float32) for rows in (embedding, table))
    if measure == "cosine":
        values, ids = jax.lax.top_k(jnp.matmul(_unit(soft), _unit(table).T, precision="highest"), k)
        return ids, values
    products = jnp.matmul(soft, table.T, precision="highest")
    _, ids = jax.lax.top_k(2 * products - jnp.sum(table**2, axis=1)[None], k)
    # From the differences: squares that cancel would leave no small distance.
    return ids, jnp.linalg.norm(soft[:, None] - table[ids], axis=-1)


def _unit(rows):
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@jax.jit
def _norms(kernel, a, b):
    values = jnp.linalg.svd(factors(a, b).core, compute_uv=False)  # [n, R]
    total = values.sum(-1, keepdims=True)
    shares = values / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(jax.scipy.special.xlogy(shares, shares), axis=-1)
    frobenius = jnp.linalg.norm(values, axis=-1)
    whole = jnp.linalg.norm(kernel.astype(jnp.float32), axis=(-2, -1))
    return frobenius, frobenius / whole, values[:, 0], jnp.where(total[:, 0] > 0, jnp.exp(entropy), 0)


def _text(tokenizer: Any, token: int) -> str:
    if tokenizer is None:
        return f"#{token}"
    text, piece = tokenizer.decode([token]), str(tokenizer.convert_ids_to_tokens(token))
    if not text.strip() or "\ufffd" in text:  # white space, or a part of a letter's bytes
        return piece
    return f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text


def _label(token: str, number: int, glyphs: Mapping[int, int], width: int = 11) -> str:
    if not all(ord(letter) in glyphs for letter in token):
        return f"#{number}"
    token = token.replace(" ", "␣")
    return token if len(token) <= width else token[: width - 1] + "…"


def _table(norms, names, field):
    table = np.full((len(names), 1 + max(int(norms[name].layers.max()) for name in names)), np.nan)
    for row, name in zip(table, names, strict=True):
        row[norms[name].layers] = getattr(norms[name], field)
    return table
