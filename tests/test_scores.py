"""What a run says of its texts and losses: numbers, n, intervals, and whether a change stands."""

import json

import numpy as np
import pytest
from conftest import LLAMA, make_model
from rich.console import Console
from tiny_run import changed, recipe

from jaxft.data import Encoded
from jaxft.errors import Error, UsageError
from jaxft.runs.folder import finished
from jaxft.runs.scores import check_scorable, evidence, loss_scores, task_evidence, text_scores
from jaxft.runs.show import show_scores

IDS = np.arange(3, 7, dtype=np.int32)


def examples(count, task="", references=("yes",), choices=()):
    return [
        Encoded(f"{task}{i}", IDS, IDS, (references[i % len(references)],), task, "t" if task else "", choices)
        for i in range(count)
    ]


def with_metrics(*metrics):
    return changed(recipe("model", "data", "out"), "evaluate", metrics=list(metrics))


def test_a_change_is_compared_over_all_and_task_by_task():
    both = [*examples(20, "a"), *examples(12, "b", ("no",))]
    options = with_metrics("exact_match", "rouge1")
    before = text_scores(options, both, ["yes"] * 8 + ["no"] * 12 + ["no"] * 12)
    after = text_scores(options, both, ["yes"] * 20 + ["no"] * 12)
    found = evidence(before, after)
    assert found["version"] == 2 and found["n"] == 32
    low, high = found["intervals"]["before"]["exact_match"]
    assert low < before.values["exact_match"] == 20 / 32 < high
    change = found["comparison"]["exact_match"]
    assert change["difference"] == 12 / 32 and change["stands"] and change["p"] == 2 / 2**12
    tasks = task_evidence(before, after)
    assert [tasks[name]["n"] for name in "ab"] == [20, 12]
    assert tasks["a"]["comparison"]["exact_match"]["stands"]
    assert not tasks["b"]["comparison"]["exact_match"]["stands"] and tasks["b"]["comparison"]["rouge1"]["p"] == 1
    assert json.loads(json.dumps([found, tasks])) == [found, tasks]
    without = text_scores(options, both, ["yes"] * 32, resamples=0)
    assert without.measured["rouge1"].interval is None


def test_a_run_that_was_not_scored_before_has_intervals_and_no_comparison():
    after = text_scores(with_metrics("rouge1"), examples(5), ["yes", "no"] * 2 + ["yes"])
    found = evidence(type(after)({}, {}), after)
    assert found["comparison"] == {} and found["intervals"]["before"] == {} and "rouge1" in found["intervals"]["after"]


def test_losses_are_resampled_batch_by_batch():
    model = make_model(LLAMA)
    draw = np.random.default_rng(0)
    sums = np.stack([draw.gamma(20, size=10), np.full(10, 8.0)], axis=1)
    whole = loss_scores(model, examples(20), 2, lambda batches: sums)
    assert whole.values["loss"] == pytest.approx(sums[:, 0].sum() / 80)
    one = whole.measured["loss"]
    assert one.n == 20 and one.interval[0] < one.value < one.interval[1]
    better = loss_scores(model, examples(20), 2, lambda batches: sums * [0.9, 1])
    assert evidence(whole, better)["comparison"]["loss"]["stands"]
    few = loss_scores(model, [*examples(4, "a"), *examples(4, "b")], 2, lambda batches: (6.0, 3.0))
    assert few.tasks == {"a": {"loss": 2.0}, "b": {"loss": 2.0}}
    assert few.measured["loss"].interval is None and evidence(few, few)["comparison"] == {}


def test_metrics_that_do_not_fit_are_refused_before_anything_is_run():
    labels = examples(6, "a", ("yes", "no", "maybe"))
    with pytest.raises(UsageError, match=r"evaluate\.metrics: a: f1 is about one of two labels"):
        check_scorable(with_metrics("f1"), labels)
    check_scorable(with_metrics("macro_f1", "rouge1"), labels)
    check_scorable(with_metrics("f1"), examples(6, "a", ("yes", "no"), ("no", "yes")))
    with pytest.raises(UsageError, match="has no number"):
        check_scorable(with_metrics("pearson"), labels)
    mixed = [*examples(4, "n", ("1.5",)), *labels]
    with pytest.raises(UsageError, match="has no number"):
        check_scorable(with_metrics("pearson"), mixed)


def test_the_table_shows_n_intervals_and_what_stands():
    both = [*examples(20, "a"), *examples(12, "b", ("no",))]
    options = with_metrics("exact_match", "rouge1")
    before = text_scores(options, both, ["yes"] * 8 + ["no"] * 12 + ["no"] * 12)
    after = text_scores(options, both, ["yes"] * 20 + ["no"] * 12)
    found = task_evidence(before, after)
    tasks = {
        name: {"train": {"examples": 7}, "before": before.tasks[name], "after": after.tasks[name], **found[name]}
        for name in "ab"
    }
    summary = {
        "before": before.values,
        "after": after.values,
        "scored_on": {"split": "test", "examples": 32},
        "provenance": after.provenance,
        "tasks": tasks,
        **evidence(before, after),
    }
    console = Console(width=80, record=True)
    show_scores(summary, console)
    text = console.export_text()
    for part in (
        "n = 32",
        "0.6250",
        "0.453, 0.771",
        "+0.3750",
        "yes",
        "stands",
        "0.400 > 1.000",
        "*",
        "<0.001",
        "exact match|",
    ):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 80


def test_a_summary_of_another_version_is_refused(tmp_path):
    assert finished(tmp_path) is None
    path = tmp_path / "summary.json"
    path.write_text('{"before": {}, "after": {}}')
    with pytest.raises(UsageError, match=r"summary\.json is of version 1 and this jaxft writes 2: set another `out`"):
        finished(tmp_path)
    path.write_text('{"version": 2')
    with pytest.raises(Error, match="cannot be read"):
        finished(tmp_path)
    path.write_text('{"version": 2, "n": 3}')
    assert finished(tmp_path)["n"] == 3
