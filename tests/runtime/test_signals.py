"""A signal sets a flag and interrupts nothing; who reads the flag decides when to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from bigft.runtime.signals import STOP_SIGNALS, Stopped, StopRequest, interruptible


@pytest.fixture(autouse=True)
def _handlers_come_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_was_asked_for_at_first() -> None:
    stop = StopRequest()
    stop.install()
    assert not stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_stop_signal_is_remembered_by_its_name(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.install()
    os.kill(os.getpid(), number)
    assert stop
    assert stop.why == number.name


def test_of_several_signals_the_last_is_told() -> None:
    stop = StopRequest()
    stop.install()
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGTERM)
    assert stop.why == "SIGTERM"


class Gathered:
    """A world of three ranks, whose last one got a signal."""

    def any(self, flag: bool) -> bool:
        return True

    def gather(self, value: str) -> list[str]:
        return [value, "", "SIGUSR1"]


def test_ranks_that_got_no_signal_tell_which_one_another_got() -> None:
    stop = StopRequest()
    assert stop.agreed(Gathered())  # type: ignore[arg-type]
    assert stop.reason(Gathered()) == stop.why == "SIGUSR1"  # type: ignore[arg-type]


def test_ctrl_c_still_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    StopRequest().install()
    assert signal.getsignal(signal.SIGINT) is before


def interrupt_dropped() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def interrupt_turned_into_another_error() -> None:
    """As C++ does that calls back to Python."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("failed writing file") from None


@pytest.mark.parametrize("lose", [interrupt_dropped, interrupt_turned_into_another_error])
def test_an_interrupt_that_was_lost_on_its_way_comes_out_of_the_block(
    lose: Callable[[], None],
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        lose()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_next_look_for_a_stop_raises_an_interrupt_that_was_dropped() -> None:
    stop, went_on = StopRequest(), False
    with pytest.raises(KeyboardInterrupt), interruptible():
        interrupt_dropped()
        went_on = bool(stop) or True
    assert not went_on


def test_an_interrupt_is_over_with_its_block() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        interrupt_dropped()
    assert not StopRequest()
    with interruptible():
        assert not StopRequest()


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_install_signals_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    StopRequest()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_while_ranks_stand_alone_a_signal_interrupts() -> None:
    stop = StopRequest()
    stop.install()
    with pytest.raises(Stopped, match="SIGUSR1"), stop.raising():
        signal.raise_signal(signal.SIGUSR1)
        raise AssertionError("the signal did not interrupt")


def test_what_cleans_up_after_a_signal_is_not_interrupted_by_the_next() -> None:
    stop, cleaned = StopRequest(), False
    stop.install()
    with pytest.raises(Stopped, match="SIGUSR1"), stop.raising():
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_a_request_made_before_interrupts_too() -> None:
    stop = StopRequest()
    stop.request("SIGUSR2")
    with pytest.raises(Stopped, match="SIGUSR2"), stop.raising():
        raise AssertionError("not reached")


def test_the_time_limit_asks_so_early_that_what_is_reserved_fits() -> None:
    stop = StopRequest()
    stop.limit(time.monotonic() + 1000.0)
    assert not stop
    stop.took(120.0, save_seconds=500.0)  # twice, and 1.5 times
    assert not stop
    stop.took(20.0, save_seconds=500.0)
    assert not stop
    stop.took(20.0, save_seconds=510.0)
    assert stop
    assert stop.why == "train.max_time"
