"""A tiny model with a tokenizer and a chat template, as a directory, and dialogues to tune it on, as files."""

import dataclasses
import json

import jax
import tokenizers
import transformers

from jaxft.data.dialogues import dialogues
from jaxft.models import T5, Decoder, DecoderConfig, Model, T5Config
from jaxft.pretrained import save
from jaxft.recipe import (
    DataRecipe,
    EvaluateRecipe,
    GenerateRecipe,
    MeshRecipe,
    ModelRecipe,
    OptimizerRecipe,
    ProbesRecipe,
    Recipe,
    TrainRecipe,
)

CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)

T5_CONFIG = T5Config(
    family="t5",
    vocab_size=500,
    num_layers=2,
    num_decoder_layers=2,
    width=16,
    num_heads=2,
    head_dim=8,
    mlp_width=32,
    gated=True,
    activation="gelu_new",
    max_length=512,
    eos_token_ids=(2,),
)


def write_model(folder, seed=0, scale=10, t5=False):
    """`scale` 10: learns in a few steps, and is so sharp that rounding grows 10,000-fold in one; 1: calm."""
    rows = dialogues(seed=9, count=30)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|pad|>", "<|start|>", "<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((row["dialogue"] + row["summary"] for row in rows), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>", chat_template=CHAT
    )
    config = DecoderConfig(
        family="llama",
        vocab_size=500,
        num_layers=2,
        width=16,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        mlp_width=32,
        max_length=512,
        eos_token_ids=(2,),
        pad_token_id=0,
    )
    architecture = T5(T5_CONFIG) if t5 else Decoder(config)
    params = jax.tree.map(lambda p: p * (scale if p.ndim > 1 else 1), architecture.init(jax.random.key(seed)))
    save(folder, Model(architecture, params, tokenizer))
    return folder


def write_rows(folder, train=24, validation=4, test=4):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        lines = [json.dumps(row) for row in dialogues(seed=seed, count=count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(model, data, out, **train):
    settings = {"steps": 8, "batch_size": 4, "eval_every": 3, "eval_generate": 0} | train
    return Recipe(
        model=ModelRecipe(str(model)),
        data=DataRecipe(str(data), "Summarise:\n{{ dialogue }}", "summary", chat=True, buckets=1),
        method={"name": "lora", "rank": 2, "targets": "all"},
        optimizer=OptimizerRecipe(learning_rate=0.1),
        train=TrainRecipe(**settings),
        generate=GenerateRecipe(max_new_tokens=4, batch_size=4),
        evaluate=EvaluateRecipe(metrics=["rouge1", "chrf"]),
        probes=ProbesRecipe(enabled=False),
        mesh=MeshRecipe(data=1),
        out=str(out),
    )


def changed(one, section, **fields):
    return dataclasses.replace(one, **{section: dataclasses.replace(getattr(one, section), **fields)})
