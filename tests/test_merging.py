"""Base and adapter as one directory that transformers loads; and a look into adapters on disk."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxft.errors import UsageError
from jaxft.methods import full, lora, prompt
from jaxft.methods.peft import load_adapter, save_adapter
from jaxft.pretrained import load
from jaxft.runs.look import look
from jaxft.runs.merging import merge_adapter

torch = pytest.importorskip("torch")
import tiny_torch  # noqa: E402
import transformers  # noqa: E402

KINDS = {
    "llama": lambda folder: tiny_torch.llama(folder),
    "t5": lambda folder: tiny_torch.t5(folder, gated=True, tied=False),
}


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](folder)
    return load(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    KINDS["llama"](folder)
    return load(folder)


def saved(method, model, folder):
    trainable, frozen = method.init(jax.random.key(1), {"params": model.params})
    draw = np.random.default_rng(2)
    moved = jax.tree.map(lambda leaf: leaf + 0.2 * draw.standard_normal(leaf.shape).astype(np.float32), trainable)
    save_adapter(folder, method, moved, frozen, model)
    return method.bind(moved, frozen)


def edited(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("named", [True, False])
def test_transformers_loads_what_is_merged_to_the_same_logits(base, tmp_path, named):
    variables = saved(lora(3, 5.5, "all"), base, tmp_path / "adapter")
    batch = tiny_torch.batch(base.family == "t5")
    ours, without = base.apply(variables, batch), base.apply({"params": base.params}, batch)
    assert np.abs(ours - without).max() > 0.05
    if not named:
        edited(tmp_path / "adapter", base_model_name_or_path="nowhere/to/be/found")
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged", None if named else base.source)
    kind = transformers.T5ForConditionalGeneration if base.family == "t5" else transformers.LlamaForCausalLM
    theirs = kind.from_pretrained(tmp_path / "merged").eval()
    tiny_torch.assert_same(ours, tiny_torch.logits(theirs, batch), batch)
    tiny_torch.assert_same(ours, np.asarray(merged.apply({"params": merged.params}, batch)), batch)
    again = load(tmp_path / "merged")
    jax.tree.map(np.testing.assert_array_equal, again.params, merged.params)


def test_what_cannot_be_merged_is_refused_by_name(llama, tmp_path):
    saved(prompt(3), llama, tmp_path / "prompt")
    edited(tmp_path / "prompt", base_model_name_or_path="nowhere/to/be/found")  # refused before a base is looked for
    with pytest.raises(UsageError, match="prompt cannot be folded into weights"):
        merge_adapter(tmp_path / "prompt", tmp_path / "out")
    (tmp_path / "prompt" / "jaxft.json").unlink()  # as PEFT writes it
    with pytest.raises(UsageError, match="prompt cannot be folded into weights"):
        merge_adapter(tmp_path / "prompt", tmp_path / "out", llama.source)
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_missing_or_another_is_refused(llama, tmp_path):
    adapter = tmp_path / "adapter"
    saved(lora(2), llama, adapter)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        merge_adapter(adapter, tmp_path / "notes")
    tiny_torch.t5(tmp_path / "t5")
    with pytest.raises(UsageError, match="family"):
        merge_adapter(adapter, tmp_path / "out", str(tmp_path / "t5"))
    edited(adapter, base_model_name_or_path=None)
    with pytest.raises(UsageError, match="does not name its base; give --model"):
        merge_adapter(adapter, tmp_path / "out")
    edited(adapter, base_model_name_or_path="./gone/away")
    with pytest.raises(UsageError, match=r"base is not found.*give --model"):
        merge_adapter(adapter, tmp_path / "out")
    with pytest.raises(UsageError, match="is a whole model already"):
        merge_adapter(llama.source, tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds no adapter_config\.json"):
        merge_adapter(tmp_path / "notes", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def shown(adapter, out):
    console = Console(record=True, width=100, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    written = look(adapter, out, console=console)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    return [path.name for path in written], console.export_text()


def test_a_look_into_lora(base, tmp_path):
    saved(lora(3, 5.5, ["q", "up"]), base, tmp_path / "adapter")
    pictures, text = shown(tmp_path / "adapter", tmp_path / "pictures")
    assert pictures == ["norms.png"]
    assert "attention/q" in text and "mlp/up" in text and "attention/v" not in text


def test_a_look_into_a_prompt(base, tmp_path):
    method = prompt(4, [17, 23, 31, 55])
    saved(method, base, tmp_path / "adapter")
    trainable = load_adapter(tmp_path / "adapter", base)[1]
    exact = jax.tree.map(lambda leaf: jnp.asarray(base.params["embedding"])[jnp.array([17, 23, 31, 55])], trainable)
    save_adapter(tmp_path / "adapter", method, exact, {"params": base.params}, base)
    pictures, text = shown(tmp_path / "adapter", tmp_path / "pictures")
    side = "encoder_" if base.family == "t5" else ""
    assert pictures == [f"tokens_{side}cosine.png", f"tokens_{side}euclid.png"]
    assert all(f"'#{token}' 1.00" in text and f"'#{token}' 0.00" in text for token in (17, 23, 31, 55))


def test_a_look_where_nothing_is(llama, tmp_path):
    saved(full(), llama, tmp_path / "full")
    with pytest.raises(UsageError, match="is a whole model already"):
        look(tmp_path / "full", tmp_path / "pictures")
    with pytest.raises(UsageError, match="nothing to look into"):
        look(tmp_path / "full", tmp_path / "pictures", llama.source)
