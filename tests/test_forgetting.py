"""What is measured of forgetting: definitions, the divergence, probes in a run, and early stopping on them."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
import tiny_run
from conftest import apply
from rich.console import Console

from jaxft.data.probes import KINDS, probes
from jaxft.data.probes.texts import PASSAGES, PROMPTS
from jaxft.data.probes.words import FALSE, TRUE
from jaxft.errors import UsageError
from jaxft.evaluation.forgetting import (
    Probed,
    average_forgetting,
    backward_transfer,
    forgetting,
    forward_transfer,
    kl_to_base,
    mean_score,
    plot_gain_forgetting,
    plot_matrix,
    text_loss,
)
from jaxft.evaluation.forgetting.divergence import per_token
from jaxft.evaluation.metrics import measure
from jaxft.methods.peft import load_adapter
from jaxft.models import T5
from jaxft.pretrained import load
from jaxft.recipe import ProbesRecipe, StopRecipe, load_recipe, make_recipe, to_dict
from jaxft.runs import run
from jaxft.runs.probes import Stopper, probe_steps, read_probes
from jaxft.runs.sequence import sequence
from jaxft.runs.show import show_scores
from jaxft.training.journal import read_lines
from jaxft.training.progress import Progress

QUIET = Progress(quiet=True)
PROBES = ProbesRecipe(tasks=["probes/facts", "probes/capitals", "support"], examples=4, tokens=3, every=3)


# Definitions.


def test_transfers_of_a_matrix():
    """Three stages: the numbers are those of the papers' formulas by hand."""
    scores = [[0.1, 0.2, 0.3], [0.9, 0.25, 0.2], [0.7, 0.8, 0.35], [0.8, 0.5, 0.6]]
    assert average_forgetting(scores) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.5)) / 2)
    assert backward_transfer(scores) == pytest.approx(((0.8 - 0.9) + (0.5 - 0.8)) / 2)
    assert forward_transfer(scores) == pytest.approx(((0.25 - 0.2) + (0.35 - 0.3)) / 2)
    assert average_forgetting([[0.1], [0.9]]) == backward_transfer([[0.1], [0.9]]) == 0
    with pytest.raises(UsageError, match="no matrix of stages x tasks"):
        backward_transfer([[0.1, 0.2], [0.3, 0.4]])


def probed(right, bleu, losses, text=None, kl=None):
    scores = {"a": measure(np.array(right), "accuracy"), "b": measure(np.array(bleu), "bleu")}
    rows = np.array([[loss, 2] for loss in losses])
    return Probed(
        scores | {"c": measure(rows, "loss", per_token)}, {"a": "accuracy", "b": "bleu", "c": "loss"}, text, kl
    )


def test_what_changed_between_two_times():
    texts = [measure(np.array(rows), "", per_token) for rows in ([[3.0, 2], [5, 2]], [[4.0, 2], [6, 2]])]
    kl = measure(np.array([[0.2, 2], [0.6, 2]]), "", per_token)
    before = probed([1, 1, 1, 1, 0, 1], [40.0, 50.0], [2.0, 4.0], texts[0])
    after = probed([0, 0, 0, 0, 0, 0], [30.0, 40.0], [3.0, 5.0], texts[1], kl)
    found = forgetting(before, [{"a": 1.0, "b": 45.0, "c": 9.0}], after)
    change = found["probes"]["a"]["change"]
    assert change["value"] == pytest.approx(-5 / 6) and change["low"] <= -5 / 6 <= change["high"] < 0
    assert change["p"] == pytest.approx(2 / 2**5)  # McNemar: five of five
    assert found["probes"]["b"]["before"]["value"] == 45 and found["probes"]["c"]["n"] == 2
    # What is a loss is not in the averages, and percent count as hundredths.
    assert found["backward_transfer"] == pytest.approx((-5 / 6 - 0.1) / 2)
    assert found["average_forgetting"] == pytest.approx((1.0 + 0.1) / 2)
    low, high = found["backward_transfer_interval"]
    assert low <= found["backward_transfer"] <= high < 0
    assert found["kl_to_base"]["value"] == pytest.approx(0.8 / 4) and found["kl_to_base"]["n"] == 2
    assert found["text_loss"]["change"]["value"] == pytest.approx(0.5) and found["text_loss"]["n"] == 2
    assert mean_score({"a": 0.5, "b": 45.0, "c": 9.0}, before.metrics) == pytest.approx((0.5 + 0.45) / 2)
    with pytest.raises(UsageError, match="of other probes"):
        forgetting(before, [], Probed({}, {}))


