"""Java programs as child processes."""

import signal
import socket
import sys

import pytest

from resources import jvm
from resources.jvm import ChildProcess, JavaError, free_port, jars


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with nothing on it but what the test puts there, and no memory of the Java found before."""
    monkeypatch.setenv("PATH", str(tmp_path))
    jvm.java.cache_clear()
    yield tmp_path
    jvm.java.cache_clear()


@pytest.fixture
def fake_java(path):
    def put(script):
        (path / "java").write_text(f"#!/bin/sh\n{script}\n")
        (path / "java").chmod(0o755)

    return put


@pytest.mark.usefixtures("path")
def test_where_there_is_no_java_the_error_says_how_to_get_it():
    with pytest.raises(JavaError, match=r"No Java found.*Install a JDK or JRE 17.*PATH.*apt install"):
        jvm.java()


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_392"])
def test_an_older_java_is_refused_with_its_version_and_the_remedy(fake_java, version):
    fake_java(f"""echo 'openjdk version "{version}" 2019-01-15' >&2""")
    with pytest.raises(JavaError, match=rf"Java 17 or newer is needed, but .*{version}.*Install a JDK"):
        jvm.java()


def test_a_java_that_does_not_run_counts_as_none(fake_java):
    fake_java("exit 1")  # as macOS has it before Java is installed
    with pytest.raises(JavaError, match="No Java found"):
        jvm.java()


@pytest.mark.parametrize("version", ["17", "17.0.15", "25-ea"])
def test_java_17_and_newer_are_taken(fake_java, path, version):
    fake_java(f"""echo 'openjdk version "{version}"' >&2""")
    assert jvm.java() == path / "java"


def test_jars_come_with_what_they_depend_on_and_are_kept():
    first, again = jars("org.slf4j:slf4j-simple:1.7.36"), jars("org.slf4j:slf4j-simple:1.7.36")
    assert sorted(jar.name for jar in first) == ["slf4j-api-1.7.36.jar", "slf4j-simple-1.7.36.jar"]
    assert first == again
    assert all(jar.is_file() for jar in first)


def test_jars_that_do_not_exist_are_named():
    with pytest.raises(JavaError, match=r"org\.slf4j:slf4j-api:0\.0\.404"):
        jars("org.slf4j:slf4j-api:0.0.404")


def test_nobody_listens_on_a_free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_a_command_writes_its_output_to_its_log(tmp_path, eventually):
    child = ChildProcess(["echo", "hello"], tmp_path / "log")
    eventually(lambda: not child.running)
    child.stop()
    assert child.tail() == "hello"


def test_a_command_that_fails_shows_the_end_of_what_it_said(tmp_path, eventually):
    child = ChildProcess(["sh", "-c", "seq 100; echo 'it broke' >&2; exit 3"], tmp_path / "log")
    eventually(lambda: not child.running)
    child.stop()
    assert child.tail(3).splitlines() == ["99", "100", "it broke"]


def test_a_command_gets_more_environment(tmp_path, eventually):
    child = ChildProcess(["sh", "-c", "echo $FLAVOUR"], tmp_path / "log", {"FLAVOUR": "vanilla"})
    eventually(lambda: not child.running)
    child.stop()
    assert child.tail() == "vanilla"


def test_stop_ends_it_in_peace(tmp_path, eventually):
    child = ChildProcess(
        ["sh", "-c", "trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.1; done"], tmp_path / "log"
    )
    eventually(lambda: child.tail() == "up")
    assert child.running
    child.stop()
    assert not child.running
    assert child.tail().splitlines()[-1] == "bye"


def test_stop_ends_what_does_not_want_to(tmp_path, eventually, monkeypatch, processes):
    monkeypatch.setattr(jvm, "STOP_TIMEOUT_SECONDS", 0.2)
    stubborn = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    child = ChildProcess(["sh", "-c", stubborn, tmp_path.name], tmp_path / "log")
    eventually(lambda: "up" in child.tail())
    child.stop()
    assert not child.running
    eventually(lambda: not processes(tmp_path.name))


PARENT = """
import sys, time
from pathlib import Path
from resources.jvm import ChildProcess
ChildProcess(["tail", "-f", sys.argv[1]], Path(sys.argv[1]))
print("started", flush=True)
time.sleep(1234)
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda way: way.name)
def test_it_ends_when_its_parent_is_killed(start, tmp_path, eventually, processes, way):
    mark = tmp_path / "log"
    parent = start(PARENT, mark)
    assert parent.stdout.readline() == "started\n"
    eventually(lambda: len(processes(mark)) > 1)
    parent.send_signal(way)
    assert parent.wait(10) != 0
    eventually(lambda: not processes(mark))


def test_its_parents_terminal_does_not_reach_it(tmp_path, eventually):
    child = ChildProcess([sys.executable, "-c", "import os; print(os.getsid(0) == os.getppid())"], tmp_path / "log")
    eventually(lambda: not child.running)
    child.stop()
    assert child.tail() == "True"
