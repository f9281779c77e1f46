"""A rolling deployment's arithmetic: the minimum and the maximum hold at each step."""

from __future__ import annotations

import pytest

from modelstacks.cloud.services.ecs.snapshot import CircuitBreaker
from modelstacks.cloud.workloads.rolling import Limits, Moves, Tasks, next_moves

NOBODY = Tasks(0, 0)


def test_a_new_service_starts_all_its_tasks() -> None:
    assert next_moves(Limits.of(2, 100, 200), NOBODY, NOBODY) == Moves(start_new=2)


def test_new_tasks_start_beside_the_old_ones_within_the_maximum() -> None:
    assert next_moves(Limits.of(4, 100, 150), NOBODY, Tasks(4, 4)) == Moves(start_new=2)


def test_an_old_task_stops_when_a_healthy_new_one_is_there() -> None:
    assert next_moves(Limits.of(2, 100, 200), Tasks(2, 1), Tasks(2, 2)) == Moves(stop_old=1)


def test_old_tasks_make_room_where_the_maximum_leaves_none() -> None:
    assert next_moves(Limits.of(4, 50, 100), NOBODY, Tasks(4, 4)) == Moves(stop_old=2)


def test_nothing_moves_where_minimum_and_maximum_leave_no_room() -> None:
    assert next_moves(Limits.of(2, 100, 100), NOBODY, Tasks(2, 2)) == Moves()


def test_an_unhealthy_old_task_is_the_first_to_make_room() -> None:
    assert next_moves(Limits.of(2, 100, 100), NOBODY, Tasks(2, 1)) == Moves(stop_old=1)


@pytest.mark.parametrize(("minimum", "maximum"), [(100, 200), (50, 100), (0, 100), (50, 150), (100, 125)])
@pytest.mark.parametrize("desired", [1, 2, 3, 4, 7])
def test_a_rollout_ends_and_never_leaves_its_limits(desired: int, minimum: int, maximum: int) -> None:
    limits = Limits.of(desired, minimum, maximum)
    if limits.lowest >= desired and limits.highest <= desired:
        pytest.skip("such a deployment cannot move")
    new, old = NOBODY, Tasks(desired, desired)
    for _ in range(4 * desired + 4):
        moves = next_moves(limits, new, old)
        assert new.running + old.running + moves.start_new <= limits.highest
        assert new.healthy + old.healthy - moves.stop_old >= limits.lowest
        old = Tasks(old.running - moves.stop_old, old.healthy - moves.stop_old)
        started = new.running + moves.start_new
        new = Tasks(started, min(started, new.healthy + 1))  # one becomes healthy at a time
    assert (new, old) == (Tasks(desired, desired), NOBODY)


@pytest.mark.parametrize(
    ("breaker", "desired", "threshold"),
    [
        (CircuitBreaker(), 1, 3),
        (CircuitBreaker(), 25, 13),
        (CircuitBreaker(), 800, 200),
        (CircuitBreaker(percent=10, bounded=False), 4, 1),
        (CircuitBreaker(limit=7), 100, 7),
    ],
)
def test_a_circuit_breakers_threshold_follows_the_desired_count(
    breaker: CircuitBreaker, desired: int, threshold: int
) -> None:
    assert breaker.threshold(desired) == threshold