def test_stopping_counts_evaluations_in_a_row():
    stopper = Stopper(start=0.5, drop=0.1, patience=2)
    assert [stopper.told(step, mean) for step, mean in ((1, 0.4), (2, 0.39), (3, 0.6), (4, 0.1))] == [False] * 4
    assert stopper.good == 3 and not stopper.stopped
    assert stopper.told(5, 0.3) and stopper.good == 3


# The divergence and the loss on text.


def test_kl_and_text_loss_are_those_of_whole_logits(model):
    other = jax.tree.map(lambda leaf: leaf * 1.1, model.params)
    random = np.random.default_rng(0)
    texts = [(random.integers(3, 100, 5).tolist(), random.integers(3, 100, n).tolist()) for n in (4, 7, 2)]
    kl = kl_to_base(model, {"params": model.params}, {"params": other}, texts, batch_size=2)
    loss = text_loss(model, {"params": other}, texts)
    rows, losses = [], []
    for given, counted in texts:
        logits = [whole(model, params, given, counted) for params in (model.params, other)]
        p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in logits)
        rows.append([(p * np.log(p / q)).sum(), len(counted)])
        losses.append([-np.log(q[np.arange(len(counted)), counted]).sum(), len(counted)])
    np.testing.assert_allclose(kl.rows, rows, rtol=1e-4)
    np.testing.assert_allclose(loss.rows, losses, rtol=1e-4)
    assert kl.value == pytest.approx(np.sum(rows, axis=0)[0] / 13, rel=1e-4) and kl.n == 3
    assert abs(kl_to_base(model, {"params": other}, {"params": other}, texts, batch_size=2).value) < 1e-6


def whole(model, params, given, counted):
    """Logits `[counted, V]` in float64 of a text alone."""
    t5 = isinstance(model.architecture, T5)
    tokens = [0, *counted[:-1]] if t5 else [*given, *counted[:-1]]
    batch = row("", tokens) | (row("encoder_", given) if t5 else {})
    return np.asarray(apply(model, {"params": params}, batch), np.float64)[0, -len(counted) :]


def row(prefix, tokens):
    arrays = {"tokens": tokens, "positions": range(len(tokens)), "segments": [1] * len(tokens)}
    return {f"{prefix}{name}": np.array([values], np.int32) for name, values in arrays.items()}


# The built-in probes.


def test_probes_are_made_anew_the_same_and_have_their_answer_among_the_options():
    rows = probes(3, 20)
    assert rows == probes(3, 20) and {row["probe"] for row in rows} == set(KINDS)
    assert len({row["id"] for row in rows}) == len(rows) == 20 * len(KINDS)
    for one in rows:
        assert one["answer"] in one["options"] and len(set(one["options"])) == len(one["options"]) >= 2
    firsts = np.mean([one["options"][0] == one["answer"] for one in probes(0, 24)])
    assert 0.35 < firsts < 0.6  # where the answer stands says nothing
    assert not set(TRUE) & set(FALSE) and len(set(PASSAGES)) == len(PASSAGES) >= 10 and len(set(PROMPTS)) == 32


def test_sums_and_orders_are_right():
    by_kind = {kind: [one for one in probes(1, 30) if one["probe"] == kind] for kind in KINDS}
    for one in by_kind["arithmetic"]:
        a, word, b = one["question"].removeprefix("What is ").rstrip("?").split()
        assert int(one["answer"]) == int(a) + int(b) * (1 if word == "plus" else -1) >= 0
    for one in by_kind["sorting"]:
        numbers = [int(n) for n in one["question"].partition(": ")[2].rstrip(".").split(", ")]
        assert one["answer"] == ", ".join(map(str, sorted(numbers)))
    for one in by_kind["reversing"]:
        words = one["question"].partition(": ")[2].rstrip(".").split(", ")
        assert one["answer"] == ", ".join(words[::-1])


# In a run.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    return tiny_run.write_model(folder / "model"), tiny_run.write_rows(folder / "data")


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    recipe = dataclasses.replace(tiny_run.recipe(*place, tmp_path_factory.mktemp("done"), eval_every=0), probes=PROBES)
    return recipe, run(recipe, progress=QUIET)


