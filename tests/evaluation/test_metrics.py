"""The metrics against direct computations in NumPy, closed forms, and the jackknife against leaving out by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import t

from sddpm.errors import UserError
from sddpm.evaluation.metrics import (
    METRICS,
    Features,
    find_metrics,
    frechet,
    inception_score,
    kid,
    precision,
    precision_recall,
    recall,
)
from sddpm.evaluation.metrics.score import GROUPS, group, membership
from sddpm.evaluation.statistics import Gaussian


def normal(count, dim, seed, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(count, dim)) + shift).astype(np.float32)


def features(rows):
    return Features("test", rows)


def check_interval(score, metric, rows, within=(-np.inf, np.inf)):
    """Against the metric computed anew on the rows without each group."""
    left = [metric(np.delete(rows, group(g, len(rows)), 0)) for g in range(GROUPS)]
    error = np.sqrt((GROUPS - 1) * np.var(left))
    half = t.ppf(0.975, GROUPS - 1) * error
    assert error > 0
    assert score.standard_error == pytest.approx(error, rel=1e-6)
    low, high = np.clip((score.value - half, score.value + half), *within)
    assert score.interval == (pytest.approx(low, rel=1e-3), pytest.approx(high, rel=1e-3))


def test_groups_are_even_fixed_and_in_no_order():
    member = membership(1010)
    assert np.array_equal(member, membership(1010))
    assert set(np.bincount(member)) == {50, 51} and len(np.bincount(member)) == GROUPS
    assert np.array_equal(np.concatenate([group(g, 1010) for g in range(GROUPS)]), np.argsort(member, kind="stable"))
    # Samples of ten classes in turn: no group is short of a class, as every 20th sample would be.
    present = [len(set(group(g, 1010) % 10)) for g in range(GROUPS)]
    assert min(present) >= 8


def test_frechet_and_its_interval():
    x, y = normal(200, 6, 0), normal(300, 6, 1, shift=0.3)
    target = features(y)
    found = frechet(features(x), target, interval=True)
    # By the eigenvalues of the product of the covariances, which is not symmetric, in NumPy.
    s, t_ = np.cov(x.astype(np.float64), rowvar=False), np.cov(y.astype(np.float64), rowvar=False)
    apart = np.square(x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)).sum()
    roots = np.sqrt(np.linalg.eigvals(s @ t_).real.clip(0)).sum()
    assert found.value == pytest.approx(apart + np.trace(s + t_) - 2 * roots, rel=1e-9)
    check_interval(found, lambda rows: frechet(features(rows), target).value, x, (0, np.inf))


def test_frechet_between_gaussians_in_closed_form():
    """Of commuting covariances: sum (m_i - n_i)^2 + (s_i - t_i)^2 (Dowson and Landau 1982), to the error of 4,000
    samples a side, and exactly where the statistics are given."""
    m, s = np.array([0.5, -1.0, 0.0]), np.array([1.0, 2.0, 0.5])
    n, t_ = np.array([0.0, 0.0, 1.0]), np.array([1.5, 1.0, 0.5])
    exact = np.square(m - n).sum() + np.square(s - t_).sum()
    target = Features("test", None, Gaussian(torch.from_numpy(n), torch.from_numpy(np.diag(t_**2))))
    known = Features("test", None, Gaussian(torch.from_numpy(m), torch.from_numpy(np.diag(s**2))))
    assert frechet(known, target).value == pytest.approx(exact, rel=1e-12)
    drawn = np.random.default_rng(0).normal(size=(4000, 3)) * s + m
    assert frechet(features(drawn), target).value == pytest.approx(exact, rel=0.05)


def test_frechet_refuses_fewer_vectors_than_features():
    big = features(normal(50, 10, 0))
    for few in (10, 3):
        with pytest.raises(UserError, match=f"{few} samples are too few .* more than 10"):
            frechet(features(normal(few, 10, 1)), big)
        with pytest.raises(UserError, match=f"{few} reference images are too few"):
            frechet(big, features(normal(few, 10, 1)))
    assert frechet(features(normal(11, 10, 1)), big).value > 0


def test_frechet_refuses_other_features():
    known = Gaussian(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    with pytest.raises(UserError, match="4 features, the samples 3"):
        frechet(features(normal(50, 3, 0)), Features("test", None, known))


def score_by_definition(logits, splits):
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        scores.append(np.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    return np.mean(scores), np.std(scores)


def test_inception_score():
    logits = normal(103, 8, 2) * 3
    found = inception_score(features(logits), splits=4, interval=True)
    assert (found.value, found.std) == pytest.approx(score_by_definition(logits, 4), rel=1e-9)

    def of_the_rows_left_in_each_split(rows):
        left = {row.tobytes() for row in rows}
        parts = [[x for x in logits[i * 103 // 4 : (i + 1) * 103 // 4] if x.tobytes() in left] for i in range(4)]
        return np.mean([score_by_definition(np.array(part), 1)[0] for part in parts])

    check_interval(found, of_the_rows_left_in_each_split, logits, (1, np.inf))


def test_inception_score_at_its_limits():
    certain = np.repeat(np.eye(5, dtype=np.float32) * 1000, 4, 0)  # 5 classes, each sure, equally often
    assert inception_score(features(certain), splits=1).value == pytest.approx(5)
    assert inception_score(features(np.zeros((9, 5), np.float32)), splits=3).value == pytest.approx(1)
    with pytest.raises(UserError, match="3 samples, 10 splits"):
        inception_score(features(certain[:3]))
    with pytest.raises(UserError, match="fewer than 20 splits, not 20"):
        inception_score(features(normal(400, 3, 0)), splits=20, interval=True)


def mmd_by_definition(x, y):
    """The U-statistic, pair by pair."""
    k = lambda a, b: (float(a.astype(np.float64) @ b.astype(np.float64)) / len(a) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    among = lambda z: sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j)  # noqa: E731
    return among(x) / (n * (n - 1)) + among(y) / (m * (m - 1)) - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_of_whole_sets_is_the_u_statistic():
    x, y = normal(40, 5, 3), normal(40, 5, 4, shift=0.5)
    found = kid(features(x), features(y), subsets=2, subset_size=1000, interval=True)
    assert found.details["subset_size"] == 40
    assert found.value == pytest.approx(mmd_by_definition(x, y), rel=1e-9)
    check_interval(found, lambda rows: mmd_by_definition(rows, y), x)


def test_kid_of_subsets():
    x, y = features(normal(300, 5, 5)), features(normal(200, 5, 6))
    found = kid(x, y, subsets=50, subset_size=40)
    rng = np.random.default_rng(0)
    values = [
        mmd_by_definition(x.rows[rng.choice(300, 40, replace=False)], y.rows[rng.choice(200, 40, replace=False)])
        for _ in range(3)
    ]
    assert kid(x, y, subsets=3, subset_size=40).value == pytest.approx(np.mean(values), rel=1e-9)
    assert kid(x, y, subsets=3, subset_size=39).standard_error is None  # too few for the jackknife's 20 groups
    assert abs(found.value) < 4 * found.standard_error + 0.05  # unbiased: near 0 for equal distributions


def test_the_standard_error_of_kid_is_that_of_other_samples():
    """Samples drawn anew 40 times against one reference: their values spread as the standard error of each says, which
    std / sqrt(subsets), how far other subsets of the same samples lie apart, falls short of."""
    reference = features(normal(400, 4, 0, shift=0.3))
    found = [kid(features(normal(400, 4, 100 + i)), reference, subsets=20, subset_size=200) for i in range(40)]
    spread = np.std([each.value for each in found], ddof=1)
    assert 0.7 < np.mean([each.standard_error for each in found]) / spread < 1.3
    assert np.mean([each.std for each in found]) / 20**0.5 < 0.5 * spread
    assert all(each.interval is None for each in found)


def test_kid_expectation_has_a_closed_form():
    # In one dimension with x = 0 and y = c: k(0, 0) + k(c, c) - 2 k(0, c) = 1 + (c^2 + 1)^3 - 2.
    zero, two = np.zeros((30, 1), np.float32), np.full((30, 1), 2, np.float32)
    assert kid(features(zero), features(two), subsets=1).value == pytest.approx(1 + 125 - 2)


def test_kid_refuses():
    x = features(normal(30, 5, 7))
    with pytest.raises(UserError, match="at least 1 subset"):
        kid(x, x, subsets=0)
    with pytest.raises(UserError, match="same number of features"):
        kid(x, features(normal(30, 4, 7)))
    with pytest.raises(UserError, match="at least 40 images"):
        kid(x, x, interval=True)


def in_manifold(queries, centres, k):
    inside = []
    for q in queries.astype(np.float64):
        hit = False
        for i, c in enumerate(centres.astype(np.float64)):
            others = np.delete(centres.astype(np.float64), i, 0)
            radius = np.sort(np.linalg.norm(others - c, axis=1))[k - 1]
            hit = hit or np.linalg.norm(q - c) <= radius
        inside.append(hit)
    return np.array(inside)


def test_precision_and_recall():
    x, y = normal(60, 3, 8) * 0.7, normal(50, 3, 9, shift=0.4)
    found = precision(features(x), features(y), interval=True)
    assert found.value == in_manifold(x, y, 3).mean()
    assert found.details == {"k": 3, "samples": 60, "reference": 50}
    check_interval(found, lambda rows: in_manifold(rows, y, 3).mean(), x, (0, 1))
    found = recall(features(x), features(y), k=2, interval=True)
    assert 0 < found.value == in_manifold(y, x, 2).mean() < 1
    check_interval(found, lambda rows: in_manifold(y, rows, 2).mean(), x, (0, 1))


def test_a_ball_of_radius_0_has_its_centre():
    """Reference vectors that are there four times, as the third-nearest other of each is itself: their balls are
    points, and a sample at one of them is inside."""
    corners = np.array([[0, 0], [8, 0], [0, 8]], np.float32)  # whose squared distances are exact
    reference = features(np.repeat(corners, 4, 0))
    samples = np.array([[0, 0], [8, 0], [8, 8], [0, 1]], np.float32)
    assert precision(features(samples), reference).value == 0.5
    assert recall(features(np.repeat(samples, 4, 0)), reference).value == pytest.approx(2 / 3)


def test_blocks_change_nothing(monkeypatch):
    x, y = features(normal(130, 4, 14) * 0.8), features(normal(90, 4, 15))
    whole = [metric(x, y, interval=True) for metric in (precision, recall)]
    monkeypatch.setattr(precision_recall, "_BLOCK", 32)
    assert [metric(x, y, interval=True) for metric in (precision, recall)] == whole


def test_of_many_vectors_some_are_drawn_from_all(monkeypatch):
    monkeypatch.setattr(precision_recall, "LIMIT", 100)
    two_classes = np.concatenate([normal(200, 3, 16), normal(200, 3, 17, shift=50)])  # one after the other
    found = precision(features(two_classes), features(normal(50, 3, 18)))
    assert found.details == {"k": 3, "samples": 100, "reference": 50}
    assert 0.35 < found.value < 0.65
    assert recall(features(two_classes), features(normal(50, 3, 18))).value > 0.9


def test_precision_and_recall_at_their_limits():
    x, far = features(normal(30, 3, 10)), features(normal(30, 3, 11, shift=100))
    for metric in (precision, recall):
        assert metric(x, x).value == 1
        assert metric(x, far).value == 0
        with pytest.raises(UserError, match="more than k = 3"):
            metric(features(normal(3, 3, 0)), x)
    mode = features(normal(30, 3, 12) * 0.01)  # one mode of many: precise, but recalls little
    assert precision(mode, x).value == 1
    assert recall(mode, x).value < 0.2


def test_statistics_files_are_not_enough_for_metrics_of_vectors():
    x = features(normal(30, 3, 13))
    known = Features("test", None, x.gaussian)
    for metric in (kid, precision, recall):
        with pytest.raises(UserError, match="needs images as reference"):
            metric(x, known)


def test_an_interval_needs_enough_samples():
    with pytest.raises(UserError, match="at least 40 samples"):
        frechet(features(normal(39, 2, 0)), features(normal(39, 2, 1)), interval=True)


def test_registry():
    assert [metric.name for metric in find_metrics(["kid", "fid", "kid"])] == ["kid", "fid"]
    assert set(METRICS) == {"fid", "sfid", "is", "kid", "precision", "recall", "fad", "kad"}
    with pytest.raises(UserError, match="unknown metric 'FID'"):
        find_metrics(["FID"])
    with pytest.raises(UserError, match="no metric"):
        find_metrics([])
