"""An inspection as tables of at most 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxft.models import DecoderConfig, T5Config
from jaxft.models.decoder import FULL, LOCAL, PLAIN
from jaxft.runs.inspecting import DEVICES, RESERVE, Inspection, Vocabulary, Weights, fits
from jaxft.runs.show import show_bytes
from jaxft.runs.sizes import label

_TEMPLATE_LINES, _TEMPLATE_LETTERS = 2, 160


def show_inspection(found: Inspection, console: Console) -> None:
    """Print what a model is, its parameters by group, and what tuning it would hold."""
    table = Table(title=found.source, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in (*_facts(found.config), *_files(found)):
        table.add_row(name, Text(text))
    console.print(table)
    _show_parameters(found, console)
    if found.needs:
        _show_needs(found, console)


def _show_parameters(found: Inspection, console: Console) -> None:
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for heading in ("parameters", "numbers", "share"):
        table.add_column(heading, justify="left" if heading == "parameters" else "right")
    for group, count in found.parameters.items():
        name = "head (the embedding)" if group == "head" and not count else group
        table.add_row(name, f"{count:,}", f"{count / found.total:.2%}")
    table.add_row("all", f"{found.total:,}", "", style="bold")
    console.print(table)


def _show_needs(found: Inspection, console: Console) -> None:
    setting = found.setting
    title = f"memory to tune it, {setting.batch_size} rows of {setting.length} tokens"
    if setting.prompt_length:
        title += f" after {setting.prompt_length}"
    title += f", {setting.dtype}" + (f" on {setting.quantize}" if setting.quantize else "")
    if setting.mesh:
        title += ", on one of " + " x ".join(f"{name}={size}" for name, size in setting.mesh.items())
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("method", min_width=6, overflow="fold")
    for heading in ("numbers", "base", "trained x2", "moments", "activ.", "all", "fits"):
        table.add_column(heading, justify="left" if heading == "fits" else "right", no_wrap=True)
    for need in found.needs:
        size = need.sizes
        kept = (size.weight_bytes, size.trainable_bytes + size.gradient_bytes, size.moment_bytes)
        about = "" if need.compiled else "~"
        table.add_row(
            label(need.method),
            _short(size.trainable),
            *map(show_bytes, kept),
            about + show_bytes(need.activation_bytes),
            about + show_bytes(need.bytes),
            " ".join(str(device) for device, held in fits(need.bytes).items() if held) or "none",
        )
    console.print(table)
    console.print(_legend(found), style="dim", markup=False, highlight=False)


def _legend(found: Inspection) -> str:
    setting = found.setting
    others = sorted({label(one.method) for one in found.needs if one.optimizer == "adafactor"})
    sizes = ", ".join(map(str, DEVICES))
    lines = [
        f"fits: which devices of {sizes} GB (1e9 bytes) hold it with {RESERVE:.0%} left free.",
        "Exact, from shapes: base (kept beside what is trained), trained with its gradients (x2), moments of AdamW"
        + (f" (Adafactor: {', '.join(others)})." if others else "."),
    ]
    half = (setting.compiler, setting.dtype) == ("cpu", "bfloat16")
    compiled = f"by XLA for {setting.compiler}{' as float16' if half else ''} with remat={setting.remat}"
    if setting.mesh:
        lines.append(
            f"Estimated (~): activations and other temporaries, from a step on one device's rows compiled {compiled}, "
            "and a layer of each stack, the embedding and the head gathered."
        )
    else:
        lines.append(f"Compiled, not run: activations and other temporaries of the step, {compiled}.")
    if half:
        lines.append("There float32 copies of the head and of DoRA's kernels are made: on accelerators it is less.")
    return "\n".join(lines)


def _facts(c: DecoderConfig | T5Config) -> Iterator[tuple[str, str]]:
    gate = f"gated {c.activation}" if c.gated else c.activation
    head = "head tied to the embedding" if c.tie_embeddings else "head of its own"
    if isinstance(c, T5Config):
        yield "family", f"{c.family}, encoder-decoder"
        yield "layers", f"{c.num_layers} + {c.num_decoder_layers}, width {c.width:,}, mlp {c.mlp_width:,} ({gate})"
        yield "attention", f"{c.num_heads} heads of {c.head_dim}"
        yield "positions", f"relative, {c.relative_buckets} buckets up to {c.relative_max_distance} tokens"
        yield "norms", f"rms, eps {c.norm_eps:g}"
    else:
        yield "family", f"{c.family}, decoder-only"
        yield "layers", f"{c.num_layers}, width {c.width:,}, mlp {c.mlp_width:,} ({gate})"
        yield "attention", _attention(c)
        yield "positions", _positions(c)
        yield "norms", _norms(c)
    yield "vocabulary", f"{c.vocab_size:,}, {head}"
    yield "context", f"{c.max_length:,} tokens"


def _attention(c: DecoderConfig) -> str:
    text = f"{c.num_heads} heads of {c.head_dim}"
    text += f", {c.num_kv_heads} for keys and values" if c.num_kv_heads != c.num_heads else ""
    biased = {"q, k, v": c.qkv_bias, "o": c.o_bias, "mlp": c.mlp_bias}
    if any(biased.values()):
        text += f"; biases on {', '.join(name for name, there in biased.items() if there)}"
    counts = Counter(c.layer_kinds)
    seen = {FULL: "see all", LOCAL: f"see the last {c.window} tokens", PLAIN: "see all without positions"}
    if counts:
        text += "; " + ", ".join(f"{counts[kind]} layers {what}" for kind, what in seen.items() if counts[kind])
    return text + (f"; scores capped at {c.attention_cap:g}" if c.attention_cap else "")


def _positions(c: DecoderConfig) -> str:
    if c.rope_theta is None:
        return "learned"
    text = f"rotary, base {c.rope_theta:,.0f}"
    text += f" ({c.local_theta:,.0f} in windows)" if c.local_theta is not None else ""
    text += f", {c.rotary_share:.0%} of a head" if c.rotary_share != 1 else ""
    return text + (f", {c.rope_scaling.kind} scaling by {c.rope_scaling.factor:g}" if c.rope_scaling else "")


def _norms(c: DecoderConfig) -> str:
    where = ["before sublayers", *(["after them"] if c.post_norms else []), *(["of heads"] if c.head_norms else [])]
    return f"{c.norm}, eps {c.norm_eps:g}, {' and '.join(where)}"


def _files(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "weights", _weights(found.weights)
    if found.tokenizer is None:
        yield "tokenizer", "none here"
        return
    vocabulary: Vocabulary = found.tokenizer
    rows = found.config.vocab_size
    yield "tokenizer", f"{vocabulary.kind}, {vocabulary.size:,} tokens for {rows:,} rows of the embedding"
    yield "special", ", ".join(f"{role} {token!r} ({index})" for role, (token, index) in vocabulary.special.items())
    template = vocabulary.chat_template
    if template is None:
        yield "chat", "no template"
    else:
        lines = "\n".join(template.strip().split("\n")[:_TEMPLATE_LINES])[:_TEMPLATE_LETTERS]
        yield "chat", lines + (" ..." if len(lines) < len(template.strip()) else "")


def _weights(weights: Weights | None) -> str:
    if weights is None:
        return "not here; sizes follow from the configuration"
    types = ", ".join(f"{kind} {_short(count)}" for kind, count in weights.types.items())
    return f"{types} numbers, {show_bytes(weights.bytes)} on disk"


def _short(count: float) -> str:
    for unit in ("", "K", "M", "B"):
        if count < 999.5 or unit == "B":
            return (
                f"{count:.0f}{unit}" if count >= 99.95 or not unit else f"{count:.{1 if count >= 9.995 else 2}f}{unit}"
            )
        count /= 1000
    raise AssertionError
