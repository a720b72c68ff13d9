"""Advantages within groups: failed rewards are no values, equal ones teach nothing; prompts are chosen by variance."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from illume_loop.train.advantages import DrawnGroup, choose_prompts, group_advantages, shuffled_in_groups

NAN = float("nan")


@pytest.mark.parametrize("failed", [NAN, float("inf"), float("-inf")])
def test_a_failed_reward_is_never_a_value(failed: float) -> None:
    rewards = np.array([[1.0, 2.0, 4.0, failed]])
    found = group_advantages({"self": rewards}, {"self": 1.0}, normalise=True)
    without = group_advantages({"self": rewards[:, :3]}, {"self": 1.0}, normalise=True)
    np.testing.assert_array_equal(found.learned, [[True, True, True, False]])
    np.testing.assert_allclose(found.values[:, :3], without.values)


def test_a_sample_that_one_scorer_failed_is_dropped_for_all() -> None:
    rewards = {"self": np.array([[1.0, 2.0, 3.0]]), "checker": np.array([[0.0, 1.0, NAN]])}
    found = group_advantages(rewards, {"self": 1.0, "checker": 1.0}, normalise=True)
    np.testing.assert_allclose(found.values, [[-2.0, 2.0, NAN]])


def test_groups_that_teach_nothing_are_counted() -> None:
    rewards = np.array([[0.1, 0.1, 0.1], [NAN, NAN, 5.0], [NAN, NAN, NAN], [1.0, 2.0, 3.0], [0.7, NAN, 0.7]])
    found = group_advantages({"self": rewards}, {"self": 1.0}, normalise=True)
    assert (found.num_without_variance, found.num_with_too_few) == (2, 2)
    assert found.learned.sum(axis=1).tolist() == [0, 0, 0, 3, 0]
    assert found.num_scored.tolist() == [3, 1, 0, 3, 2]


def test_scorers_are_normalised_before_they_are_weighted() -> None:
    small, large = np.array([[0.0, 1.0]]), np.array([[1e6, -1e6]])
    weights = {"self": 3.0, "frozen": 1.0}
    found = group_advantages({"self": small, "frozen": large}, weights, normalise=True)
    np.testing.assert_allclose(found.values, [[-2.0, 2.0]])
    centred = group_advantages({"self": small, "frozen": large}, weights, normalise=False)
    np.testing.assert_allclose(centred.values, [[1e6 - 1.5, 1.5 - 1e6]])


def test_the_shuffled_control_keeps_each_group_its_rewards() -> None:
    rewards = {"self": np.arange(40.0).reshape(4, 10), "frozen": -np.arange(40.0).reshape(4, 10)}
    found = shuffled_in_groups(rewards, 3)
    assert not np.array_equal(found["self"], rewards["self"])
    np.testing.assert_array_equal(np.sort(found["self"], axis=1), rewards["self"])
    np.testing.assert_array_equal(found["self"], -found["frozen"])


def test_prompts_are_chosen_where_rewards_differ_and_all_keep_a_floor() -> None:
    prompts = [(f"{category} {i}", category) for category in ("open", "solved") for i in range(50)]
    earlier = [DrawnGroup("open 0", "open", {"self": 2.0}), DrawnGroup("solved 0", "solved", {"self": 0.0})]
    weights = {"self": 1.0}
    counts = Counter(
        prompts[place][1] for seed in range(60) for place in choose_prompts(prompts, earlier, weights, 10, 0.2, seed)
    )
    # Without replacement the share of the solved ones is a little above the 10 % of the first draw.
    assert 40 < counts["solved"] < 90
    assert counts.total() == 600
    never = choose_prompts(prompts, earlier, weights, 10, 0.0, 1)
    assert {prompts[place][1] for place in never} == {"open"}
    assert len(choose_prompts(prompts, earlier, weights, 100, 0.0, 1)) == 100


def test_a_prompts_own_groups_count_before_its_category() -> None:
    prompts = [("a", "x"), ("b", "x")]
    earlier = [DrawnGroup("a", "x", {"self": 0.0}), DrawnGroup("b", "x", {"self": 1.0})]
    assert {choose_prompts(prompts, earlier, {"self": 1.0}, 1, 0.0, seed)[0] for seed in range(20)} == {1}


def test_the_choice_follows_from_its_arguments() -> None:
    prompts = [(f"p{i}", "x") for i in range(30)]
    assert choose_prompts(prompts, [], {"self": 1.0}, 8, 0.25, 5) == choose_prompts(
        prompts, [], {"self": 1.0}, 8, 0.25, 5
    )
    assert choose_prompts(prompts, [], {"self": 1.0}, 8, 0.25, 5) != choose_prompts(
        prompts, [], {"self": 1.0}, 8, 0.25, 6
    )
