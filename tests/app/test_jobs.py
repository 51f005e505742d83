"""Work in threads: reports, results, failures, stopping, places."""

import threading
from itertools import count

import pytest

from sddpm.app.jobs import AT_ONCE, Jobs, Stopped


def endless(report):
    for number in count():
        report(number)
        threading.Event().wait(0.001)


def test_reports_then_the_result():
    looks = list(Jobs().follow("anna", "draw", lambda report: report(1) or 2))
    assert looks[-1] == (2, True) and all(look == (1, False) for look in looks[:-1])


def test_failures_are_of_the_work():
    with pytest.raises(ZeroDivisionError):
        list(Jobs().follow("anna", "draw", lambda report: 1 // 0))


@pytest.mark.parametrize("whom", [("anna", "draw"), ("anna", None), (None, None)])
def test_stopping(whom):
    jobs = Jobs()
    looks = jobs.follow("anna", "draw", endless)
    next(looks)
    jobs.stop("berta")
    jobs.stop("anna", "energy")
    number, finished = next(looks)
    assert number > 0 and not finished
    jobs.stop(*whom)
    with pytest.raises(Stopped):
        list(looks)


def test_one_job_in_a_view():
    jobs = Jobs()
    first, second = (jobs.follow("anna", "draw", endless) for _ in range(2))
    next(first)
    next(second)
    with pytest.raises(Stopped):
        list(first)
    assert next(second)[1] is False
    second.close()


def test_nobody_looks_any_more():
    jobs, ended = Jobs(), threading.Event()

    def work(report):
        try:
            endless(report)
        finally:
            ended.set()

    looks = jobs.follow("anna", "draw", work)
    next(looks)
    looks.close()
    assert ended.wait(10)


def test_others_wait_for_a_place():
    jobs = Jobs()
    busy = [jobs.follow(f"visitor {i}", "draw", endless) for i in range(AT_ONCE)]
    for looks in busy:
        next(looks)
    waiting = jobs.follow("anna", "draw", endless)
    assert next(waiting) == (None, False)
    busy[0].close()
    assert any(item is not None for item, _ in (next(waiting) for _ in range(50)))
    waiting.close()
    late = jobs.follow("berta", "draw", endless)
    jobs.stop(None)
    with pytest.raises(Stopped):
        list(late)
    for looks in busy:
        looks.close()
