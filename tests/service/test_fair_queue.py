"""Turns shared fairly by work: the order of tiles, without threads and without a clock."""

from collections import Counter
from collections.abc import Hashable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fair_queue import FairQueue, Job, Step

Names = list[str]


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def image(
    name: str, works: Iterable[int], kind: Hashable = "a", deadline: float | None = None
) -> Job[str, str]:
    """Give an image of as many tiles as there are numbers, each of that work."""
    return Job(name, [Step(name, kind, work) for work in works], deadline)


def queue_of(*jobs: Job[str, str]) -> FairQueue[str, str]:
    queue: FairQueue[str, str] = FairQueue(Clock())
    for job in jobs:
        queue.add(job)
    return queue


def turn(queue: FairQueue[str, str], most: int = 1) -> Names:
    return [step.item for _, step in queue.take(lambda *_: most)]


def all_turns(queue: FairQueue[str, str], most: int = 1) -> list[Names]:
    turns = []
    while queue:
        turns.append(turn(queue, most))
    return turns


def test_images_of_equal_tiles_take_turns() -> None:
    queue = queue_of(image("a", [5] * 3), image("b", [5]), image("c", [5] * 2))
    assert all_turns(queue) == [["a"], ["b"], ["c"], ["a"], ["c"], ["a"]]


def test_an_image_of_large_tiles_has_fewer_turns() -> None:
    queue = queue_of(image("large", [30] * 2), image("small", [10] * 6))
    assert "".join(name[0] for (name,) in all_turns(queue)) == "sslsssls"


def test_an_image_that_comes_late_is_next() -> None:
    queue = queue_of(image("large", [9] * 100))
    for _ in range(50):
        turn(queue)
    queue.add(image("late", [1]))
    assert turn(queue) == ["late"]


def test_an_image_that_comes_late_is_not_paid_for_the_time_before_it() -> None:
    queue = queue_of(image("first", [1] * 100))
    for _ in range(50):
        turn(queue)
    queue.add(image("late", [1] * 100))
    served = Counter(turn(queue)[0] for _ in range(20))
    assert abs(served["first"] - served["late"]) <= 2


def test_a_large_image_is_not_overtaken_for_ever_by_a_stream_of_small_ones() -> None:
    queue = queue_of(image("large", [10] * 1000))
    turn(queue)
    small, served = image("small", [2]), Counter[str]()
    queue.add(small)
    for _ in range(300):
        if small.is_taken:
            small = image("small", [2])
            queue.add(small)
        for _, step in queue.take(lambda *_: 1):
            served[step.item] += step.work
    assert abs(served["large"] - served["small"]) <= 20


@given(
    st.lists(st.integers(1, 50), min_size=2, max_size=5),
    st.integers(1, 4),
    st.integers(10, 60),
)
def test_images_that_wait_all_the_time_are_served_alike(
    works: list[int], most: int, turns: int
) -> None:
    """They differ by the larger tile of two at most."""
    queue = queue_of(*(image(str(place), [work] * 300) for place, work in enumerate(works)))
    served = Counter[str]({str(place): 0 for place in range(len(works))})
    for _ in range(turns):
        for _, step in queue.take(lambda *_: most):
            served[step.item] += step.work
    for one, work in enumerate(works):
        for other, another in enumerate(works):
            assert abs(served[str(one)] - served[str(other)]) <= max(work, another)


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=8), min_size=1, max_size=6))
def test_images_that_come_together_are_done_a_tile_after_fluid_sharing_at_most(
    images: list[list[int]],
) -> None:
    """Source: Parekh and Gallager 1993, theorem 1, on fair queueing by finish times."""
    queue = queue_of(*(image(str(place), works) for place, works in enumerate(images)))
    done, work = dict[str, int](), 0
    while queue:
        [(job, step)] = queue.take(lambda *_: 1)
        work += step.work
        done[job.owner] = work
    totals = [sum(works) for works in images]
    largest = max(max(works) for works in images)
    for place, total in enumerate(totals):
        fluid = sum(min(total, other) for other in totals)
        assert done[str(place)] <= fluid + largest


def test_small_images_one_after_the_other_wait_for_one_large_tile_each() -> None:
    queue = queue_of(image("large", [30] * 100))
    order: list[str] = []
    for number in range(50):
        order += turn(queue)  # it runs when the small one comes
        queue.add(image(f"small {number}", [10]))
        order += turn(queue)
    assert order == [name for number in range(50) for name in ("large", f"small {number}")]


@pytest.mark.parametrize(("large", "small"), [(1, 15), (1, 30), (2, 30), (3, 30)])
def test_after_a_crowd_one_that_comes_waits_for_a_tile_of_each_large_image(
    large: int, small: int
) -> None:
    crowd = [image("small", [9]) for _ in range(small)]
    queue = queue_of(*(image("large", [10] * 100) for _ in range(large)), *crowd)
    while not all(job.is_taken for job in crowd):
        turn(queue)
    queue.add(image("late", [9]))
    before = 0
    while turn(queue) != ["late"]:
        before += 1
    assert before <= large


@pytest.mark.parametrize("burst", [[], [[1]], [[1]] * 8, [[1]] * 31, [[3] * 5] * 31])
@pytest.mark.parametrize("clients", [1, 2, 5])
def test_clients_that_send_one_image_after_the_other_leave_a_large_one_its_share(
    clients: int, burst: list[list[int]]
) -> None:
    """Whatever burst came before them."""
    crowd = [image("burst", works) for works in burst]
    queue = queue_of(image("large", [10] * 10_000), *crowd)
    while not all(job.is_taken for job in crowd):
        turn(queue)
    waiting: list[Job[str, str]] = []
    served = Counter[str]()
    for _ in range(3000):
        waiting = [job for job in waiting if not job.is_taken]
        while len(waiting) < clients:
            waiting.append(image("small", [2]))
            queue.add(waiting[-1])
        for _, step in queue.take(lambda *_: 1):
            served[step.item] += step.work
    assert served["large"] / served.total() == pytest.approx(1 / (clients + 1), rel=0.01)


