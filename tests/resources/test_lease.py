"""The lease: one writer per table, between processes, freed by the death of its holder and by nothing else."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from resources.lease import LeaseTimeout, lease

HOLD = """
import sys
from pathlib import Path
from resources.lease import lease
with lease(Path(sys.argv[1]), "run of another process", 0, print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def table(tmp_path):
    return tmp_path / "silver/things"


@pytest.fixture
def other(table):
    """Another process that holds the lease until its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, table], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_a_free_lease_is_had_at_once(table):
    with lease(table, "run 1", 0, print) as waited:
        assert waited < 1
    with lease(table, "run 2", 0, print):
        pass


def test_a_live_holder_is_not_robbed_and_is_named(table, other):
    said = []
    with pytest.raises(LeaseTimeout, match="run of another process"), lease(table, "run 2", 0.3, said.append):
        pytest.fail("robbed")
    assert said == [f"Waiting for run of another process (process {other.pid} on {said[0].split(' on ')[1]}"]
    assert str(table) in said[0]
    assert other.poll() is None


def test_a_killed_holder_leaves_the_lease_free(table, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with lease(table, "run 2", 0, print) as waited:
        assert waited < 1


def test_whoever_waits_gets_it_when_the_holder_is_done(table, other):
    waiting = threading.Event()
    had = []

    def wait():
        with lease(table, "run 2", 60, lambda _: waiting.set()) as waited:
            had.append(waited)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(30)
    assert not had
    started = time.monotonic()
    other.stdin.close()
    thread.join(30)
    assert len(had) == 1
    assert time.monotonic() - started < 30


def test_an_exception_frees_it(table):
    with pytest.raises(RuntimeError), lease(table, "run 1", 0, print):
        raise RuntimeError
    with lease(table, "run 2", 0, print):
        pass


def test_two_tables_have_leases_of_their_own(table, other):
    with lease(table.with_name("others"), "run 2", 0, print) as waited:
        assert waited < 1
