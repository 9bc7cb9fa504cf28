"""The command line: each command is a few calls of the library.

    jaxft train RECIPE.yaml --any.field=value
    jaxft generate MODEL --adapter runs/x/adapter --prompt "..."
    jaxft evaluate MODEL runs/x/recipe.yaml --adapter runs/x/adapter
    jaxft evaluate MODEL --tasks mmlu,super_glue --data-root mirrors --limit 100
    jaxft sweep RECIPE.yaml --sweep.optimizer.learning_rate=1e-4,3e-4 --sweep.train.seed=0,1,2
    jaxft report runs/x runs/y --out comparison.html
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

from jaxft.arguments import BY_HELM, ON_A_SPLIT, ON_BENCHMARKS, make_parser, split_fields
from jaxft.errors import Error, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    own, fields = split_fields(list(sys.argv[1:] if argv is None else argv))
    debug = "--debug" in own
    messages = logging.StreamHandler()
    logging.getLogger("jaxft").addHandler(messages)
    logging.getLogger("jaxft").setLevel(logging.INFO)
    try:
        arguments, unknown = make_parser().parse_known_args(own)
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
        "report": _report,
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
        f"the run: {out}/ (recipe.yaml, metrics.jsonl, adapter/, predictions.jsonl, summary.json, report.html)",
        markup=False,
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

    if arguments.tasks is not None:
        return _evaluate_tasks(arguments, fields)
    _refuse(arguments, ON_BENCHMARKS, "for benchmarks only: name them with --tasks")
    split = arguments.split or "test"
    recipe = load_recipe(arguments.recipe, [f"--model.source={arguments.model}", *fields])
    if arguments.helm:
        _refuse(arguments, ON_A_SPLIT, "not with --helm: --out keeps its scores, --answers the answers")
        from rich.console import Console

        from jaxft.evaluation.helm import show_report
        from jaxft.evaluation.helm.run import helm_options, helm_report

        found = helm_report(recipe, arguments.adapter, split, **helm_options(arguments))
        show_report(found, Console(stderr=True))
    else:
        _refuse(arguments, BY_HELM, "for --helm only")
        from jaxft.runs.use import evaluate_split

        found = evaluate_split(recipe, arguments.adapter, split, arguments.predictions, out=arguments.out)
    print(json.dumps(found, indent=2))


def _evaluate_tasks(arguments: argparse.Namespace, fields: list[str]) -> None:
    from rich.console import Console

    from jaxft.evaluation.harness.run import Settings, evaluate_tasks
    from jaxft.training.progress import Progress

    _no_fields(fields)
    arguments.out = arguments.out or "evaluation"
    if arguments.recipe or arguments.helm:
        raise UsageError("--tasks: benchmarks bring their own data; leave out the recipe and --helm, or --tasks")
    _refuse(arguments, ("split", *ON_A_SPLIT, *BY_HELM), "for a recipe's data, not with --tasks")
    asked = {name: getattr(arguments, name) for name in Settings._fields}
    report = evaluate_tasks(
        arguments.model,
        [name.strip() for name in arguments.tasks.split(",")],
        settings=Settings(**{name: value for name, value in asked.items() if value is not None}),
        note=Progress().note,
        **{name: getattr(arguments, name) for name in ("adapter", "data_root", "include_path", "out")},
    )
    from jaxft.evaluation.harness.results import show_results

    console = Console()
    show_results(report, console)
    console.print(f"the evaluation: {arguments.out}/ (results.json, answers.jsonl, samples/)", markup=False)
    if report["failed"]:
        lines = [f"{name}: {why}" for name, why in report["failed"].items()]
        raise Error("\n".join([f"{len(lines)} of the tasks failed:", *lines]))


def _sweep(arguments: argparse.Namespace, fields: list[str]) -> None:
    from rich.console import Console

    from jaxft.sweep import load_sweep, show_results, sweep

    recipe, grid = load_sweep(arguments.recipe, fields)
    rows = sweep(recipe, grid, at_once=arguments.at_once, patience=arguments.patience, overwrite=arguments.overwrite)
    console = Console()
    show_results(rows, console)
    console.print(f"the sweep: {recipe.out}/ (sweep.json, results.jsonl, sweep.png, adapter/)", markup=False)


def _report(arguments: argparse.Namespace, fields: list[str]) -> None:
    from jaxft.report import write_report

    _no_fields(fields)
    print(f"the page: {write_report(arguments.runs, arguments.out)}")


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


def _refuse(arguments: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(arguments, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')}: {why}")


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


if __name__ == "__main__":
    sys.exit(main())
