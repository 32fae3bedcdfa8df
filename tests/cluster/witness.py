"""Run inside the cluster: the topic and the tables, read and compared with nothing of the pipeline; prints JSON."""

import hashlib
import json
import math
import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, TopicPartition
from deltalake import DeltaTable

TOPIC = os.environ["KAFKA_TOPIC"]
LAKE = Path(os.environ["LAKEHOUSE_ROOT"])


def in_topic():
    """The value of every record, by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "witness",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 10,
        }
    )
    partitions = list(consumer.list_topics(TOPIC, 10).topics[TOPIC].partitions)
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in partitions])
    values, ended = {}, 0
    while ended < len(partitions):
        for message in consumer.consume(10_000, 10):
            if message.error() is None:
                values[message.partition(), message.offset()] = message.value()
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended += 1
            else:
                raise SystemExit(str(message.error()))
    consumer.close()
    return values


def rows(table, *columns):
    """The rows of a Delta table as tuples."""
    found = DeltaTable(str(LAKE / table)).to_pyarrow_table(columns=list(columns))
    return list(zip(*(found[column].to_pylist() for column in columns), strict=True))


topic = in_topic()
bronze = rows("bronze/vehicles_events", "partition", "offset", "value")
silver = rows("silver/vehicles_events", "partition", "offset", "event_id", "type", "battery", "lat")
rejected = rows("silver/rejected_events", "partition", "offset", "reason")
landed = Counter(row[:2] for row in bronze)
judged = Counter(row[:2] for row in silver) + Counter(row[:2] for row in rejected)
recomputed = []
for kind in sorted({row[3] for row in silver}):
    of_kind = [row for row in silver if row[3] == kind]
    batteries = [row[4] for row in of_kind if row[4] is not None]
    average = math.fsum(batteries) / len(batteries) if batteries else None
    recomputed.append([kind, len(of_kind), average, max(row[5] for row in of_kind)])
gold = [list(row.values()) for row in pq.read_table(LAKE / "gold/stats").to_pylist()]
print(
    json.dumps(
        {
            "records": len(topic),
            "lost": sum(1 for place in topic if place not in landed),
            "made up": sum(1 for *place, value in bronze if topic.get(tuple(place), b"") != value),
            "repeated": sum(1 for count in landed.values() if count > 1),
            "unaccounted": sum(1 for place in landed.keys() | judged.keys() if landed[place] != judged[place]),
            "twice in Silver": len(silver) - len({row[2] for row in silver}),
            "reasons": Counter(row[2] for row in rejected),
            "digest": hashlib.sha256(repr([sorted(silver), sorted(rejected), gold]).encode()).hexdigest(),
            "columns": pq.read_schema(LAKE / "gold/stats/stats.parquet").names,
            "gold": gold,
            "recomputed": recomputed,
        }
    )
)
