"""Java programs as child processes: the Java they need, their jars, and an end no later than ours."""

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

JAVA_VERSION = 17
STOP_TIMEOUT_SECONDS = 20

# Runs the command until it ends or standard input closes, which the operating system does for us when we die,
# by SIGKILL too. The command gets SIGTERM, and so a clean shutdown.
SUPERVISOR = """
exec 3<&0
"$@" </dev/null 3<&- & child=$!
(cat <&3 >/dev/null; kill "$child") 2>/dev/null & watcher=$!
exec 3<&- </dev/null
wait "$child"; status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"""


class JavaError(Exception):
    """Java is missing or too old, or a Java program did not start; the message says what to do."""


@functools.cache
def java() -> Path:
    """The `java` on the PATH, made sure to be Java 17 or newer.

    Raises:
        JavaError: there is none, or an older one.
    """
    remedy = (
        f"Install a JDK or JRE {JAVA_VERSION} or newer and put it on the PATH "
        "(Debian, Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17)."
    )
    found = shutil.which("java")
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False) if found else None
    if found is None or answer is None or answer.returncode != 0:
        raise JavaError(f"No Java found, and the embedded Kafka broker and Apache Spark run on it. {remedy}")
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    if version is None or int(version[1]) < JAVA_VERSION:
        said = answer.stderr.splitlines()[0] if answer.stderr else "nothing"
        raise JavaError(f"Java {JAVA_VERSION} or newer is needed, but {found} says: {said}. {remedy}")
    return Path(found)


def jars(*coordinates: str) -> list[Path]:
    """The jar files of Maven coordinates (`group:artifact:version`), with what they depend on, downloaded once.

    Raises:
        JavaError: a coordinate cannot be resolved or downloaded.
    """
    import jgo  # here: 0.5 s that a run without a JVM does not pay
    from filelock import FileLock
    from jgo.constants import default_jgo_cache

    try:
        cache = default_jgo_cache()
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lakehouse.lock"):  # jgo is for one process at a time
            return list(jgo.build("+".join(coordinates)).all_jars)
    except Exception as error:  # jgo raises whatever its HTTP and XML libraries raise
        raise JavaError(f"cannot get {', '.join(coordinates)} from Maven Central: {error}") from error


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ChildProcess:
    """A command that writes its output to a log file and ends when we end, however we end."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start `command`, apart from our terminal's signals, with `environment` added to ours."""
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", SUPERVISOR, "supervisor", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self._process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End the command, in peace if it ends within some seconds; return when it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


if __name__ == "__main__":
    try:
        java()
    except JavaError as error:
        sys.exit(str(error))
