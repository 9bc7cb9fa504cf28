"""What decoder-only families call their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jaxft.models import DecoderConfig
from jaxft.pretrained.families.family import Name, block

Names = Callable[[DecoderConfig], tuple[Name, ...]]


def llama_names(**changes: Name) -> Names:
    members = {
        **{
            f"{ours}/{leaf}": Name("", f"{hf}.{suffix}", f"{gguf}.{suffix}")
            for leaf, suffix in (("scale", "weight"), ("bias", "bias"))
            for ours, hf, gguf in (
                ("attention_norm", "input_layernorm", "attn_norm"),
                ("mlp_norm", "post_attention_layernorm", "ffn_norm"),
            )
        },
        **{
            f"attention/{ours}/{leaf}": Name("", f"self_attn.{hf}.{suffix}", f"{gguf}.{suffix}")
            for leaf, suffix in (("kernel", "weight"), ("bias", "bias"))
            for ours, hf, gguf in (
                ("q", "q_proj", "attn_q"), ("k", "k_proj", "attn_k"),
                ("v", "v_proj", "attn_v"), ("o", "o_proj", "attn_output"),
            )
        },
        "attention/q_norm/scale": Name("", "self_attn.q_norm.weight", "attn_q_norm.weight"),
        "attention/k_norm/scale": Name("", "self_attn.k_norm.weight", "attn_k_norm.weight"),
        **{
            f"mlp/{ours}/{leaf}": Name("", f"mlp.{ours}_proj.{suffix}", f"ffn_{ours}.{suffix}")
            for leaf, suffix in (("kernel", "weight"), ("bias", "bias"))
            for ours in ("gate", "up", "down")
        },
    }  # fmt: skip
    members |= changes
    table = (
        Name("embedding", "model.embed_tokens.weight", "token_embd.weight"),
        *block("layers", "model.layers", "blk", members),
        Name("norm/scale", "model.norm.weight", "output_norm.weight"),
        Name("norm/bias", "model.norm.bias", "output_norm.bias"),
        Name("head/kernel", "lm_head.weight", "output.weight"),
    )
    return lambda config: table


def turned(names: Names) -> Names:
    # llama.cpp rotates these families' neighbouring rows, and its files hold q and k so.
    heads = {"q": "num_heads", "k": "num_kv_heads"}

    def table(config):
        return tuple(
            name._replace(rotary=heads.get(name.ours.split("/")[2], "")) if "/attention/" in name.ours else name
            for name in names(config)
        )

    return table


def fused(names: Names, groups: Mapping[tuple[str, ...], tuple[str, str]]):
    """Return the names with those members' kernels and biases as parts, in order, of one tensor."""

    def table(config):
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        sizes = {"q": queries, "k": keys, "v": keys, "gate": config.mlp_width, "up": config.mlp_width}
        parts = {}
        for members, files in groups.items():
            ends = np.cumsum([sizes[member] for member in members]).tolist()
            for member, start, end in zip(members, [0, *ends], ends, strict=False):
                parts[member] = (start, end, ends[-1]), files
        made = []
        for name in names(config):
            member = name.ours.split("/")[-2] if name.ours.startswith("layers/") else ""
            if member in parts:
                part, files = parts[member]
                suffix = name.hf.rsplit(".", 1)[1]
                hf, gguf = (
                    f"{old.split('{}')[0]}{{}}.{file}.{suffix}"
                    for old, file in zip((name.hf, name.gguf), files, strict=True)
                )
                name = name._replace(hf=hf, gguf=gguf, part=part)
            made.append(name)
        return tuple(made)

    return table


def gpt2_names(config: DecoderConfig) -> tuple[Name, ...]:
    members = {}
    for leaf, suffix in (("kernel", "weight"), ("bias", "bias")):
        for ours, hf, gguf in (
            *((f"attention/{part}", "attn.c_attn", "attn_qkv") for part in "qkv"),
            ("attention/o", "attn.c_proj", "attn_output"),
            ("mlp/up", "mlp.c_fc", "ffn_up"),
            ("mlp/down", "mlp.c_proj", "ffn_down"),
        ):
            members[f"{ours}/{leaf}"] = Name("", f"{hf}.{suffix}", f"{gguf}.{suffix}", straight=True)
    for leaf, suffix in (("scale", "weight"), ("bias", "bias")):
        members[f"attention_norm/{leaf}"] = Name("", f"ln_1.{suffix}", f"attn_norm.{suffix}")
        members[f"mlp_norm/{leaf}"] = Name("", f"ln_2.{suffix}", f"ffn_norm.{suffix}")
    return (
        Name("embedding", "transformer.wte.weight", "token_embd.weight"),
        Name("positions", "transformer.wpe.weight", "position_embd.weight"),
        *block("layers", "transformer.h", "blk", members),
        Name("norm/scale", "transformer.ln_f.weight", "output_norm.weight"),
        Name("norm/bias", "transformer.ln_f.bias", "output_norm.bias"),
        Name("head/kernel", "lm_head.weight", "output.weight"),
    )


LLAMA = llama_names()
GEMMA = llama_names(
    **{
        "attention_post_norm/scale": Name("", "post_attention_layernorm.weight", "post_attention_norm.weight"),
        "mlp_norm/scale": Name("", "pre_feedforward_layernorm.weight", "ffn_norm.weight"),
        "mlp_post_norm/scale": Name("", "post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
    }
)
STARCODER = llama_names(
    **{
        f"mlp/{ours}/{leaf}": Name("", f"mlp.{hf}.{suffix}", f"ffn_{ours}.{suffix}")
        for leaf, suffix in (("kernel", "weight"), ("bias", "bias"))
        for ours, hf in (("up", "c_fc"), ("down", "c_proj"))
    }
)
