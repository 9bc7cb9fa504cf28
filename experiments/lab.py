"""An experiment: a claim, the arms that test it, seeds, and whether it stood.

    EXPERIMENT = Experiment(__file__, __doc__, base=base, arms=arms, checks=checks, metric="rouge1")

    python experiments/full_lora.py --size=smoke|small|paper [--seeds=N] [--model=SOURCE] [--any.field=value]
    python experiments/lab.py table             # the claims tested so far, as a Markdown table
    python experiments/lab.py keep              # copies finished results at `small` into experiments/results
    python experiments/lab.py readme            # writes table and pictures of these into experiments/README.md

What came out is in JAXFT_RUNS/<experiment>/<size>.json, written after every trial: the same command goes on where it
was stopped, and a trial whose recipe changed is made again. One that another experiment has made is taken from its
results. Beside the file lie a table (.md) and a picture (.png).
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import settings
from verdicts import Check, Results, to_json

from jaxft.errors import Error, UsageError, nearest
from jaxft.recipe import Recipe, lay_over, make_recipe, parse_flags, resolve, to_dict

VERSION = 1  # of what trials compute: a higher one makes all of them again
HEADER = re.compile(r"^(Question|Claim|Data|Model|Expected|Settings|Command) +(.*(?:\n {4,}.*)*)", re.MULTILINE)
SEEDS = {"smoke": 2, "small": 3, "paper": 3}


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared: overrides of the base recipe, and how it is carried out (a name in trials.py, or a function).

    `by_seed` gives overrides that differ from seed to seed beside the seed itself, `seeds` how many there are at most.
    """

    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    do: str | Callable = "tune"
    by_seed: Callable[[int], Mapping[str, Any]] = lambda seed: {}
    seeds: int | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A claim and how it is tested; the docstring's header says the claim and the expected number.

    base: size -> a recipe's nested values. arms: size -> arms by name. checks: results -> what the claim rests on.
    metric: the number that is compared. extra: (texts, references) -> more numbers, derive: a trial's numbers -> more
    of them, prepare: what has to be written before recipes can be run. curve: arm -> (line, x) in the picture, x a
    number or the metric that holds it, None for a level; along: what x is. shown: further metrics of the table;
    beside: those that get a panel of their own in the picture.
    """

    file: str
    doc: str
    base: Callable[[str], dict[str, Any]]
    arms: Callable[[str], Mapping[str, Arm]]
    checks: Callable[[Results], Sequence[Check]]
    metric: str
    shown: Sequence[str] = ()
    extra: Callable | None = None
    derive: Callable[[Mapping[str, float]], Mapping[str, float]] | None = None
    prepare: Callable[[Mapping[tuple[str, int], Recipe]], None] = lambda recipes: None
    curve: Callable[[str], tuple[str, float | str] | None] | None = None
    along: str = ""
    beside: Sequence[str] = ()
    seeds: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(SEEDS))

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.file).stem

    @property
    def header(self) -> dict[str, str]:
        """The lines of the docstring's header, in one line each."""
        return {key.lower(): " ".join(text.split()) for key, text in HEADER.findall(self.doc)}

    def recipes(self, size: str, flags: Sequence[str] = (), seeds: int | None = None) -> dict[tuple[str, int], Recipe]:
        """Return the resolved recipe of each arm and seed; `flags` are laid over all of them."""
        if size not in settings.SIZES:
            raise UsageError(f"--size: {size!r}{nearest(size, settings.SIZES)}")
        made, given, arms = {}, parse_flags(flags), self.arms(size)
        if "model.source" in dict(given) and any("model.source" in arm.overrides for arm in arms.values()):
            raise UsageError(f"{self.name} compares models of its own: leave --model out")
        for name, arm in arms.items():
            count = seeds or self.seeds[size]
            for seed in range(min(count, arm.seeds or count)):
                own = {"train.seed": seed, "data.seed": seed, "out": "-"}
                values = json.loads(json.dumps(self.base(size)))
                source = {**arm.overrides, **dict(given)}.get("model.source", "")
                overrides = settings.suited(size, source, arm.overrides)
                lay_over(values, [*overrides.items(), *own.items(), *arm.by_seed(seed).items(), *given])
                recipe = make_recipe(values, name=f"{self.name}, {name}")
                every = recipe.train.eval_every if recipe.train.eval_every is not None else recipe.train.steps
                train = dataclasses.replace(recipe.train, eval_every=every)
                made[name, seed] = resolve(dataclasses.replace(recipe, train=train))
        return made


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run an experiment from the command line; return what its results file holds."""
    own, flags = {"size": "small", "seeds": None, "model": None}, []
    for flag in sys.argv[1:] if argv is None else argv:
        key, _, value = flag.removeprefix("--").partition("=")
        if key in own:
            own[key] = value
        else:
            flags.append(flag)
    if own["model"]:
        flags.append(f"--model.source={own['model']}")
    try:
        return carry_out(experiment, own["size"], flags, int(own["seeds"]) if own["seeds"] else None)
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


def carry_out(experiment: Experiment, size: str, flags: Sequence[str] = (), seeds: int | None = None) -> dict[str, Any]:
    """Run what of an experiment has not been run, and write its results, table and picture."""
    import jax
    import trials
    from fitting import check_data, check_fit, hardware
    from tables import picture, results_table

    recipes, arms = experiment.recipes(size, flags, seeds), experiment.arms(size)
    check_data(experiment.name, size, recipes)
    path = settings.RUNS / experiment.name / f"{size}{_suffix(flags)}.json"
    record = _record(experiment, size, path, recipes)
    left = [key for key, recipe in recipes.items() if _done(record, key) != digest(recipe, arms[key[0]])]
    if any(str(settings.RUNS / settings.TINY) == one.model.source for one in recipes.values()):
        settings.write_tiny_once()
    check_fit(experiment.name, size, {key: recipes[key] for key in left})
    experiment.prepare(recipes)
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(settings.RUNS / ".compiled"))
    record |= hardware() if left else {}
    known = _shared(experiment)
    for arm, seed in list(left):
        key = digest(recipes[arm, seed], arms[arm])
        if isinstance(arms[arm].do, str) and key in known:
            record["arms"].setdefault(arm, {})[str(seed)] = known[key]
            left.remove((arm, seed))
    for group in _groups(left, recipes, arms):
        do = arms[group[0][0]].do
        do = getattr(trials, do) if isinstance(do, str) else do
        began, folder = time.perf_counter(), path.with_suffix("") / re.sub(r"[^\w=]+", "_", group[0][0])
        for place, numbers in do([recipes[key] for key in group], folder, experiment.extra):
            arm, seed = group[place]
            began, took = time.perf_counter(), time.perf_counter() - began
            entry = {"key": digest(recipes[arm, seed], arms[arm]), "commit": record["commit"], "seconds": took}
            numbers |= experiment.derive(numbers) if experiment.derive else {}
            # Those of single tasks are derived from, and not kept.
            entry["numbers"] = {name: value for name, value in numbers.items() if "/" not in name}
            record["arms"].setdefault(arm, {})[str(seed)] = entry
            _write(experiment, record, path)
            shown = numbers.get(experiment.metric)
            print(f"{experiment.name} {size}: {arm}, seed {seed}: {experiment.metric} {shown}", flush=True)
    _write(experiment, record, path, finished=True)
    path.with_suffix(".md").write_text(results_table(record) + "\n")
    picture(experiment, record, path.with_suffix(".png"))
    print(results_table(record))
    return record


def _shared(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return the trials of all experiments by digest; none for an experiment that makes its own numbers of a trial."""
    if experiment.extra or experiment.derive:
        return {}
    files = sorted(path for size in settings.SIZES for path in settings.RUNS.glob(f"*/{size}*.json"))
    arms = [arm for path in files for arm in json.loads(path.read_text())["arms"].values()]
    return {run["key"]: run for arm in arms for run in arm.values()}


