"""Processes of their own for the tests: programs to start, kill and look for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Ask until the answer is true, or fail after some seconds."""

    def ask(question: Callable[[], Any], seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)
        return answer

    return ask


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program with arguments; those that still run after the test are killed."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        started.append(subprocess.Popen(command, **pipes | options))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.__exit__(None, None, None)  # closes the pipes and waits


@pytest.fixture
def processes() -> Callable[[object], list[str]]:
    """The command lines of all other processes in which a text occurs."""

    def naming(text: object) -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(text) in command and process.name != str(os.getpid()):
                found.append(command)
        return found

    return naming