def test_an_image_that_had_to_wait_for_its_model_is_not_owed_the_time() -> None:
    loading = image("loading", [10] * 100, kind="loading")
    queue = queue_of(image("large", [10] * 100), loading)
    for _ in range(50):
        queue.take(lambda *_: 1, skip=_is_loading)
    queue.add(image("late", [9]))
    assert "late" in [name for _ in range(2) for name in turn(queue)]


def test_while_an_image_waits_for_its_model_the_others_share_as_without_it() -> None:
    queue = queue_of(image("large", [10] * 100), image("loading", [10] * 100, kind="loading"))
    order: list[str] = []
    for number in range(20):
        for _ in range(2):
            order += [step.item for _, step in queue.take(lambda *_: 1, skip=_is_loading)]
            if len(order) % 2:
                queue.add(image(f"small {number}", [9]))
    assert order == [name for number in range(20) for name in ("large", f"small {number}")]


def _is_loading(kind: Hashable) -> bool:
    return kind == "loading"


def test_a_turn_takes_tiles_of_one_kind_of_those_that_waited_longest() -> None:
    queue = queue_of(image("a", [1] * 3), image("b", [1], kind="other"), image("c", [1] * 2))
    assert all_turns(queue, most=4) == [["a", "c", "a", "c"], ["b"], ["a"]]


def test_a_turn_takes_as_many_as_the_kind_allows() -> None:
    queue = queue_of(image("a", [1] * 3, kind=2), image("b", [1] * 3, kind=1))
    sizes = []
    while queue:
        sizes.append(len(queue.take(lambda kind, _: kind if isinstance(kind, int) else 0)))
    assert sorted(sizes) == [1, 1, 1, 1, 2]


def test_a_turn_takes_tiles_of_its_kind_wherever_they_stand() -> None:
    mixed = Job("b", [Step("b", kind, 1) for kind in ("other", "a", "a")])
    queue = queue_of(image("a", [1]), mixed)
    assert all_turns(queue, most=4) == [["a", "b", "b"], ["b"]]


def test_a_kind_that_has_to_wait_is_passed_over() -> None:
    queue = queue_of(image("a", [1], kind="loading"), image("b", [1]))
    taken = queue.take(lambda *_: 4, skip=lambda kind: kind == "loading")
    assert [step.item for _, step in taken] == ["b"]
    assert queue.take(lambda *_: 4, skip=lambda kind: kind == "loading") == []
    assert len(queue) == 1


def test_what_nobody_waits_for_is_dropped_before_it_costs_a_turn() -> None:
    left, stays = image("left", [1] * 5), image("stays", [1])
    queue = queue_of(left, stays)
    left.abandoned = True
    assert queue.drop() == [left]
    assert all_turns(queue) == [["stays"]]


def test_an_image_whose_deadline_has_passed_is_dropped() -> None:
    clock = Clock()
    queue: FairQueue[str, str] = FairQueue(clock)
    jobs = [image("soon", [1], deadline=5.0), image("later", [1], deadline=6.0), image("no", [1])]
    for job in jobs:
        queue.add(job)
    clock.now = 5.0
    assert queue.drop() == [jobs[0]]
    assert all_turns(queue) == [["later"], ["no"]]


def test_the_work_that_waits_is_that_of_the_tiles_not_taken() -> None:
    queue = queue_of(image("a", [5, 7]), image("b", [11]))
    assert queue.work == 23
    turn(queue)
    assert queue.work == 18
    all_turns(queue)
    assert (queue.work, len(queue)) == (0, 0)


def test_the_age_is_that_of_the_image_that_came_first() -> None:
    clock = Clock()
    queue: FairQueue[str, str] = FairQueue(clock)
    assert queue.oldest_age == 0
    for clock.now in (10.0, 12.0):
        queue.add(image("a", [1, 1]))
    clock.now = 15.0
    assert queue.oldest_age == 5


def test_how_many_tiles_of_a_kind_wait_decides_how_many_are_taken() -> None:
    late = image("late", [1], kind="other")
    queue = queue_of(image("a", [1] * 3), image("b", [1] * 2))
    asked: list[tuple[Hashable, int]] = []

    def most(kind: Hashable, waiting: int) -> int:
        asked.append((kind, waiting))
        return waiting // 2

    assert len(queue.take(most)) == 2
    queue.add(late)
    late.tag += 9  # its turn is not yet
    assert len(queue.take(most)) == 1
    assert asked == [("a", 5), ("a", 3)]


def test_the_next_deadline_is_told() -> None:
    clock = Clock()
    queue: FairQueue[str, str] = FairQueue(clock)
    assert queue.next_deadline is None
    for deadline in (9.0, 5.0, None):
        queue.add(image("a", [1], deadline=deadline))
    clock.now = 2.0
    assert queue.next_deadline == 3
    clock.now = 6.0
    assert queue.next_deadline == 0


def test_an_empty_queue_has_no_turn() -> None:
    assert turn(queue_of()) == []


def test_all_images_can_be_taken_out_at_once() -> None:
    jobs = [image("a", [1]), image("b", [1])]
    queue = queue_of(*jobs)
    assert queue.clear() == jobs
    assert not queue