def digest(recipe: Recipe, arm: Arm) -> str:
    """Return what a trial is known by: its recipe, how it is carried out, and the weights of a model of our own."""
    do = arm.do if isinstance(arm.do, str) else arm.do.__name__
    return settings.digest(recipe, f"{VERSION} {do}")


def _groups(left, recipes, arms):
    """The trials that go together: as one program where only what a sweep varies differs, else those of an arm."""
    from jaxft.sweep.grid import RANKED, VARY

    groups: dict[str, list] = {}
    for key in left:
        name = key[0]
        if arms[name].do == "tune":
            values = to_dict(recipes[key])
            for section, field in (one.split(".") for one in VARY):
                if section != "method" or values["method"]["name"] in RANKED:
                    values[section].pop(field, None)
            name = json.dumps(values, sort_keys=True)
        groups.setdefault(name, []).append(key)
    return list(groups.values())


def _record(experiment: Experiment, size: str, path: Path, recipes: Mapping) -> dict[str, Any]:
    earlier = json.loads(path.read_text()) if path.exists() else {}
    wanted = {name for name, _ in recipes}
    arms = {name: runs for name, runs in earlier.get("arms", {}).items() if name in wanted}
    for name, runs in arms.items():
        arms[name] = {seed: run for seed, run in runs.items() if (name, int(seed)) in recipes}
    order = list(dict.fromkeys(name for name, _ in recipes))
    return {
        "experiment": experiment.name,
        "size": size,
        "claim": experiment.header.get("claim", ""),
        "expected": experiment.header.get("expected", ""),
        "metric": experiment.metric,
        "shown": list(experiment.shown),
        "models": list(dict.fromkeys(recipe.model.source for recipe in recipes.values())),
        "seeds": len({seed for _, seed in recipes}),
        "order": order,
        **{name: earlier[name] for name in ("command", "commit", "hardware", "versions") if name in earlier},
        "arms": arms,
    }