def test_a_run_says_what_was_forgotten(done):
    recipe, summary = done
    found = summary["forgetting"]
    assert list(found["probes"]) == ["probes/facts", "probes/capitals", "support"]
    assert [found["probes"][name]["metric"] for name in found["probes"]] == ["accuracy", "accuracy", "loss"]
    for probe in found["probes"].values():
        assert probe["n"] == 4 and {"value", "low", "high"} == set(probe["before"]) == set(probe["after"])
        assert probe["change"]["value"] == pytest.approx(probe["after"]["value"] - probe["before"]["value"])
    assert found["kl_to_base"]["value"] > 0.01 and found["kl_to_base"]["n"] == 4
    assert found["text_loss"]["n"] == 4
    rows = read_lines(f"{recipe.out}/metrics.jsonl")
    asked = {row["step"]: row for row in rows if "probes" in row}
    assert sorted(asked) == [0, 3, 6, 8] and "validation_loss" not in asked[3]
    for name, probe in found["probes"].items():
        assert asked[0]["probes"][name] == probe["before"]["value"]
        assert asked[8]["probes"][name] == probe["after"]["value"]
    assert asked[0]["probes"]["support"] != asked[8]["probes"]["support"]
    assert "probe_kl_to_base" not in asked[0] and asked[8]["probe_kl_to_base"] == found["kl_to_base"]["value"]


def test_probes_run_the_programs_that_ran_before(done):
    """But for the divergence, which is not asked of the base, and once."""
    compilations = done[1]["forgetting"]["compilations"]
    assert compilations["before"] > 0 and compilations["later"] <= 2


def test_stopped_on_the_probes_the_last_good_weights_are_saved(done, place, tmp_path):
    """The means are made up, by the losses that they stand for; started again, a stopped run stays where it was."""
    recipe = dataclasses.replace(done[0], out=str(tmp_path / "run"))
    recipe = dataclasses.replace(recipe, probes=dataclasses.replace(PROBES, every=2, stop=StopRecipe(drop=0.01)))
    import jaxft.runs.fitting as module

    means, told = [0.6, 0.5, 0.4], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Probing, "start", 0.5)
        patch.setattr(
            module, "mean_score", lambda values, _: told.setdefault(values["support"], (means or [None]).pop(0))
        )
        summary = run(recipe, progress=QUIET)
        (tmp_path / "run" / "summary.json").unlink()
        again = run(recipe, progress=QUIET)
    for name in ("stopped", "after"):
        assert again[name] == summary[name]
    assert again["forgetting"]["probes"] == summary["forgetting"]["probes"] and again["resumed_from"] == 6
    assert summary["stopped"] == {"at": 6, "kept": 4, "by": "probes.stop"}
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert max(row["step"] for row in rows) == 6
    assert summary["forgetting"]["probes"]["support"]["after"]["value"] == next(
        row["probes"]["support"] for row in rows if row["step"] == 4 and "probes" in row
    )
    checkpoint = load_adapter(tmp_path / "run" / "adapter", load(recipe.model.source))[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpoint))


def test_when_probes_are_asked():
    recipe = dataclasses.replace(tiny_run.recipe("model", "data", "out"), probes=PROBES)
    for every, steps, expected in ((None, 8, {4, 8}), (None, 1, {1}), (0, 8, {8}), (3, 8, {3, 6, 8}), (4, 8, {4, 8})):
        one = dataclasses.replace(recipe, probes=dataclasses.replace(PROBES, every=every))
        assert set(probe_steps(one, steps)) == expected
    assert not probe_steps(dataclasses.replace(recipe, probes=ProbesRecipe(enabled=False)), 8)


# What cannot be asked, seen before a model is loaded.


def asking(**fields):
    return dataclasses.replace(
        tiny_run.recipe("no/model", "no/data", "out"), probes=dataclasses.replace(PROBES, **fields)
    )


def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(tmp_path):
    for name, text in (("empty", " \n\n"), ("bytes", None)):
        (tmp_path / name).write_bytes(b"\xff\xfe\xff" if text is None else text.encode())
    (tmp_path / "rows.jsonl").write_text('{"q": "Is it?", "a": null}\n')
    record = {"name": "mine", "source": str(tmp_path / "rows.jsonl"), "splits": {"test": "train"}, "completion": "a",
              "choices": ["yes", "no"], "templates": {"ask": "{{ q }}"}}  # fmt: skip
    trained = record | {"splits": {"train": "train"}}
    for fields, match in (
        ({"tasks": ["probes/fact"]}, "probes/facts"),
        ({"tasks": [record]}, r"probes\.tasks: mine: .*rows\.jsonl.*a probe needs its labels"),
        ({"tasks": [trained]}, "mine has neither a test nor a validation split"),
        ({"tasks": ["probes/facts", "probes/*"]}, r"probes\.tasks: probes/facts is there twice"),
        ({"text": str(tmp_path / "empty")}, r"probes\.text: .*empty is empty"),
        ({"text": str(tmp_path / "absent")}, r"probes\.text: .*absent cannot be read"),
        ({"prompts": str(tmp_path / "empty")}, r"probes\.prompts: .*empty is empty"),
        ({"prompts": str(tmp_path / "bytes")}, "it is not UTF-8"),
        ({"tasks": [], "text": None, "prompts": None}, "nothing to ask"),
        ({"enabled": False, "stop": StopRecipe(drop=0.1)}, "no probes to stop on"),
        ({"tasks": ["support"], "stop": StopRecipe(drop=0.1)}, "no probe is scored in 0..1"),
        ({"every": 0, "stop": StopRecipe(drop=0.1)}, r"probes\.every is 0"),
    ):
        with pytest.raises(UsageError, match=match):
            read_probes(asking(**fields))
    assert read_probes(asking(enabled=False)) is None


