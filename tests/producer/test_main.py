"""The command line: what it sends, what it prints, how it ends."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections import Counter

import pytest

from producer import progress, publish
from producer.__main__ import main
from resources.broker import EmbeddedBroker

COMMAND = [sys.executable, "-m", "producer"]
DEADLINE_SECONDS = 60


def line(vehicle_id: str) -> bytes:
    event = {
        "event_id": str(uuid.uuid4()),
        "vehicle_id": vehicle_id,
        "type": "scoot",
        "battery": 12.5,
        "lat": 48.85,
        "lon": 2.35,
        "event_time": "2026-01-31T12:00:00Z",
    }
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def offsets(printed: str) -> list[tuple[str, str, str]]:
    return re.findall(r"partition (\d+) offsets (\d+) to (\d+)", printed)


@pytest.fixture
def target(broker, topic):
    return ["--bootstrap-servers", broker, "--topic", topic]


@pytest.fixture
def wait_for(landed):
    """Read the topic until it holds `count` records."""

    def wait(count):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(records := landed()) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} records"
        return records

    return wait


# What is sent


def test_thirty_events_by_default_and_one_line_about_them(target, topic, landed, capsys):
    assert main(target) == 0
    kinds = [json.loads(message.value())["type"] for message in landed()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"car": 10, "bike": 10, "scoot": 10}
    out, err = capsys.readouterr()
    place = r"partition \d offsets 0 to \d+"
    assert re.fullmatch(rf"30 events delivered to {topic} in \d+\.\d s: {place}(, {place})*\n", out)
    assert err == ""


def test_the_offsets_printed_are_those_in_the_topic(target, landed, capsys):
    main([*target, "--count", "300"])
    per_partition = Counter(message.partition() for message in landed())
    assert offsets(capsys.readouterr().out) == [(str(p), "0", str(per_partition[p] - 1)) for p in sorted(per_partition)]


@pytest.mark.parametrize(("count", "words"), [("0", "0 events delivered"), ("1", "1 event delivered")])
def test_count(target, landed, capsys, count, words):
    assert main([*target, "--count", count]) == 0
    assert capsys.readouterr().out.startswith(words)
    assert len(landed()) == int(count)


def test_a_seed_names_the_events(target, landed):
    for _ in range(2):
        main([*target, "--count", "3", "--seed", "again"])
    main([*target, "--count", "3"])
    ids = [json.loads(message.value())["event_id"] for message in landed()]
    assert sorted(ids.count(name) for name in set(ids)) == [1, 1, 1, 2, 2, 2]


def test_where_to_send_comes_from_the_environment(broker, topic, landed, monkeypatch, tmp_path):
    (tmp_path / "client.properties").write_text("# a comment\n\nclient.id = a stranger\n")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("KAFKA_TOPIC", topic)
    monkeypatch.setenv("KAFKA_PROPERTIES_FILE", str(tmp_path / "client.properties"))
    assert main([]) == 0
    assert len(landed()) == 30


def test_the_address_may_be_in_the_properties(broker, topic, landed, tmp_path):
    (tmp_path / "client.properties").write_text(f"bootstrap.servers={broker}\n")
    assert main(["--properties", str(tmp_path / "client.properties"), "--topic", topic]) == 0
    assert len(landed()) == 30


def test_a_file_of_json_lines(target, landed, tmp_path, capsys):
    (tmp_path / "events.jsonl").write_bytes(line("s1") + b"\n" + b"oops\n" + line("s2") + b"{}\n" + line("s3"))
    assert main([*target, "--file", str(tmp_path / "events.jsonl")]) == 0
    assert {message.key() for message in landed()} == {b"s1", b"s2", b"s3"}
    out, err = capsys.readouterr()
    assert out.startswith("3 events delivered")
    assert err.splitlines() == [
        "1 refused: not JSON (first: line 3: JSON is malformed: invalid character (byte 0))",
        "1 refused: not a vehicle event (first: line 5: Object missing required field `event_id`)",
    ]


def test_standard_input_is_sent_as_it_comes(target, wait_for):
    with subprocess.Popen(
        [*COMMAND, *target, "--file", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        first, second = line("s1"), line("s2")
        command.stdin.write(first)
        command.stdin.flush()
        (record,) = wait_for(1)
        assert (record.key(), record.value() + b"\n", record.headers()) == (b"s1", first, None)
        out, err = command.communicate(b"oops\n" + second, DEADLINE_SECONDS)
    assert command.returncode == 0
    assert out.startswith(b"2 events delivered")
    assert err.startswith(b"1 refused: not JSON (first: line 2: ")
    assert {record.key() for record in wait_for(2)} == {b"s1", b"s2"}


def test_a_gbfs_feed(target, landed, feeds, capsys):
    assert main([*target, "--gbfs", str(feeds / "2.3/free_bike_status.json")]) == 0
    records = {message.key(): json.loads(message.value()) for message in landed()}
    assert sorted(records) == [b"a1", b"b2", b"c3", b"d4", b"e5", b"f6", b"g7", b"h8"]
    assert records[b"f6"] == {
        "event_id": records[b"f6"]["event_id"],
        "vehicle_id": "f6",
        "type": "car",
        "battery": 50.0,
        "lat": 48.833,
        "lon": 2.3708,
        "event_time": "2024-06-10T06:12:25Z",
    }
    out, err = capsys.readouterr()
    assert out.startswith("8 events delivered")
    assert sum(int(text.split(" refused: ")[0]) for text in err.splitlines()) == 9


def test_a_gbfs_feed_with_its_types_elsewhere(target, landed, feeds, capsys):
    feed, types = str(feeds / "1.0/free_bike_status.json"), str(feeds / "3.0/vehicle_types.json")
    assert main([*target, "--gbfs", feed, "--vehicle-types", types]) == 0
    assert {json.loads(message.value())["type"] for message in landed()} == {"other", "scoot"}


def test_the_rate_paces(target):
    started = time.monotonic()
    assert main([*target, "--count", "6", "--rate", "10"]) == 0
    assert time.monotonic() - started >= 0.45


def test_without_an_address_a_broker_starts_here_and_stops_again(tmp_path):
    first, second = (
        subprocess.run(
            [*COMMAND, "--count", "30", "--seed", "s"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE_SECONDS,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert first.startswith("30 events delivered to vehicles-events in ")
    # Its data are kept: the second run goes on where the first ended.
    assert [(p, str(int(b) + 1)) for p, _, b in offsets(first)] == [(p, a) for p, a, _ in offsets(second)]
    assert EmbeddedBroker(tmp_path / ".lakehouse/kafka").running() is None


# How it ends otherwise


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--count", "-1"], "argument --count: '-1' is not a whole number of 0 or more"),
        (["--count", "many"], "argument --count: 'many' is not a whole number of 0 or more"),
        (["--rate", "0"], "argument --rate: '0' is not a number above 0"),
        (["--rate", "-1"], "argument --rate: '-1' is not a number above 0"),
        (["--rate", "nan"], "argument --rate: 'nan' is not a number above 0"),
        (["--rate", "fast"], "argument --rate: 'fast' is not a number above 0"),
        (["--count", "30", "--file", "f"], "argument --file: not allowed with argument --count"),
        (["--file", "f", "--gbfs", "g"], "argument --gbfs: not allowed with argument --file"),
        (["--vehicle-types", "t"], "argument --vehicle-types: needs --gbfs"),
        (["--file", "f", "--seed", "s"], "argument --seed: needs --count"),
        (
            ["--topic", "a b"],
            "argument --topic: 'a b' is no topic name: letters, digits, '.', '_' and '-', at most 249",
        ),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr() == ("", f"producer: error: {complaint}\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--file", "missing.jsonl"], "--file: .*No such file or directory: 'missing.jsonl'"),
        (["--file", "."], "--file: .*Is a directory"),
        (["--gbfs", "missing.json"], "--gbfs: cannot read missing.json: .*No such file"),
        (["--gbfs", "http://127.0.0.1:1/gbfs.json"], "--gbfs: cannot read http://127.0.0.1:1/gbfs.json: .*refused"),
        (["--gbfs", "list.json"], "--gbfs: the document is not a JSON object"),
        (["--gbfs", "list.json", "--vehicle-types", "t.json"], "--gbfs: the document is not a JSON object"),
        (["--properties", "missing.properties"], "--properties: .*No such file"),
        (["--properties", "list.json"], "--properties: list.json, line 2: not key=value"),
        (["--topic", "missing"], "topic 'missing' at .*: Broker: Unknown topic or partition"),
        (["--bootstrap-servers", "127.0.0.1:1"], "no Kafka broker answers at 127.0.0.1:1: .*Connection refused"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_1(
    target, tmp_path, monkeypatch, capsys, landed, arguments, complaint
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "CONNECT_TIMEOUT_SECONDS", 0.5 if "127.0.0.1:1" in arguments else 10)
    (tmp_path / "list.json").write_text("\n[]\n")
    assert main([*target, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"producer: error: {complaint}.*\n", err)
    assert landed() == []
    assert not (tmp_path / ".lakehouse").exists()


def test_an_undelivered_event_is_exit_code_1_with_what_was_refused(target, topic, tmp_path, capsys):
    (tmp_path / "events.jsonl").write_bytes(b"oops\n" + line("x" * 2_000_000))
    assert main([*target, "--file", str(tmp_path / "events.jsonl")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "1 refused: not JSON (first: line 1: JSON is malformed: invalid character (byte 0))",
        f"producer: error: 1 of 1 events were not delivered to topic {topic!r}: "
        "1 times Unable to produce message: Broker: Message size too large",
    ]


def test_without_java_no_broker_starts_and_one_line_says_what_to_install(tmp_path):
    run = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert re.fullmatch(r"producer: error: No Java found.* Install .*\n", run.stderr)


def test_ctrl_c_ends_it_without_a_traceback(target, wait_for):
    with subprocess.Popen(
        [*COMMAND, *target, "--count", "100000", "--rate", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background of a shell, interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as command:
        wait_for(1)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=DEADLINE_SECONDS)
    assert (command.returncode, out, err) == (130, "", "producer: interrupted\n")


def test_ctrl_c_that_reaches_a_delivery_report_is_not_lost(target, capsys, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(progress.tqdm, "update", lambda bar: signal.raise_signal(signal.SIGINT))
    try:
        assert main(target) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.endswith("producer: interrupted\n")


# What it shows meanwhile


def test_a_terminal_shows_a_bar(target):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen([*COMMAND, *target], stdout=subprocess.PIPE, stderr=theirs) as command:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:
            pass  # Linux's way to say that the other end is closed.
        finally:
            os.close(ours)
        command.communicate(timeout=DEADLINE_SECONDS)
    assert command.returncode == 0
    assert b"\r" in shown
    assert b"30/30" in shown


def test_a_log_shows_plain_lines_now_and_then(target, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.1)
    assert main([*target, "--count", "50", "--rate", "100"]) == 0
    shown = capsys.readouterr().err
    assert 1 <= len(shown.splitlines()) <= 6
    assert all(re.fullmatch(r"\d+ of 50 events delivered after 00:00", text) for text in shown.splitlines())
    assert "\r" not in shown


def test_a_log_shows_no_total_where_none_is_known(target, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.1)
    (tmp_path / "events.jsonl").write_bytes(line("s1") * 30)
    assert main([*target, "--file", str(tmp_path / "events.jsonl"), "--rate", "100"]) == 0
    assert re.fullmatch(r"(\d+ events delivered after 00:00\n)+", capsys.readouterr().err)


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    names = ["count", "seed", "file", "gbfs", "vehicle-types", "rate", "topic", "bootstrap-servers", "properties"]
    assert all(f"\n  --{name} " in shown for name in names)
    assert max(map(len, shown.splitlines())) <= 80
