"""What each tensor is called: in our trees, in Hugging Face's files and in GGUF files.

One table a family, read in both directions: to load, to save, and (a module is a name without `.weight`) for PEFT
files. A new family is one more table. `{}` stands for the layer; a kernel is `[in, out]` here and `[out, in]` there.

    Name("layers/attention/q/kernel", "model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight", "num_heads")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax


class Name(NamedTuple):
    """One tensor, or one tensor a layer, in the three conventions.

    GGUF keeps the rows of Llama's rotary projections in another order: `rotary` is the field that counts their heads.
    `otherwise` is what Hugging Face reads where a file lacks the tensor.
    """

    ours: str
    hf: str
    gguf: str
    rotary: str = ""
    otherwise: str = ""

    @property
    def transposed(self) -> bool:
        return self.ours.endswith("/kernel")


class Leaf(NamedTuple):
    """A leaf of a params tree: its path and shape, its name, and the layers stacked in it (None: not stacked)."""

    path: tuple
    shape: tuple[int, ...]
    name: Name
    layers: range | None

    def files(self, convention: str) -> list[str]:
        """Return the tensors of this leaf as the convention, "hf" or "gguf", calls them, in layer order."""
        pattern = getattr(self.name, convention)
        return [pattern] if self.layers is None else [pattern.format(layer) for layer in self.layers]


def _block(ours: str, hf: str, gguf: str, members: dict[str, tuple[str, ...]]) -> tuple[Name, ...]:
    return tuple(
        Name(f"{ours}/{member}", f"{hf}.{{}}.{there}", f"{gguf}.{{}}.{packed}", *rest)
        for member, (there, packed, *rest) in members.items()
    )


LLAMA = (
    Name("embedding", "model.embed_tokens.weight", "token_embd.weight"),
    *_block(
        "layers",
        "model.layers",
        "blk",
        {
            "attention_norm/scale": ("input_layernorm.weight", "attn_norm.weight"),
            "attention/q/kernel": ("self_attn.q_proj.weight", "attn_q.weight", "num_heads"),
            "attention/q/bias": ("self_attn.q_proj.bias", "attn_q.bias", "num_heads"),
            "attention/k/kernel": ("self_attn.k_proj.weight", "attn_k.weight", "num_kv_heads"),
            "attention/k/bias": ("self_attn.k_proj.bias", "attn_k.bias", "num_kv_heads"),
            "attention/v/kernel": ("self_attn.v_proj.weight", "attn_v.weight"),
            "attention/v/bias": ("self_attn.v_proj.bias", "attn_v.bias"),
            "attention/o/kernel": ("self_attn.o_proj.weight", "attn_output.weight"),
            "mlp_norm/scale": ("post_attention_layernorm.weight", "ffn_norm.weight"),
            "mlp/gate/kernel": ("mlp.gate_proj.weight", "ffn_gate.weight"),
            "mlp/up/kernel": ("mlp.up_proj.weight", "ffn_up.weight"),
            "mlp/down/kernel": ("mlp.down_proj.weight", "ffn_down.weight"),
        },
    ),
    Name("norm/scale", "model.norm.weight", "output_norm.weight"),
    Name("head/kernel", "lm_head.weight", "output.weight"),
)


def _t5_stack(ours: str, gguf: str, cross: bool, gated: bool) -> tuple[Name, ...]:
    def attention(member: str, place: str, packed: str) -> dict[str, tuple[str, ...]]:
        return {f"{member}/{x}/kernel": (f"{place}.{x}.weight", f"{packed}_{x}.weight") for x in "qkvo"}

    members: dict[str, tuple[str, ...]] = {
        "attention_norm/scale": ("layer.0.layer_norm.weight", "attn_norm.weight"),
        **attention("attention", "layer.0.SelfAttention", "attn"),
    }
    if cross:
        members["cross_attention_norm/scale"] = ("layer.1.layer_norm.weight", "cross_attn_norm.weight")
        members |= attention("cross_attention", "layer.1.EncDecAttention", "cross_attn")
    mlp = "layer.2" if cross else "layer.1"
    members["mlp_norm/scale"] = (f"{mlp}.layer_norm.weight", "ffn_norm.weight")
    if gated:
        members["mlp/gate/kernel"] = (f"{mlp}.DenseReluDense.wi_0.weight", "ffn_gate.weight")
    members["mlp/up/kernel"] = (f"{mlp}.DenseReluDense.{'wi_1' if gated else 'wi'}.weight", "ffn_up.weight")
    members["mlp/down/kernel"] = (f"{mlp}.DenseReluDense.wo.weight", "ffn_down.weight")
    bias = f"{ours}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return (
        *_block(f"{ours}/layers", f"{ours}.block", f"{gguf}.blk", members),
        Name(f"{ours}/norm/scale", f"{ours}.final_layer_norm.weight", f"{gguf}.output_norm.weight"),
        Name(f"{ours}/relative_bias", bias, f"{gguf}.blk.0.attn_rel_b.weight"),
    )


def _t5(gated: bool) -> tuple[Name, ...]:
    return (
        Name("embedding", "shared.weight", "token_embd.weight"),
        *_t5_stack("encoder", "enc", cross=False, gated=gated),
        *_t5_stack("decoder", "dec", cross=True, gated=gated),
        Name("head/kernel", "lm_head.weight", "output.weight", otherwise="shared.weight"),
    )


TABLES = {"llama": lambda config: LLAMA, "t5": lambda config: _t5(config.gated)}

# Tensors that some files hold a second time: their original. Two that differ contradict the configuration.
COPIES = {
    "llama": {"lm_head.weight": "model.embed_tokens.weight", "output.weight": "token_embd.weight"},
    "t5": {
        "lm_head.weight": "shared.weight",
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
}

# Tensors that say nothing: computed from the configuration, or never read by Hugging Face either.
IDLE = (".rotary_emb.inv_freq", "EncDecAttention.relative_attention_bias.weight", ".cross_attn_rel_b.weight")


def plain_path(keys: Any) -> tuple:
    """Return JAX's key path as the plain keys and indices in it."""
    return tuple(getattr(key, "key", getattr(key, "idx", None)) for key in keys)


def leaves(config: Any, tree: Any) -> Iterator[Leaf]:
    """Yield a `Leaf` for every leaf of `tree`, a params tree of `config` (arrays, or only their shapes)."""
    rows = {row.ours: row for row in TABLES[config.family](config)}
    before: dict[tuple, int] = {}
    for keys, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = plain_path(keys)
        if "layers" not in path:
            yield Leaf(path, tuple(array.shape), rows["/".join(path)], None)
            continue
        at = path.index("layers") + 1  # the place of the segment's number
        member = (*path[:at], *path[at + 1 :])
        first = before.get(member, 0)
        before[member] = first + array.shape[0]
        yield Leaf(path, tuple(array.shape), rows["/".join(member)], range(first, before[member]))
