"""Decoder-only families: Llama and its relatives, Gemma, GPT-2. Each is a record of what it calls things.

What differs is data: the fields' names (`hf`, `gguf`), the fields that the family fixes, and the tensors' names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxft.errors import UsageError
from jaxft.models import DecoderConfig
from jaxft.models.decoder import FULL, LOCAL, PLAIN
from jaxft.pretrained.families import windows
from jaxft.pretrained.families.decoder_names import GEMMA, LLAMA, STARCODER, Names, fused, gpt2_names, turned
from jaxft.pretrained.families.family import Family, Fields, Shapes, activation, refuse_unless, token_ids
from jaxft.pretrained.families.positions import (
    decimal,
    layers_from_hf,
    layers_to_hf,
    rope_from_hf,
    rope_to_hf,
    scaling_from_gguf,
    scaling_to_gguf,
)
from jaxft.pretrained.families.windows import Kinds, every

LLAMA_HF = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_width": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "activation": "hidden_act",
    "tie_embeddings": "tie_word_embeddings",
    "max_length": "max_position_embeddings",
}
GEMMA_HF = {
    **{**LLAMA_HF, "activation": "hidden_activation"},
    "attention_scalar": "query_pre_attn_scalar",
    "attention_cap": "attn_logit_softcapping",
    "logit_cap": "final_logit_softcapping",
}
GPT2_HF = {
    "vocab_size": "vocab_size",
    "num_layers": "n_layer",
    "width": "n_embd",
    "num_heads": "n_head",
    "mlp_width": "n_inner",
    "norm_eps": "layer_norm_epsilon",
    "activation": "activation_function",
    "tie_embeddings": "tie_word_embeddings",
    "max_length": "n_positions",
}
# The sizes that a config.json must state: what it leaves out otherwise has its family's default.
STATED = ("vocab_size", "num_layers", "width", "num_heads", "mlp_width")

# Our fields and what GGUF metadata calls them, behind the architecture's name.
LLAMA_GGUF = {
    "num_layers": "block_count",
    "width": "embedding_length",
    "mlp_width": "feed_forward_length",
    "max_length": "context_length",
    "num_heads": "attention.head_count",
    "num_kv_heads": "attention.head_count_kv",
    "norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "head_dim": "attention.key_length",
    "window": "attention.sliding_window",
    "attention_cap": "attn_logit_softcapping",
    "logit_cap": "final_logit_softcapping",
}
GPT2_GGUF = {
    **{key: LLAMA_GGUF[key] for key in ("num_layers", "width", "mlp_width", "max_length", "num_heads")},
    "norm_eps": "attention.layer_norm_epsilon",
}


def family(
    model_type: str,
    architecture: str,
    gguf: str,
    names: Names,
    *,
    hf: Mapping[str, str] = LLAMA_HF,
    switches: Mapping[str, str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    neutral: Mapping[str, tuple] | None = None,
    gguf_fields: Mapping[str, str] = LLAMA_GGUF,
    gguf_kinds: Kinds = lambda layers: (),
    gguf_fixed: Mapping[str, Any] | None = None,
    gguf_default: Mapping[str, Any] | None = None,
    gguf_windows: bool = False,
    gguf_partial: bool = False,
    bare: str = "model.",
) -> Family:
    """Return a decoder-only family.

    `switches` are our booleans and what config.json calls them, `fixed` the fields that every model of the family has
    so, `neutral` the settings that must have one of some values. `gguf_kinds` gives the kinds of layers, and
    `gguf_fixed` the fields, that GGUF files of the family leave unsaid; `gguf_default` what a field is where they do.
    `gguf_windows` and `gguf_partial` say whether llama.cpp has, for this family, windows and heads rotated in part.
    """
    switches, fixed = dict(switches or {}), dict(fixed or {})
    neutral = {"quantization_config": (None,), "rope_interleaved": (False, None), **(neutral or {})}
    unsaid = {"activation": "silu", **(gguf_fixed or {})}

    def from_hf(fields: Fields, stated: Fields, where: str) -> DecoderConfig:
        for name in STATED:
            if name in hf and hf[name] not in ("n_inner",):
                stated[hf[name]]  # KeyError
        refuse_unless(fields, neutral, where)
        made = {ours: fields[theirs] for ours, theirs in {**hf, **switches}.items() if fields.get(theirs) is not None}
        made["activation"] = activation(made["activation"], where)
        made.setdefault("mlp_width", 4 * made["width"])  # GPT-2's
        made.setdefault("num_kv_heads", made["num_heads"])
        made.setdefault("head_dim", made["width"] // made["num_heads"])
        ends = token_ids(fields.get("eos_token_id"))
        pad = fields.get("pad_token_id")
        return DecoderConfig(
            family=model_type,
            bos_token_id=fields.get("bos_token_id"),
            eos_token_ids=ends,
            pad_token_id=pad if pad is not None else next(iter(ends), 0),
            **layers_from_hf(fields, made["num_layers"], where),
            **({} if "rope_theta" in fixed else rope_from_hf(fields, where)),
            **(made | fixed),
        )

    def to_hf(config: DecoderConfig) -> dict[str, Any]:
        made = {theirs: getattr(config, ours) for ours, theirs in {**hf, **switches}.items()}
        theirs = {"gelu_new": "gelu_pytorch_tanh"} if "n_embd" not in made else {}
        made[hf["activation"]] = theirs.get(config.activation, config.activation)
        if config.rope_theta is not None:
            made |= rope_to_hf(config)
        return made | layers_to_hf(config)

    def from_gguf(metadata: Fields, shapes: Shapes, where: str) -> DecoderConfig:
        said = {ours: f"{gguf}.{theirs}" for ours, theirs in gguf_fields.items()}
        made = dict(gguf_default or {}) | {ours: metadata[key] for ours, key in said.items() if key in metadata}
        for name in ("num_layers", "width", "num_heads", "mlp_width", "norm_eps"):
            metadata[f"{gguf}.{gguf_fields[name]}"]  # KeyError
        made.setdefault("num_kv_heads", made["num_heads"])
        made.setdefault("head_dim", made["width"] // made["num_heads"])
        made["window"] = made.get("window") or None
        pattern = metadata.get(f"{gguf}.{windows.PATTERN}")
        rotated = metadata.get(f"{gguf}.rope.dimension_count", made["head_dim"])
        ends = [metadata[key] for key in _ENDS if key in metadata]
        made |= {name: decimal(made[name]) for name in ("norm_eps", "rope_theta", "local_theta") if name in made}
        made |= {
            "vocab_size": shapes["token_embd.weight"][0],
            "rotary_share": rotated / made["head_dim"],
            "layer_kinds": windows.kinds_from_gguf(pattern, made["num_layers"], made["window"], gguf_kinds),
            "rope_scaling": scaling_from_gguf(metadata, gguf, where),
            "tie_embeddings": "output.weight" not in shapes,
            "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_ids": tuple(dict.fromkeys(ends)),
            "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id", next(iter(ends), 0)),
        }
        made |= {ours: f"blk.0.{tensor}.bias" in shapes for ours, tensor in _GGUF_BIASES.items() if ours in switches}
        made |= unsaid | fixed
        if "attention_scalar" in hf:
            made["attention_scalar"] = _gemma_scalar(made["num_layers"], made)
        return DecoderConfig(family=model_type, **made)

    def to_gguf(config: DecoderConfig) -> dict[str, Any]:
        made = {theirs: getattr(config, ours) for ours, theirs in gguf_fields.items()}
        if config.rope_theta is not None:
            made["attention.value_length"] = config.head_dim
            made["rope.dimension_count"] = int(config.head_dim * config.rotary_share)
        made |= scaling_to_gguf(config, gguf)
        expected = unsaid | ({} if gguf_partial else {"rotary_share": 1.0})
        if gguf_windows:
            made |= windows.to_gguf(config, gguf_kinds)
        else:
            windows.refuse(config)
            expected["layer_kinds"] = windows.kinds_from_gguf(None, config.num_layers, config.window, gguf_kinds)
        _refuse_unsaid(config, expected, "attention_scalar" in hf)
        return {name: value for name, value in made.items() if value is not None}

    copies = {"lm_head.weight": _embedding(names), "output.weight": "token_embd.weight"}
    return Family(model_type, architecture, gguf, from_hf, to_hf, from_gguf, to_gguf, names, copies, bare)


_ENDS = tuple(f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot", "eom"))
_GGUF_BIASES = {"qkv_bias": "attn_q", "o_bias": "attn_output", "mlp_bias": "ffn_up"}


def _embedding(names) -> str:
    one = DecoderConfig("", 1, 1, 1, 1, 1, 1, 1)
    return next(name.hf for name in names(one) if name.ours == "embedding")


def _gemma_scalar(layers: int, fields: Mapping[str, Any]) -> float:
    # Unsaid in the file: the 27B models (46 and 62 layers) divide the width by the heads, the others take head_dim.
    return fields["width"] // fields["num_heads"] if layers in (46, 62) else fields["head_dim"]


def _refuse_unsaid(config: DecoderConfig, unsaid: Mapping[str, Any], gemma: bool) -> None:
    expected = dict(unsaid)
    if gemma:
        expected["attention_scalar"] = _gemma_scalar(config.num_layers, dataclasses.asdict(config))
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise UsageError(f"GGUF's {config.family} has {name} = {value!r}, and this model {getattr(config, name)!r}")


_BIASES = {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
_GEMMA = {"norm_offset": 1.0, "post_norms": True, "scaled_embedding": True}
_NEUTRAL_GEMMA = {"use_bidirectional_attention": (False, None)}


FAMILIES = (
    family("llama", "LlamaForCausalLM", "llama", turned(LLAMA), switches={**_BIASES, "mlp_bias": "mlp_bias"}),
    family("mistral", "MistralForCausalLM", "llama", turned(LLAMA)),
    family("qwen2", "Qwen2ForCausalLM", "qwen2", LLAMA, fixed={"qkv_bias": True}),
    family("qwen3", "Qwen3ForCausalLM", "qwen3", LLAMA, switches=_BIASES, fixed={"head_norms": True}),
    family(
        "smollm3",
        "SmolLM3ForCausalLM",
        "smollm3",
        turned(LLAMA),
        switches={**_BIASES, "mlp_bias": "mlp_bias"},
        gguf_kinds=every(4, PLAIN, FULL),
    ),
    family(
        "phi3",
        "Phi3ForCausalLM",
        "phi3",
        fused(
            LLAMA,
            {("q", "k", "v"): ("self_attn.qkv_proj", "attn_qkv"), ("gate", "up"): ("mlp.gate_up_proj", "ffn_up")},
        ),
        gguf_windows=True,
        gguf_partial=True,
    ),
    family(
        "gemma2",
        "Gemma2ForCausalLM",
        "gemma2",
        GEMMA,
        hf=GEMMA_HF,
        switches=_BIASES,
        fixed=_GEMMA,
        neutral=_NEUTRAL_GEMMA,
        gguf_kinds=every(2, FULL, LOCAL),
        gguf_fixed={"activation": "gelu_new"},
        gguf_default={"window": 4096},
        gguf_windows=True,
    ),
    family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        "gemma3",
        GEMMA,
        hf=GEMMA_HF,
        switches=_BIASES,
        fixed={**_GEMMA, "head_norms": True},
        neutral=_NEUTRAL_GEMMA,
        gguf_fields={**LLAMA_GGUF, "local_theta": "rope.freq_base_swa"},
        gguf_kinds=every(6, FULL, LOCAL),
        gguf_fixed={"activation": "gelu_new"},
        gguf_default={"local_theta": 10000.0},
        gguf_windows=True,
    ),
    family(
        "starcoder2",
        "Starcoder2ForCausalLM",
        "starcoder2",
        STARCODER,
        hf={**LLAMA_HF, "norm_eps": "norm_epsilon"},
        switches=dict.fromkeys(("qkv_bias", "o_bias", "mlp_bias"), "use_bias"),
        fixed={"norm": "layer", "gated": False},
        gguf_fields={**LLAMA_GGUF, "norm_eps": "attention.layer_norm_epsilon"},
        gguf_fixed={"activation": "gelu_new"},
    ),
    family(
        "gpt2",
        "GPT2LMHeadModel",
        "gpt2",
        fused(gpt2_names, {("q", "k", "v"): ("attn.c_attn", "attn_qkv")}),
        hf=GPT2_HF,
        fixed={
            **{"norm": "layer", "rope_theta": None, "gated": False},
            **dict.fromkeys(("qkv_bias", "o_bias", "mlp_bias"), True),
        },
        neutral={
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        gguf_fields=GPT2_GGUF,
        gguf_fixed={"activation": "gelu_new"},
        bare="transformer.",
    ),
)
