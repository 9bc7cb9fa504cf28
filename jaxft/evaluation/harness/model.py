"""A jaxft model as lm-eval sees one: log-likelihoods, rolling log-likelihoods and generated texts for requests.

Tokens, truncation and prefixes are those of lm-eval's own Hugging Face model, so that scores are comparable. One
deviation: an encoder-decoder's input is cut at `max_length` of the configuration (2048), and its output at
`max_gen_toks`, not at their sum.

lm = HarnessModel(model, method.bind(trainable, frozen), batch_size=32)
lm_eval.simple_evaluate(lm, tasks=["mmlu"])
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from jaxft.errors import UsageError
from jaxft.evaluation.answers import Answers
from jaxft.evaluation.harness.until import Until, generation_settings
from jaxft.generation import decode, likelihood
from jaxft.models import T5
from jaxft.training.sharding import shard

AT_ONCE = 16384  # requests whose tokens are held at once

Answered = Iterator[tuple[Sequence[int], Sequence[Any]]]  # which requests, and their answers


class HarnessModel(TemplateLM):
    """lm-eval's view of `model` with `variables` (what a method's `bind` gives, so adapters stay unmerged).

    Args:
        model: Its architecture and tokenizer are used.
        variables: Default: the base alone.
        batch_size: Rows computed together.
        max_length: Of a context; default: the model's. Longer ones lose their beginning.
        max_gen_toks: New tokens where a task does not say how many.
        mesh: Devices over which weights and rows are spread; lm-eval itself sees one process.
        answers: Where answers are kept; those that are there are not computed again. Default: in memory.
        seed: Of tasks that draw their texts.
        share: Compute once what requests have in common.
        note: Told now and then how many requests are answered.

    Raises `UsageError` for a model without a tokenizer.
    """

    def __init__(
        self,
        model: Any,
        variables: Any = None,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        mesh: Any = None,
        answers: Answers | None = None,
        seed: int = 0,
        share: bool = True,
        note: Callable[[str], None] | None = None,
    ):
        super().__init__()
        if model.tokenizer is None:
            raise UsageError(f"{model.source}: benchmarks need a tokenizer; add its files to the model's directory")
        variables = {"params": model.params} if variables is None else variables
        self.jax_model, self.variables, self.mesh = model, shard(variables, mesh), mesh
        self.tokenizer = model.tokenizer
        self.backend = "seq2seq" if isinstance(model.architecture, T5) else "causal"
        soft = variables.get("prompt", {}).get("embedding")
        self.max_length = max_length or model.config.max_length - (0 if soft is None else soft.shape[-2])
        devices = 1 if mesh is None else mesh.size
        self.batch_size = -(-batch_size // devices) * devices
        self.max_gen_toks, self.seed, self.share = max_gen_toks, seed, share
        self.answers = Answers(None, {}) if answers is None else answers
        self._encoded: dict[tuple[str, bool | None], list[int]] = {}
        self._until = Until(model, self.variables, self.max_length, self.batch_size)
        self._compiled, self._note, self._noted = _programs(), note, time.monotonic()

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def compilations(self) -> int:
        """How many programs were compiled for this model's requests so far."""
        return _programs() - self._compiled

    @property
    def tokenizer_name(self) -> str:
        return (getattr(self.tokenizer, "name_or_path", "") or self.jax_model.source).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the conversation as text; a template that refuses a system message gets none."""
        import jinja2

        options = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        options["continue_final_message"] = not add_generation_prompt
        try:
            return self.tokenizer.apply_chat_template(chat_history, **options)
        except jinja2.exceptions.TemplateError:
            rest = [message for message in chat_history if message["role"] != "system"]
            return self.tokenizer.apply_chat_template(rest, **options)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return token ids; by default with the special tokens that the tokenizer adds, unless BOS is in the text."""
        known = self._encoded.get((string, add_special_tokens))
        return self._encode([string], add_special_tokens)[0] if known is None else known

    def _encode(self, strings: Sequence[str], special: bool | None) -> list[list[int]]:
        prefix = self.tokenizer.decode([self.prefix_token_id])
        adds = [not has_bos_prefix(string, prefix) if special is None else special for string in strings]
        ids: list[list[int]] = [[] for _ in strings]
        for add in sorted(set(adds)):
            which = [i for i, own in enumerate(adds) if own == add]
            batch = self.tokenizer([strings[i] for i in which], add_special_tokens=add, verbose=False)["input_ids"]
            for i, row in zip(which, batch, strict=True):
                ids[i] = row
        return ids

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-probability of the continuation, whether it is greedy) for each (context, continuation)."""
        found = self._answered("loglikelihood", [request.args for request in requests], self._score_texts)
        return [(total, bool(greedy)) for total, greedy in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each (text,), read in windows that do not overlap in what they predict."""
        return self._answered("rolling", [request.args for request in requests], self._score_rolling)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the text that follows each (context, settings), cut before the first of the stop strings."""
        counts: dict[str, int] = {}
        args = []
        for request in requests:
            context, settings = request.args
            # A task that draws several answers to one context asks several times.
            drawn = generation_settings(normalize_gen_kwargs(settings, self.max_gen_toks), self.backend)[1]
            number = counts.setdefault(json.dumps([context, settings]), 0)
            counts[json.dumps([context, settings])] += 1
            args.append((context, settings, number if drawn.get("temperature") else 0))
        return self._answered("generate", args, self._generate)

    def _loglikelihood_tokens(self, requests: Sequence[Any], disable_tqdm: bool = False, **kwargs: Any) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        with self._on_mesh():
            for which, values in self._score_tokens([(context, rest) for _, context, rest in requests]):
                for i, value in zip(which, values, strict=True):
                    answers[i] = value
        return answers

    def _answered(self, kind: str, args: Sequence[tuple], compute: Callable[[Sequence[Any]], Answered]) -> list[Any]:
        """Return the answers to `args`, after computing and keeping those that are not there yet, each once."""
        keys = [Answers.key(kind, *one) for one in args]
        missing = {key: one for key, one in zip(keys, args, strict=True) if key not in self.answers}
        names, done = list(missing), 0
        with self._on_mesh():
            for which, values in compute(list(missing.values())):
                self.answers.add_all((names[i], value) for i, value in zip(which, values, strict=True))
                done += len(which)
                self._tell(done, len(names))
        return [self.answers[key] for key in keys]

    def _score_texts(self, pairs: Sequence[tuple[str, str]]) -> Answered:
        for start in range(0, len(pairs), AT_ONCE):
            tokens = [self._pair(*pair) for part in _parts(pairs[start : start + AT_ONCE], 2048)
                      for pair in self._encoding(part)]  # fmt: skip
            for which, values in self._score_tokens(tokens):
                yield [start + i for i in which], values

    def _encoding(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield `pairs` again, while their texts are encoded: all at once, each of them once."""
        wanted: dict[tuple[str, bool | None], None] = {}
        for context, continuation in pairs:
            words = context.rstrip()
            if not context:
                wanted[continuation, False] = None
            elif self.backend == "causal":
                wanted |= {(words, None): None, (context + continuation, None): None}
            else:
                wanted |= {(words, None): None, (context[len(words) :] + continuation, False): None}
        for special in (None, False):
            strings = [string for string, own in wanted if own is special]
            if strings:
                ids = self._encode(strings, special)
                self._encoded |= {(string, special): row for string, row in zip(strings, ids, strict=True)}
        yield from pairs
        self._encoded.clear()

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            return self._encode_pair(context, continuation)
        rest = self.tok_encode(continuation, add_special_tokens=False)
        return (rest[:1], rest[1:]) if rest[:1] == [self.prefix_token_id] else ([self.prefix_token_id], rest)

    def _score_rolling(self, texts: Sequence[tuple[str]]) -> Answered:
        """Score each text's windows; a text is done when its last window is."""
        for i, (text,) in enumerate(texts):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            parts = list(self._score_tokens([make_disjoint_window(window) for window in windows]))
            yield [i], [sum(total for _, values in parts for total, _ in values)]

    def _score_tokens(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Answered:
        """Score token ids; of what is too long for the model, the beginning is left out."""
        empty = [i for i, (_, rest) in enumerate(pairs) if not rest]
        if empty:
            yield empty, [(0.0, True)] * len(empty)
        which = [i for i, (_, rest) in enumerate(pairs) if rest]
        cut = [self._cut(*pairs[i]) for i in which]
        options: dict[str, Any] = {"batch_size": self.batch_size, "share": self.share}
        contexts, rests = [context for context, _ in cut], [rest for _, rest in cut]
        for scored in likelihood.stream(self.jax_model, self.variables, contexts, rests, **options):
            values = zip(scored.sums.tolist(), scored.greedy.tolist(), strict=True)
            yield [which[i] for i in scored.requests], list(values)

    def _cut(self, context: list[int], rest: list[int]) -> tuple[list[int], list[int]]:
        if self.backend == "seq2seq":
            return context[-self.max_length :], rest[-self.max_length :]
        if len(rest) > self.max_length:
            raise UsageError(f"a continuation has {len(rest)} tokens, and the model's context {self.max_length}")
        # The last token is only predicted, never read.
        return context[-(self.max_length + 1 - len(rest)) :], rest

    def _generate(self, requests: Sequence[tuple[str, dict[str, Any], int]]) -> Answered:
        groups: dict[str, list[int]] = {}
        for i, (_, settings, _) in enumerate(requests):
            groups.setdefault(json.dumps(settings, sort_keys=True), []).append(i)
        for number, which in enumerate(groups.values()):
            settings = normalize_gen_kwargs(requests[which[0]][1], self.max_gen_toks)
            contexts = self._encode([requests[i][0] for i in which], None)
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            for part, texts in self._until.texts(contexts, settings, key):
                yield [which[i] for i in part], texts

    def _tell(self, done: int, total: int) -> None:
        if self._note is not None and (time.monotonic() - self._noted > 15 or done == total):
            self._note(f"{done:,} of {total:,} requests answered")
            self._noted = time.monotonic()

    def _on_mesh(self) -> Any:
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def _parts(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _programs() -> int:
    jitted: tuple[Any, ...] = likelihood.score, likelihood.read, decode.run
    return sum(one._cache_size() for one in jitted)