def _done(record: Mapping, key: tuple[str, int]) -> str | None:
    return record["arms"].get(key[0], {}).get(str(key[1]), {}).get("key")


def _write(experiment: Experiment, record: dict[str, Any], path: Path, finished: bool = False) -> None:
    from jaxft.runs.resources import peak_memory
    from jaxft.training.journal import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    record["peak_memory_bytes"] = peak_memory()
    record["seconds"] = sum(run["seconds"] for runs in record["arms"].values() for run in runs.values())
    record["finished"] = finished
    record["verdict"] = to_json(experiment.checks(Results.read(record))) if finished else None
    write_json(path, record)


def _suffix(flags: Sequence[str]) -> str:
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", flag.partition("=")[2]).strip("-") for flag in flags]
    return "".join(f"_{word}" for word in words)[:80]


def keep() -> list[Path]:
    """Copy finished results at `small` from JAXFT_RUNS into experiments/results; return what was copied."""
    kept = Path(__file__).parent / "results"
    copied = []
    for path in sorted(settings.RUNS.glob("*/small*.json")):
        if json.loads(path.read_text()).get("finished"):
            for one in (path, path.with_suffix(".png")):
                if one.exists():
                    copied.append(kept / f"{path.parent.name}-{one.name}")
                    shutil.copyfile(one, copied[-1])
    return copied


def tell(asked: Sequence[str]) -> str:
    """Return what `table`, `keep` or `readme` says; UsageError for anything else."""
    from tables import finished, paragraphs, rewritten, summary_table

    if list(asked) == ["keep"]:
        return "\n".join(map(str, keep()))
    kept = Path(__file__).parent / "results"
    if list(asked) == ["table"]:
        return summary_table(finished(kept, settings.RUNS))
    if list(asked) == ["readme"]:
        page, records = kept.parent / "README.md", finished(kept)
        section = f"{summary_table(records)}\n\n{paragraphs(records, kept)}"
        page.write_text(rewritten(page.read_text(encoding="utf-8"), section), encoding="utf-8")
        return f"{page}: {len(records)} experiments"
    raise UsageError("usage: python experiments/lab.py table | keep | readme")


if __name__ == "__main__":
    try:
        print(tell(sys.argv[1:]))
    except UsageError as error:
        raise SystemExit(str(error)) from None
