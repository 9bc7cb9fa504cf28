"""T5 and what differs from it by configuration alone: v1.0, v1.1, FLAN-T5, UL2, ByT5 (all "t5"), and mT5."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxft.errors import UsageError
from jaxft.models import T5Config
from jaxft.pretrained.families.family import Family, Fields, Name, Shapes, activation, block, refuse_unless, token_ids

HF = {
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "width": "d_model",
    "num_heads": "num_heads",
    "head_dim": "d_kv",
    "mlp_width": "d_ff",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_max_distance": "relative_attention_max_distance",
    "norm_eps": "layer_norm_epsilon",
}
STATED = ("vocab_size", "num_layers", "d_model", "num_heads", "d_kv", "d_ff")
NEUTRAL: dict[str, tuple] = {"quantization_config": (None,)}
_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@dataclasses.dataclass(frozen=True)
class T5Family(Family):
    """A family of encoder-decoders in T5's format; `ties` says whether a head may be tied (and scaled) there."""

    gguf: str = "t5"
    ties: bool = True

    def from_hf(self, fields: Fields, stated: Fields, where: str) -> T5Config:
        for name in STATED:
            stated[name]  # KeyError
        refuse_unless(fields, NEUTRAL, where)
        refuse_unless(stated, {"is_encoder_decoder": (True,)}, where)
        gate, _, act = fields["feed_forward_proj"].rpartition("-")
        if gate not in ("", "gated"):
            raise UsageError(f"{where}: feed_forward_proj = {fields['feed_forward_proj']!r} is not supported")
        # transformers 5 writes tie_word_embeddings = true for every T5 and keeps what it means in the other field.
        tied = stated.get("scale_decoder_outputs", stated.get("tie_word_embeddings", True))
        pad, start = fields.get("pad_token_id") or 0, fields.get("decoder_start_token_id")
        return T5Config(
            family=self.model_type,
            gated=gate == "gated",
            activation="gelu_new" if (gate, act) == ("gated", "gelu") else activation(act, where),
            tie_embeddings=self.ties and tied is not False,
            eos_token_ids=token_ids(fields.get("eos_token_id")),
            pad_token_id=pad,
            decoder_start_token_id=pad if start is None else start,
            **{ours: fields[theirs] for ours, theirs in HF.items()},
        )

    def to_hf(self, config: T5Config) -> dict[str, Any]:
        act = "gelu" if config.gated and config.activation == "gelu_new" else config.activation
        return {
            "is_encoder_decoder": True,
            "feed_forward_proj": f"gated-{act}" if config.gated else act,
            "tie_word_embeddings": config.tie_embeddings,
            **{theirs: getattr(config, ours) for ours, theirs in HF.items()},
        }

    def from_gguf(self, metadata: Fields, shapes: Shapes, where: str) -> T5Config:
        def get(name, *default):
            return metadata.get(f"t5.{name}", *default) if default else metadata[f"t5.{name}"]

        # The file states no activation: llama.cpp takes gated for v1.1's GELU and plain for v1.0's ReLU.
        gated = "enc.blk.0.ffn_gate.weight" in shapes
        layers = get("block_count")
        ends = [metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot") if _named(metadata, name)]
        epsilon = get("attention.layer_norm_epsilon", get("attention.layer_norm_rms_epsilon", 1e-6))
        return T5Config(
            family="t5",
            vocab_size=shapes["token_embd.weight"][0],
            num_layers=layers,
            num_decoder_layers=get("decoder_block_count", layers),
            width=get("embedding_length"),
            num_heads=get("attention.head_count"),
            head_dim=get("attention.key_length"),
            mlp_width=get("feed_forward_length"),
            gated=gated,
            activation="gelu_new" if gated else "relu",
            relative_buckets=get("attention.relative_buckets_count", 32),
            norm_eps=float(str(np.float32(epsilon))),
            tie_embeddings="output.weight" not in shapes,
            eos_token_ids=tuple(dict.fromkeys(ends)) or (1,),
            pad_token_id=metadata.get("tokenizer.ggml.padding_token_id", 0),
            decoder_start_token_id=get("decoder_start_token_id", 0),
        )

    def to_gguf(self, config: T5Config) -> dict[str, Any]:
        expected = "gelu_new" if config.gated else "relu"
        if config.activation != expected or config.relative_max_distance != 128:
            raise UsageError(
                "GGUF's t5 has gated GELU or plain ReLU, and distances of at most 128; this model has others"
            )
        return {
            "block_count": config.num_layers,
            "decoder_block_count": config.num_decoder_layers,
            "context_length": 512 if config.max_length == 2048 else config.max_length,
            "embedding_length": config.width,
            "feed_forward_length": config.mlp_width,
            "attention.head_count": config.num_heads,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.relative_buckets_count": config.relative_buckets,
            "attention.layer_norm_epsilon": config.norm_eps,
            "attention.layer_norm_rms_epsilon": config.norm_eps,
            "decoder_start_token_id": config.decoder_start_token_id,
        }

    def names(self, config: T5Config) -> tuple[Name, ...]:
        """Return the names of all tensors; the relative biases of a stack lie in its first layer."""
        return (
            Name("embedding", "shared.weight", "token_embd.weight"),
            *_stack("encoder", "enc", cross=False, gated=config.gated),
            *_stack("decoder", "dec", cross=True, gated=config.gated),
            Name("head/kernel", "lm_head.weight", "output.weight", otherwise="shared.weight"),
        )

    @property
    def copies(self) -> dict[str, str]:
        return dict.fromkeys(("lm_head.weight", *_EMBEDDINGS), "shared.weight")


def _named(metadata: Fields, token: str) -> bool:
    return f"tokenizer.ggml.{token}_token_id" in metadata


def _stack(ours: str, gguf: str, cross: bool, gated: bool) -> tuple[Name, ...]:
    def attention(member: str, place: str, packed: str) -> dict[str, Name]:
        return {f"{member}/{x}/kernel": Name("", f"{place}.{x}.weight", f"{packed}_{x}.weight") for x in "qkvo"}

    members = {
        "attention_norm/scale": Name("", "layer.0.layer_norm.weight", "attn_norm.weight"),
        **attention("attention", "layer.0.SelfAttention", "attn"),
    }
    if cross:
        members["cross_attention_norm/scale"] = Name("", "layer.1.layer_norm.weight", "cross_attn_norm.weight")
        members |= attention("cross_attention", "layer.1.EncDecAttention", "cross_attn")
    mlp = "layer.2" if cross else "layer.1"
    members["mlp_norm/scale"] = Name("", f"{mlp}.layer_norm.weight", "ffn_norm.weight")
    if gated:
        members["mlp/gate/kernel"] = Name("", f"{mlp}.DenseReluDense.wi_0.weight", "ffn_gate.weight")
    up = "wi_1" if gated else "wi"
    members["mlp/up/kernel"] = Name("", f"{mlp}.DenseReluDense.{up}.weight", "ffn_up.weight")
    members["mlp/down/kernel"] = Name("", f"{mlp}.DenseReluDense.wo.weight", "ffn_down.weight")
    bias = f"{ours}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return (
        *block(f"{ours}/layers", f"{ours}.block", f"{gguf}.blk", members),
        Name(f"{ours}/norm/scale", f"{ours}.final_layer_norm.weight", f"{gguf}.output_norm.weight"),
        Name(f"{ours}/relative_bias", bias, f"{gguf}.blk.0.attn_rel_b.weight"),
    )


FAMILIES = (T5Family("t5", "T5ForConditionalGeneration"), T5Family("mt5", "MT5ForConditionalGeneration", ties=False))
