"""What each leaf of a params tree is called in Hugging Face's files and in GGUF files, and how it is laid out there.

A family's table (`families/`) names the tensors; here a tree's leaves, stacked over layers, meet their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxft.models.quantised import is_quantised
from jaxft.pretrained.families import BY_TYPE, Name


class Leaf(NamedTuple):
    """A leaf of a params tree: its path and shape, its name, and the layers stacked in it (None: not stacked)."""

    path: tuple
    shape: tuple[int, ...]
    name: Name
    layers: range | None

    @property
    def one(self) -> tuple[int, ...]:
        """The shape of one layer's tensor."""
        return self.shape if self.layers is None else self.shape[1:]

    def files(self, convention: str) -> list[str]:
        """Return the tensors of this leaf as the convention, "hf" or "gguf", calls them, in layer order."""
        pattern = getattr(self.name, convention)
        return [pattern] if self.layers is None else [pattern.format(layer) for layer in self.layers]


# Tensors that say nothing: computed from the configuration, or never read by Hugging Face either.
IDLE = (
    *(".rotary_emb.inv_freq", "rope_freqs.weight", ".attn.bias", ".attn.masked_bias"),
    *("EncDecAttention.relative_attention_bias.weight", ".cross_attn_rel_b.weight"),
)


def plain_path(keys: Any) -> tuple:
    """Return JAX's key path as the plain keys and indices in it."""
    return tuple(getattr(key, "key", getattr(key, "idx", None)) for key in keys)


def leaves(config: Any, tree: Any) -> Iterator[Leaf]:
    """Yield a `Leaf` for every leaf of `tree`, a params tree of `config` (arrays or shapes, quantised kernels too)."""
    rows = {row.ours: row for row in BY_TYPE[config.family].names(config)}
    before: dict[tuple, int] = {}
    for keys, array in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_quantised)[0]:
        path = plain_path(keys)
        if "layers" not in path:
            yield Leaf(path, tuple(array.shape), rows["/".join(path)], None)
            continue
        at = path.index("layers") + 1  # the place of the segment's number
        member = (*path[:at], *path[at + 1 :])
        first = before.get(member, 0)
        before[member] = first + array.shape[0]
        yield Leaf(path, tuple(array.shape), rows["/".join(member)], range(first, before[member]))


def file_shape(leaf: Leaf, convention: str) -> tuple[int, ...]:
    """Return the shape of the leaf's tensor (of one layer) in a file; of one that several share, the whole."""
    shape = leaf.one[::-1] if leaf.name.transposed(convention) else leaf.one
    if leaf.name.part is None:
        return shape
    axis = out_axis(leaf, convention)
    return tuple(leaf.name.part[2] if i == axis % len(shape) else size for i, size in enumerate(shape))


def out_axis(leaf: Leaf, convention: str) -> int:
    """Return the axis of the outputs in a file."""
    return 0 if leaf.name.transposed(convention) else -1


def from_file(array: np.ndarray, leaf: Leaf, convention: str, config: Any) -> np.ndarray:
    """Return the leaf's share of a file's tensor as we hold it, but for the transposition."""
    if leaf.name.part is not None:
        start, stop, _ = leaf.name.part
        array = array[start:stop] if out_axis(leaf, convention) == 0 else array[..., start:stop]
    if convention == "gguf":
        if leaf.name.rotary:
            array = _turned(array, getattr(config, leaf.name.rotary), 2)
        if _offset(leaf, config):
            array = array - _offset(leaf, config)
    return array


def to_file(array: np.ndarray, leaf: Leaf, convention: str, config: Any) -> np.ndarray:
    """Return one layer of a leaf, or an unstacked one, as a file holds it (its share, where several share one)."""
    array = array.T if leaf.name.transposed(convention) else array
    if convention == "gguf":
        if leaf.name.rotary:
            heads = getattr(config, leaf.name.rotary)
            array = _turned(array, heads, array.shape[0] // heads // 2)
        if _offset(leaf, config):
            array = array + np.asarray(_offset(leaf, config), array.dtype)
    return np.ascontiguousarray(array)


def _turned(array, heads, inner):
    # ggml rotates neighbouring rows of a head, Hugging Face a row of the first half with its row of the second.
    rows = array.shape[0] // heads
    return array.reshape(heads, rows // inner, inner, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _offset(leaf, config):
    # Gemma's scales are held less one; GGUF's are whole.
    return getattr(config, "norm_offset", 0.0) if leaf.name.ours.endswith("norm/scale") else 0.0
