"""Tiny torch models with random weights, written as transformers writes them, and the same batch for both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

VOCABULARY = 96


def llama(folder, tied=True, **saving):
    """Write a Llama with fewer key than query heads; return the torch model."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        rope_theta=50000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        max_position_embeddings=128,
        eos_token_id=[2, 5],
        bos_token_id=1,
        pad_token_id=0,
    )
    return _written(transformers.LlamaForCausalLM, config, folder, saving)


def t5(folder, gated=True, tied=False, kind="T5", **saving):
    """Write a T5 whose attention is wider than the model and whose stacks differ in depth; return the torch model."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=12,
        d_ff=56,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
    )
    return _written(getattr(transformers, f"{kind}ForConditionalGeneration"), config, folder, saving)


_SMALL = {
    **{"vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4},
    **{"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_GEMMA = {"query_pre_attn_scalar": 12, "sliding_window": 4}

# Configurations of the decoder-only families, by what is special in them: `{name: (family, fields)}`.
DECODERS = {
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama 3": ("llama", {"rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 16, "rope_theta": 500.0}}),
    "llama linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "mistral": ("mistral", {"sliding_window": 4, "tie_word_embeddings": False}),
    "mistral no window": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 window": ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}),
    "qwen3": ("qwen3", {"rope_theta": 1e6}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 4}),
    "phi3": ("phi3", {"num_key_value_heads": 6, "original_max_position_embeddings": 128}),
    "phi3 partial": ("phi3", {"partial_rotary_factor": 0.5, "sliding_window": 5}),
    "gemma2": ("gemma2", {**_GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {**_GEMMA, "sliding_window_pattern": 3}),
    "gemma3 scaled": (
        "gemma3_text",
        {**_GEMMA, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 500.0},
    ),
    "starcoder2": ("starcoder2", {"sliding_window": 4, "tie_word_embeddings": False}),
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 4, "n_head": 6, "n_positions": 64}),
    "gpt2 wide": ("gpt2", {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 64, "n_inner": 72}),
}


def decoder(folder, name, **saving):
    """Write a decoder-only model of `DECODERS`; return the torch model."""
    kind, fields = DECODERS[name]
    small = {key: _SMALL[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")} if kind == "gpt2" else _SMALL
    config = transformers.AutoConfig.for_model(kind, **(small | fields))
    config._attn_implementation = "eager"
    return _written(transformers.AutoModelForCausalLM.from_config(config).__class__, config, folder, saving)


def _written(kind, config, folder, saving):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Far from initialisation, so that no scale or bias is one or zero by chance.
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.15))
            if "norm" in name or ".ln_" in name:
                parameter.add_(1.0)
        if hasattr(model, "shared") and not getattr(config, "scale_decoder_outputs", False):
            # transformers 5 ties the head of every T5 that is made from a configuration.
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.15)
    model.save_pretrained(folder, **saving)
    return model


def batch(encoder_decoder, seed=0):
    """Return a batch of two rows, the second one shorter, as jaxft takes it."""
    draw = np.random.default_rng(seed)

    def rows(prefix, lengths):
        longest = max(lengths)
        segments = (np.arange(longest)[None] < np.array(lengths)[:, None]).astype(np.int32)
        tokens = draw.integers(6, VOCABULARY, (2, longest)).astype(np.int32) * segments
        positions = np.broadcast_to(np.arange(longest, dtype=np.int32), tokens.shape)
        return {f"{prefix}tokens": tokens, f"{prefix}positions": positions, f"{prefix}segments": segments}

    made = rows("", (9, 6))
    return jax.tree.map(jnp.asarray, made | (rows("encoder_", (12, 7)) if encoder_decoder else {}))


def logits(torch_model, batch):
    """Return what the torch model makes of `batch`; a soft prompt's own positions are cut off."""
    inputs = {name: torch.tensor(np.asarray(array), dtype=torch.long) for name, array in batch.items()}
    with torch.no_grad():
        if "encoder_tokens" in inputs:
            out = torch_model(
                input_ids=inputs["encoder_tokens"],
                attention_mask=inputs["encoder_segments"],
                decoder_input_ids=inputs["tokens"],
            )
        else:
            out = torch_model(input_ids=inputs["tokens"], attention_mask=inputs["segments"])
    return out.logits[:, -inputs["tokens"].shape[1] :].float().numpy()


def assert_same(ours, theirs, batch, tolerance=1e-4):
    """Compare logits where there is a token, relative to the largest one."""
    real = np.asarray(batch["segments"]) != 0
    ours, theirs = np.asarray(ours)[real], theirs[real]
    assert np.abs(theirs).max() > 0.1
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()
