"""Decoder-only families: Llama and its relatives, Gemma, GPT-2. Each is a record of what it calls things.

What differs is data: the fields' names (`hf`, `gguf`), the fields that the family fixes, and the tensors' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any

from jaxft.errors import UsageError
from jaxft.models import DecoderConfig
from jaxft.models.decoder import FULL, LOCAL, PLAIN
from jaxft.pretrained.families import windows
from jaxft.pretrained.families.decoder_names import GEMMA, LLAMA, STARCODER, Names, fused, gpt2_names, turned
from jaxft.pretrained.families.family import Family, Fields, Name, Shapes, activation, refuse_unless, token_ids
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
# Settings that are refused with any other value than these.
NEUTRAL: dict[str, tuple] = {"quantization_config": (None,), "rope_interleaved": (False, None)}

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
_ENDS = tuple(f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot", "eom"))
_GGUF_BIASES = {"qkv_bias": "attn_q", "o_bias": "attn_output", "mlp_bias": "ffn_up"}


@dataclass(frozen=True)
class DecoderFamily(Family):
    """A decoder-only family.

    `hf` and `gguf_fields` are our fields and what the files call them, `switches` our booleans likewise in config.json,
    `fixed` the fields that every model of the family has so, `neutral` the settings that must have one of some values.
    `gguf_kinds` gives the kinds of layers, and `gguf_fixed` the fields, that GGUF files of the family leave unsaid;
    `gguf_default` what a field is where they do. `gguf_windows` and `gguf_partial` say whether llama.cpp has, for this
    family, windows and heads rotated in part.
    """

    tensors: Names
    _: KW_ONLY
    hf: Mapping[str, str] = field(default_factory=lambda: LLAMA_HF)
    switches: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    neutral: Mapping[str, tuple] = field(default_factory=dict)
    gguf_fields: Mapping[str, str] = field(default_factory=lambda: LLAMA_GGUF)
    gguf_kinds: Kinds = lambda layers: ()
    gguf_fixed: Mapping[str, Any] = field(default_factory=dict)
    gguf_default: Mapping[str, Any] = field(default_factory=dict)
    gguf_windows: bool = False
    gguf_partial: bool = False
    bare: str = "model."

    def from_hf(self, fields: Fields, stated: Fields, where: str) -> DecoderConfig:
        for name in STATED:
            if name in self.hf and self.hf[name] not in ("n_inner",):
                stated[self.hf[name]]  # KeyError
        refuse_unless(fields, {**NEUTRAL, **self.neutral}, where)
        made = {ours: fields[theirs] for ours, theirs in self._hf_fields.items() if fields.get(theirs) is not None}
        made["activation"] = activation(made["activation"], where)
        made.setdefault("mlp_width", 4 * made["width"])  # GPT-2's
        made.setdefault("num_kv_heads", made["num_heads"])
        made.setdefault("head_dim", made["width"] // made["num_heads"])
        ends = token_ids(fields.get("eos_token_id"))
        pad = fields.get("pad_token_id")
        return DecoderConfig(
            family=self.model_type,
            bos_token_id=fields.get("bos_token_id"),
            eos_token_ids=ends,
            pad_token_id=pad if pad is not None else next(iter(ends), 0),
            **layers_from_hf(fields, made["num_layers"], where),
            **({} if "rope_theta" in self.fixed else rope_from_hf(fields, where)),
            **{**made, **self.fixed},
        )

    def to_hf(self, config: DecoderConfig) -> dict[str, Any]:
        made = {theirs: getattr(config, ours) for ours, theirs in self._hf_fields.items()}
        theirs = {"gelu_new": "gelu_pytorch_tanh"} if "n_embd" not in made else {}
        made[self.hf["activation"]] = theirs.get(config.activation, config.activation)
        if config.rope_theta is not None:
            made |= rope_to_hf(config)
        return made | layers_to_hf(config)

    def from_gguf(self, metadata: Fields, shapes: Shapes, where: str) -> DecoderConfig:
        said = {ours: f"{self.gguf}.{theirs}" for ours, theirs in self.gguf_fields.items()}
        made = dict(self.gguf_default) | {ours: metadata[key] for ours, key in said.items() if key in metadata}
        for name in ("num_layers", "width", "num_heads", "mlp_width", "norm_eps"):
            metadata[f"{self.gguf}.{self.gguf_fields[name]}"]  # KeyError
        made.setdefault("num_kv_heads", made["num_heads"])
        made.setdefault("head_dim", made["width"] // made["num_heads"])
        made["window"] = made.get("window") or None
        pattern = metadata.get(f"{self.gguf}.{windows.PATTERN}")
        rotated = metadata.get(f"{self.gguf}.rope.dimension_count", made["head_dim"])
        ends = [metadata[key] for key in _ENDS if key in metadata]
        made |= {name: decimal(made[name]) for name in ("norm_eps", "rope_theta", "local_theta") if name in made}
        made |= {
            "vocab_size": shapes["token_embd.weight"][0],
            "rotary_share": rotated / made["head_dim"],
            "layer_kinds": windows.kinds_from_gguf(pattern, made["num_layers"], made["window"], self.gguf_kinds),
            "rope_scaling": scaling_from_gguf(metadata, self.gguf, where),
            "tie_embeddings": "output.weight" not in shapes,
            "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_ids": tuple(dict.fromkeys(ends)),
            "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id", next(iter(ends), 0)),
        }
        made |= {ours: f"blk.0.{name}.bias" in shapes for ours, name in _GGUF_BIASES.items() if ours in self.switches}
        made |= {**self._unsaid, **self.fixed}
        if "attention_scalar" in self.hf:
            made["attention_scalar"] = _gemma_scalar(made["num_layers"], made)
        return DecoderConfig(family=self.model_type, **made)

    def to_gguf(self, config: DecoderConfig) -> dict[str, Any]:
        made = {theirs: getattr(config, ours) for ours, theirs in self.gguf_fields.items()}
        if config.rope_theta is not None:
            made["attention.value_length"] = config.head_dim
            made["rope.dimension_count"] = int(config.head_dim * config.rotary_share)
        made |= scaling_to_gguf(config, self.gguf)
        expected = self._unsaid | ({} if self.gguf_partial else {"rotary_share": 1.0})
        if self.gguf_windows:
            made |= windows.to_gguf(config, self.gguf_kinds)
        else:
            windows.refuse(config)
            expected["layer_kinds"] = windows.kinds_from_gguf(None, config.num_layers, config.window, self.gguf_kinds)
        if "attention_scalar" in self.hf:
            expected["attention_scalar"] = _gemma_scalar(config.num_layers, asdict(config))
        for name, value in expected.items():
            found = getattr(config, name)
            if found != value:
                raise UsageError(f"GGUF's {config.family} has {name} = {value!r}, and this model {found!r}")
        return {name: value for name, value in made.items() if value is not None}

    def names(self, config: DecoderConfig) -> tuple[Name, ...]:
        return self.tensors(config)

    @property
    def copies(self) -> dict[str, str]:
        one = DecoderConfig("", 1, 1, 1, 1, 1, 1, 1)
        embedding = next(name.hf for name in self.names(one) if name.ours == "embedding")
        return {"lm_head.weight": embedding, "output.weight": "token_embd.weight"}

    @property
    def _hf_fields(self) -> dict[str, str]:
        return {**self.hf, **self.switches}

    @property
    def _unsaid(self) -> dict[str, Any]:
        return {"activation": "silu", **self.gguf_fixed}


def _gemma_scalar(layers: int, fields: Mapping[str, Any]) -> float:
    # Unsaid in the file: the 27B models (46 and 62 layers) divide the width by the heads, the others take head_dim.
    return fields["width"] // fields["num_heads"] if layers in (46, 62) else fields["head_dim"]


_BIASES = {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
_GEMMA = {"norm_offset": 1.0, "post_norms": True, "scaled_embedding": True}
_NEUTRAL_GEMMA = {"use_bidirectional_attention": (False, None)}

FAMILIES = (
    DecoderFamily("llama", "LlamaForCausalLM", "llama", turned(LLAMA), switches={**_BIASES, "mlp_bias": "mlp_bias"}),
    DecoderFamily("mistral", "MistralForCausalLM", "llama", turned(LLAMA)),
    DecoderFamily("qwen2", "Qwen2ForCausalLM", "qwen2", LLAMA, fixed={"qkv_bias": True}),
    DecoderFamily("qwen3", "Qwen3ForCausalLM", "qwen3", LLAMA, switches=_BIASES, fixed={"head_norms": True}),
    DecoderFamily(
        "smollm3",
        "SmolLM3ForCausalLM",
        "smollm3",
        turned(LLAMA),
        switches={**_BIASES, "mlp_bias": "mlp_bias"},
        gguf_kinds=every(4, PLAIN, FULL),
    ),
    DecoderFamily(
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
    DecoderFamily(
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
    DecoderFamily(
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
    DecoderFamily(
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
    DecoderFamily(
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
