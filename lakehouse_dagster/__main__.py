"""What `dagster` has no command for: broker and UI together, and a look at Gold."""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq

from assets.stats import gold_stats
from lakehouse_dagster.definitions import HOME, kafka, parquet
from resources.broker import BrokerError, EmbeddedBroker
from resources.jvm import JavaError


def main(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m lakehouse_dagster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gold", help="print the statistics per vehicle type, and where they lie")
    commands.add_parser("dev", help="run Kafka and the Dagster UI until Ctrl-C; further arguments go to `dagster dev`")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command == "dev":
        return dev(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return gold()


def gold() -> int:
    """Print the Gold table."""
    path = parquet.path(gold_stats.key)
    if not path.exists():
        print(f"There is no {path} yet: run the job `lakehouse` first.", file=sys.stderr)
        return 1
    print(pq.read_table(path).to_pandas().to_string(index=False))
    print(f"\nin {path}")
    return 0


def dev(arguments: list[str]) -> int:
    """Run `dagster dev` with the embedded broker, or with KAFKA_BOOTSTRAP_SERVERS where that is set."""
    broker = EmbeddedBroker(Path(kafka.broker_home))
    serving = nullcontext(kafka.bootstrap_servers) if kafka.bootstrap_servers else broker.serving(kafka.topic)
    home = os.environ.get("DAGSTER_HOME") or str(HOME / "dagster")
    Path(home).mkdir(parents=True, exist_ok=True)
    try:
        with serving as address:
            print(f"Kafka is at {address}, topic {kafka.topic}", flush=True)
            environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": str(address), "DAGSTER_HOME": home}
            command = [sys.executable, "-m", "dagster", "dev", *arguments]
            # Where it is ignored, as in the background of a shell script, `dagster dev` would inherit that.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # In a session of its own, so that Ctrl-C and SIGTERM both reach it once, and through us.
            dagster = subprocess.Popen(command, env=environment, start_new_session=True)
            asked = _forward(dagster, signal.SIGINT, signal.SIGTERM)
            code = dagster.wait()
            return 0 if asked else code
    except (BrokerError, JavaError) as error:
        print(f"python -m lakehouse_dagster dev: {error}", file=sys.stderr)
        return 1


def _forward(process: subprocess.Popen[bytes], *signals: signal.Signals) -> list[int]:
    """Have `process` interrupted when one of `signals` reaches us; the ones that did, as they come."""
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        process.send_signal(signal.SIGINT)

    for number in signals:
        signal.signal(number, interrupt)
    return received


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
