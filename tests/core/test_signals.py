import os
import signal
import threading
import time

import pytest
from helpers import python

from melanoma_lib.core.signals import interrupt_on_termination
from melanoma_lib.data.images import map_images

SIGNALS = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _default_handlers():
    """Whoever runs the tests may be deaf to SIGHUP."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_block_as_ctrl_c_does(number):
    """Also while threads decode images, of which those that have not begun are left alone."""
    begun, ended = [], threading.Event()

    def send():  # again, because Python drops an exception that meets a destructor
        while not ended.wait(0.3):
            os.kill(os.getpid(), number)

    def read(item):
        begun.append(item)
        time.sleep(0.1)

    sender = threading.Thread(target=send)
    with pytest.raises(KeyboardInterrupt) as interrupt, interrupt_on_termination():
        sender.start()
        try:
            map_images(read, range(10_000), "decoding")
        finally:
            ended.set()
            sender.join()
    assert interrupt.value.args == (number,) and len(begun) < 5_000
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_second_signal_does_not_disturb_the_end():
    """The shell sends one when its terminal is closed, and the system another."""
    with pytest.raises(KeyboardInterrupt), interrupt_on_termination():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGINT])
def test_a_signal_that_meets_a_destructor_is_not_lost(number):
    """Python drops what is raised there, and a scheduler sends its signal once."""

    class Odd:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt), interrupt_on_termination():
        Odd()
        time.sleep(10)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_deaf_to_a_signal_stays_deaf(number):
    """As after `nohup`."""
    signal.signal(number, signal.SIG_IGN)
    with interrupt_on_termination():
        os.kill(os.getpid(), number)


def test_the_processes_of_torchrun_end_at_once():
    code = (
        "import os, signal; from melanoma_lib.core.signals import interrupt_on_termination\n"
        "with interrupt_on_termination(): os.kill(os.getpid(), signal.SIGTERM)"
    )
    process = python(code, LOCAL_RANK="0")
    process.communicate()
    assert process.returncode == -signal.SIGTERM
