"""Alive, healthy, ready."""

import time

from edgevlm.watch.service.health import Health, Pulse
from edgevlm.watch.status import Status
from tests.support.polling import until


def test_work_that_takes_far_longer_than_any_before_is_stuck():
    pulse = Pulse(first_s=600, least_s=0)
    with pulse.work():
        time.sleep(0.01)
        assert not pulse.stuck, "nothing is known of the first"
    assert not pulse.stuck
    with pulse.work():
        until(lambda: pulse.stuck, "ten times the first")
    assert not pulse.stuck, "it came back"


def test_short_work_has_its_time():
    pulse = Pulse(least_s=600)
    with pulse.work():
        pass
    with pulse.work():
        time.sleep(0.05)
        assert not pulse.stuck


def test_the_first_has_a_bound_too():
    pulse = Pulse(first_s=0.01)
    with pulse.work():
        until(lambda: pulse.stuck, "the first takes for ever")


def test_alive_healthy_ready():
    status = Status()
    health = Health(status)
    assert (health.alive, health.healthy, health.ready) == (False, False, False)
    health.running = True
    assert (health.alive, health.healthy, health.ready) == (True, True, False)
    health.seen.set()
    assert health.ready
    status.raise_condition("source", "unreachable", bad=True)
    assert (health.alive, health.healthy, health.ready) == (True, False, True)
    status.clear_condition("source")
    status.raise_condition("reload", "refused")
    assert health.healthy, "a warning is no illness"