def test_probes_are_on_unless_a_recipe_says_no():
    values = to_dict(asking())
    del values["probes"]
    assert make_recipe(values).probes == ProbesRecipe() and make_recipe(values).probes.enabled
    assert not make_recipe(values | {"probes": False}).probes.enabled
    assert not load_recipe(None, ["--model.source=m", "--data.tasks=[support]", "--probes=false"]).probes.enabled
    with pytest.raises(UsageError, match=r"probes\.stop\.drop"):
        make_recipe(values | {"probes": {"stop": {"drop": 0}}})
    with pytest.raises(UsageError, match=r"probes\.exmples.*probes\.examples"):
        make_recipe(values | {"probes": {"exmples": 3}})


# Pictures.


def test_the_terminal_shows_what_was_forgotten(done):
    console = Console(record=True, width=120, quiet=False, file=io.StringIO())
    show_scores(done[1], console)
    shown, found = console.export_text(), done[1]["forgetting"]
    assert "probes/capitals" in shown and "plain text" in shown
    assert f"mean change of the probes {found['backward_transfer']:+.3f}" in shown
    assert f"KL(base || tuned) {found['kl_to_base']['value']:.4f} nats" in shown


def test_pictures(done, tmp_path):
    recipe, summary = done
    plot_gain_forgetting([recipe.out], tmp_path / "gain.png")
    plot_gain_forgetting({"lora": summary, "again": summary}, tmp_path / "two.png", metric="chrf")
    plot_matrix([[0.1, 0.2], [0.8, 0.3], [0.7, 0.9]], ["before", "a", "b"], ["a", "b"], tmp_path / "matrix.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("gain.png", "two.png", "matrix.png"))
    without = json.loads(json.dumps(summary))
    del without["forgetting"]
    for runs, match in (
        ({"lora": without}, "lora: its summary has no forgetting"),
        ([tmp_path], "the run is not finished"),
        ({}, "no runs"),
    ):
        with pytest.raises(UsageError, match=match):
            plot_gain_forgetting(runs, tmp_path / "no.png")
    with pytest.raises(UsageError, match="but 2 stages"):
        plot_matrix([[0.1]], ["a", "b"], ["a"], tmp_path / "no.png")


@pytest.mark.slow  # two runs: 2026-11-22
def test_a_sequence_starts_each_stage_where_the_last_one_ended(place, tmp_path):
    record = {"source": str(place[1]), "completion": "summary", "metrics": ["rouge1"]}
    tasks = [{"name": name, **record, "templates": {"a": text + "\n{{ dialogue }}"}}
             for name, text in (("one", "Summarise:"), ("two", "What happens?"))]  # fmt: skip
    recipe = dataclasses.replace(tiny_run.recipe(*place, tmp_path, eval_every=0, steps=2), probes=PROBES)
    found = sequence(recipe, tasks, tmp_path, progress=QUIET)
    assert np.shape(found["scores"]) == (3, 2) and found["metrics"] == {"one": "loss", "two": "loss"}
    first, second = (json.loads((tmp_path / f"stage{i}" / "summary.json").read_text()) for i in (1, 2))
    assert found["scores"][2][1] == second["forgetting"]["probes"]["two"]["after"]["value"]
    ended = {name: probe["after"]["value"] for name, probe in first["forgetting"]["probes"].items()}
    began = {name: probe["before"]["value"] for name, probe in second["forgetting"]["probes"].items()}
    assert began == pytest.approx(ended, rel=1e-5)
    fallen = found["scores"][2][0] - found["scores"][1][0]
    assert (tmp_path / "sequence.png").exists() and found["average_forgetting"] == pytest.approx(fallen)
    with pytest.raises(UsageError, match="name two or more"):
        sequence(recipe, tasks[:1], tmp_path)
