"""Intervals cover, tests are wrong as often as they say, and all of it is the same for the same seed."""

import numpy as np
import pytest
import scipy.stats

from jaxft.errors import UsageError
from jaxft.evaluation.metrics import measure, score
from jaxft.evaluation.resampling import interval, resampled
from jaxft.evaluation.statistics import (
    Comparison,
    compare,
    compare_all,
    holm,
    mcnemar,
    over_seeds,
    paired_bootstrap,
    permutation,
)


def scores(values, **options):
    return measure(np.asarray(values, np.float64), "made up", **options)


def test_an_interval_of_95_percent_covers_the_truth_in_about_95_of_100():
    draw = np.random.default_rng(0)
    means, shares = [], []
    for seed in range(500):
        low, high = interval(draw.exponential(size=(60, 1)), resamples=400, seed=seed)
        means.append(low <= 1 <= high)
        low, high = measure(draw.random(30) < 0.9, "right or wrong").interval
        shares.append(low <= 0.9 <= high)
    assert 0.90 <= np.mean(means) <= 0.99, np.mean(means)
    assert 0.92 <= np.mean(shares) <= 0.99, np.mean(shares)


def test_the_bootstraps_deviation_is_the_standard_error():
    rows = np.random.default_rng(1).normal(size=(200, 1))
    found = resampled(rows, resamples=4000).std()
    assert found == pytest.approx(rows.std() / np.sqrt(200), rel=0.05)


def test_sums_of_weighted_rows_are_the_metric_of_the_drawn_examples():
    predictions = ["a b c d e", "b c d e", "x y z w", "a b c d", "yes"] * 3
    references = [["a b c d f"], ["b c d e f"], ["x y w z"], ["a b c d"], ["yes"]] * 3
    one = score(predictions, references, ["bleu"])["bleu"]
    draws = np.random.default_rng(0).integers(0, 15, (20, 15))
    for drawn, value in zip(draws, resampled(one.rows, one.of, resamples=20), strict=True):
        again = score([predictions[i] for i in drawn], [references[i] for i in drawn], ["bleu"], resamples=0)
        assert value == pytest.approx(again["bleu"].value, abs=1e-9)


def test_what_does_not_decompose_is_drawn_whole_and_alike():
    draw = np.random.default_rng(2)
    y = draw.normal(size=40)
    pairs = [f"{one:.3f}" for one in y + draw.normal(size=40)], [[f"{one:.3f}"] for one in y]
    got = score(*pairs, ["pearson", "spearman"])
    rows = got["spearman"].rows
    drawn = np.random.default_rng(0).integers(0, 40, (1000, 40))[0]
    first = resampled(rows, got["spearman"].of, whole=True)[0]
    assert first == pytest.approx(scipy.stats.spearmanr(rows[drawn, 0], rows[drawn, 1]).statistic)
    first = resampled(got["pearson"].rows, got["pearson"].of)[0]
    assert first == pytest.approx(scipy.stats.pearsonr(rows[drawn, 0], rows[drawn, 1]).statistic)
    low, high = got["spearman"].interval
    assert -1 <= low < got["spearman"].value < high <= 1


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly():
    rows = np.random.default_rng(3).random((100, 1))
    assert interval(rows) == interval(rows) != interval(rows, seed=1)
    assert interval(rows) == pytest.approx(interval(rows, seed=1), abs=0.02)
    narrow, wide = interval(rows, level=0.5), interval(rows)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_all_right_is_not_certain_and_one_example_says_little():
    assert scores([1.0] * 10).interval == pytest.approx((0.7225, 1), abs=1e-4), "Wilson"
    assert scores([0.0]).interval == pytest.approx((0, 0.7935), abs=1e-4)
    assert scores([0.5]).interval is None and scores([0.5, 0.7], resamples=0).interval is None
    with pytest.raises(UsageError, match="no examples"):
        scores([])


def test_a_permutation_test_is_wrong_one_time_in_twenty():
    draw = np.random.default_rng(4)
    ps = []
    for seed in range(400):
        a, b = draw.normal(size=(2, 40)) + draw.normal(size=40)
        ps.append(permutation(scores(a, resamples=0), scores(b, resamples=0), resamples=400, seed=seed))
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.085
    assert 0.4 < np.mean(ps) < 0.6


