"""The work queue: every key once, by one worker at a time, retried ever more slowly."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep_operator.controller.queue import FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, Key, WorkQueue


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


def key(name):
    return Key("ScalingRun", "default", name)


def test_a_key_added_thrice_is_given_out_once(queue):
    for _ in range(3):
        queue.add(key("a"))
    assert len(queue) == 1
    assert queue.get() == key("a")
    queue.done(key("a"))
    assert len(queue) == 0


def test_a_key_added_while_it_is_worked_on_comes_again_afterwards_and_not_before(queue):
    queue.add(key("a"))
    assert queue.get() == key("a")
    queue.add(key("a"))
    queue.add(key("b"))
    assert queue.get() == key("b"), "nobody else may work on a"
    queue.done(key("a"))
    assert queue.get() == key("a")


def test_a_delayed_key_comes_at_the_earliest_of_its_times_and_once(queue, clock):
    queue.add_after(key("a"), 5)
    queue.add_after(key("a"), 2)
    queue.add_after(key("a"), 9)
    queue.add(key("b"))
    assert queue.get() == key("b")
    queue.done(key("b"))
    clock.now += 2
    assert queue.get() == key("a")
    queue.done(key("a"))
    clock.now += 100
    queue.add(key("b"))
    assert queue.get() == key("b")
    assert queue.delayed == 0


def test_retries_wait_from_milliseconds_to_a_quarter_of_an_hour_and_start_over_after_success(queue, clock):
    pauses = []
    for _ in range(25):
        pauses.append(queue.retry(key("a")))
        clock.now += pauses[-1]
        queue.done(queue.get())
    assert 0.75 * FIRST_BACKOFF_SECONDS <= pauses[0] <= 1.25 * FIRST_BACKOFF_SECONDS
    assert all(later > earlier for earlier, later in zip(pauses[:17], pauses[2:19], strict=True))
    assert 0.75 * LONGEST_BACKOFF_SECONDS <= pauses[-1] <= 1.25 * LONGEST_BACKOFF_SECONDS
    queue.forget(key("a"))
    assert queue.retry(key("a")) < 2 * FIRST_BACKOFF_SECONDS


def test_an_event_need_not_wait_for_a_long_retry(queue):
    for _ in range(20):
        queue.retry(key("a"))
    queue.add(key("a"))
    assert queue.get() == key("a")


def test_when_trouble_is_over_what_failed_is_tried_at_once_and_nothing_else(queue):
    for _ in range(20):
        queue.retry(key("failed"))
    queue.add_after(key("waiting"), 60)
    queue.hurry()
    assert (len(queue), queue.delayed) == (1, 1)
    assert queue.get() == key("failed")


def test_age_and_depth_are_those_of_keys_that_wait_for_a_worker(queue, clock):
    queue.add(key("a"))
    clock.now += 3
    queue.add(key("b"))
    assert (len(queue), queue.oldest_seconds) == (2, 3.0)
    queue.get()
    assert (len(queue), queue.oldest_seconds) == (1, 0.0)


def test_whoever_waits_is_told_when_the_queue_closes(queue):
    got = []
    workers = [threading.Thread(target=lambda: got.append(queue.get())) for _ in range(3)]
    for worker in workers:
        worker.start()
    queue.close()
    for worker in workers:
        worker.join(10)
    assert got == [None] * 3
    queue.add(key("late"))
    assert queue.get() is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "get", "done"])), max_size=60))
def test_no_key_is_lost_or_worked_on_twice_at_once(steps):
    queue = WorkQueue()
    owed, working = set(), set()
    for name, step in steps:
        if step == "add":
            queue.add(key(name))
            owed.add(name)
        elif step == "get" and owed - working:
            got = queue.get().name
            assert got in owed - working
            owed.discard(got)
            working.add(got)
        elif step == "done" and name in working:
            working.discard(name)
            queue.done(key(name))
    for name in set(working):
        queue.done(key(name))
    while owed:
        owed.remove(queue.get().name)
    assert len(queue) == 0


def test_a_key_that_is_given_out_is_no_longer_owed_a_later_look(queue, clock):
    queue.add_after(key("a"), 5)
    queue.add(key("a"))
    assert queue.get() == key("a")
    assert queue.delayed == 0
    queue.add_after(key("a"), 7)
    queue.done(key("a"))
    assert (len(queue), queue.delayed) == (0, 1), "what is asked for during the pass is kept"


class Waiting:
    """Threads that take keys until the queue closes; counts what they did."""

    def __init__(self, queue, count, work=lambda key: None):
        self.queue, self.work = queue, work
        self.got, self.times = [], []
        self.threads = [threading.Thread(target=self._take, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _take(self):
        while (got := self.queue.get()) is not None:
            self.work(got)
            self.got.append(got.name)
            self.queue.done(got)

    def until(self, names):
        deadline = time.monotonic() + 30
        while sorted(self.got) != sorted(names) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert sorted(self.got) == sorted(names)

    def end(self):
        self.queue.close()
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads)


def test_a_delay_that_runs_out_wakes_one_of_many_idle_workers_to_work_and_one_to_keep_the_time():
    looks = []

    class Counted(WorkQueue):
        def _promote(self):
            looks.append(1)
            return super()._promote()

    queue = Counted()
    idle = Waiting(queue, 16)
    for number in range(20):
        queue.add_after(key(f"k{number}"), 0.02 * (number + 1))
    idle.until([f"k{number}" for number in range(20)])
    idle.end()
    assert len(looks) < 20 * 8, "each of twenty delays would be a look of all sixteen"


def test_time_is_kept_by_another_while_the_worker_that_kept_it_works():
    queue, release = WorkQueue(), threading.Event()
    idle = Waiting(queue, 2, lambda got: release.wait(30) if got.name == "long" else None)
    queue.add_after(key("long"), 0.02)
    queue.add_after(key("short"), 0.1)
    idle.until(["short"])
    release.set()
    idle.until(["short", "long"])
    queue.add_after(key("late"), 30)
    queue.add_after(key("early"), 0.01)
    idle.until(["short", "long", "early"])
    idle.end()


def test_many_writers_and_workers_lose_no_key_and_leave_nobody_waiting_beside_one():
    queue = WorkQueue()
    workers = Waiting(queue, 8)

    def write(writer):
        for number in range(200):
            name = key(f"{writer}-{number}")
            if number % 3:
                queue.add(name)
            else:
                queue.add_after(name, 0.0005 * (number % 7))

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for writer in writers:
        writer.start()
    workers.until([f"{writer}-{number}" for writer in range(4) for number in range(200)])
    workers.end()
