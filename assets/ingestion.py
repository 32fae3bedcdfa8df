"""Vehicle events put into the topic: the asset upstream of everything, which drives the producer."""

import datetime as dt
import time

import dagster as dg

from producer.generator import generate
from producer.publish import publish
from resources.kafka import KafkaResource


class IngestionConfig(dg.Config):
    """What to send. Without a seed each run sends events of its own, and a retry of a run sends the same again."""

    count: int = 30
    seed: str | None = None


@dg.asset(key=["kafka", "vehicles_events"], group_name="ingestion", kinds={"kafka"}, owners=["team:platform"])
def vehicles_topic(
    context: dg.AssetExecutionContext, config: IngestionConfig, kafka: KafkaResource
) -> dg.MaterializeResult[None]:
    """Events of a made-up fleet around Paris, delivered to Kafka.

    Grain: one record per event. The events' ids follow from the seed, by default the run that was retried first,
    so that what a retry sends again is known again in Silver.
    """
    kafka.state()  # so that what cannot be reached is told with the setting that names it
    seed = config.seed or context.run.root_run_id or context.run.run_id
    events = generate(config.count, seed, dt.datetime.now(dt.UTC))
    started = time.monotonic()
    delivery = publish(events, kafka.client_config(), kafka.topic)
    print(delivery.summary(kafka.topic))
    return dg.MaterializeResult(
        metadata={
            "delivered": delivery.delivered,
            "offsets": {str(p): {"first": first, "last": last} for p, (first, last) in delivery.offsets.items()},
            "seconds": {
                "starting and sending": round(time.monotonic() - started, 3),
                "sending": round(delivery.seconds, 3),
            },
            "seed": seed,
        }
    )