def test_permutation_is_scipys_on_a_few_examples():
    draw = np.random.default_rng(5)
    a, b = draw.normal(0.6, 1, 9), draw.normal(size=9)
    exact = scipy.stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert permutation(scores(a), scores(b), resamples=20_000) == pytest.approx(exact, abs=0.01)
    swapped = permutation(scores(b), scores(a), resamples=20_000)
    assert swapped == pytest.approx(exact, abs=0.01)


def test_mcnemar_is_the_binomial_test_of_what_one_alone_has_right():
    a = scores([1] * 20 + [1] * 9 + [0] * 2 + [0] * 5)
    b = scores([1] * 20 + [0] * 9 + [1] * 2 + [0] * 5)
    assert mcnemar(a, b) == pytest.approx(scipy.stats.binomtest(2, 11).pvalue) == mcnemar(b, a)
    # By hand: 2 (1 + 11 + 55) / 2^11.
    assert mcnemar(a, b) == pytest.approx(2 * 67 / 2048)
    assert mcnemar(a, a) == 1
    with pytest.raises(UsageError, match="right or wrong"):
        mcnemar(scores([0.5, 1]), scores([1, 1]))


def test_holm_by_a_worked_example():
    # Ordered 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([0.02]) == [0.02] and holm([]) == []


def test_a_comparison_says_what_stands():
    draw = np.random.default_rng(6)
    common = draw.normal(size=80)
    a, b = scores(common + 0.3 + 0.2 * draw.normal(size=80)), scores(common + 0.2 * draw.normal(size=80))
    found = compare(a, b)
    assert found.test == "permutation" and found.stands and found.p < 0.01
    assert found.low < found.difference == a.value - b.value < found.high and found.low > 0
    assert a.interval[0] < b.interval[1], "unpaired, the intervals overlap"
    back = compare(b, a)
    assert (back.difference, back.low, back.high) == pytest.approx((-found.difference, -found.high, -found.low))
    bootstrap = compare(a, b, "bootstrap")
    assert bootstrap.p == paired_bootstrap(a, b) == pytest.approx(2 / 1001)
    same = compare(a, a)
    assert same == Comparison(0, 0, 0, 1, "permutation", False)


def test_comparisons_of_texts():
    references = [[f"the cat number {i} sat on the mat"] for i in range(30)]
    right = [one[0] for one in references]
    wrong = [text.replace("cat", "dog") if i % 2 else text for i, text in enumerate(right)]
    names = ["bleu", "rougeL", "chrf_mean", "exact_match"]
    found = compare_all(*(score(texts, references, names) for texts in (right, wrong)))
    assert list(found) == names and found["exact_match"].test == "mcnemar"
    assert found["exact_match"].p == pytest.approx(2 * 0.5**15)
    assert all(one.stands and one.difference > 0 for one in found.values())


def test_many_comparisons_ask_more_of_each():
    a, b = scores([1] * 7 + [0] * 5), scores([0] * 12)
    alone = compare_all({"m": a}, {"m": b})["m"]
    assert alone.p == 2 / 2**7 and alone.stands
    among = compare_all({"m": a} | {f"{i}": b for i in range(5)}, {"m": b} | {f"{i}": b for i in range(5)})
    assert among["m"].p == alone.p and not among["m"].stands, "Holm: 6 times 0.0156"
    assert compare_all({"m": a, "x": a._replace(rows=None)}, {"m": b, "x": b, "y": b}).keys() == {"m"}


def test_seeds_by_hand():
    found = over_seeds([0.40, 0.42, 0.44])
    assert (found.mean, found.sd, found.n) == pytest.approx((0.42, 0.02, 3))
    half = 4.302652729749464 * 0.02 / np.sqrt(3)  # Student's t of 2 degrees of freedom at 0.975
    assert found.interval == pytest.approx((0.42 - half, 0.42 + half))
    assert str(found) == "0.4200 ± 0.0200 (n=3)"
    assert over_seeds([0.4])[1:] == (None, 1, None)


def test_what_cannot_be_compared():
    with pytest.raises(UsageError, match="scores of 3 and 2 examples"):
        compare(scores([1, 0, 1]), scores([1, 0]))
    with pytest.raises(UsageError, match="unknown test 'mcnemer'; did you mean 'mcnemar'"):
        compare(scores([1, 0]), scores([1, 0]), "mcnemer")
    with pytest.raises(UsageError, match="no rows"):
        compare(scores([1, 0])._replace(rows=None), scores([1, 0]))
    with pytest.raises(UsageError, match="one for each seed"):
        over_seeds([])
