"""Kafka Connect, distributed, with Debezium's connector as its plugin."""

import httpx

from stripe_platform.local.artifacts import plugin_path
from stripe_platform.local.java import java_command, properties
from stripe_platform.local.server import Program, Server, run_folder, write_private
from stripe_platform.settings import Settings

HEAP_MB = 768
PROBE_TIMEOUT_S = 5
DEBEZIUM = "io.debezium.connector.postgresql.PostgresConnector"
# What a connector's configuration may refer to as `${env:NAME}`.
REFERABLE = ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DATABASE", "CDC_PASSWORD", "TOAST_PLACEHOLDER")


def _configuration(settings: Settings) -> dict[str, object]:
    json = "org.apache.kafka.connect.json.JsonConverter"
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "group.id": "stripe-connect",
        "key.converter": json,
        "key.converter.schemas.enable": "false",
        "value.converter": json,
        "value.converter.schemas.enable": "false",
        "config.storage.topic": "stripe-connect-configs",
        "config.storage.replication.factor": 1,
        "offset.storage.topic": "stripe-connect-offsets",
        "offset.storage.replication.factor": 1,
        "offset.storage.partitions": 5,
        "status.storage.topic": "stripe-connect-status",
        "status.storage.replication.factor": 1,
        "status.storage.partitions": 1,
        "exactly.once.source.support": "enabled",
        "offset.flush.interval.ms": 1000,
        # There is one worker: nobody else could take over its tasks while it restarts.
        "scheduled.rebalance.max.delay.ms": 0,
        "connector.client.config.override.policy": "All",
        "config.providers": "env",
        "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
        "config.providers.env.param.allowlist.pattern": "|".join(REFERABLE),
        "plugin.path": plugin_path(),
        "plugin.discovery": "service_load",
        "listeners": f"http://{settings.connect_host}:{settings.connect_port}",
        "rest.advertised.host.name": settings.connect_host,
        "rest.advertised.port": settings.connect_port,
    }


def _prepare(settings: Settings) -> None:
    write_private(run_folder(settings) / "connect.properties", properties(_configuration(settings)))


def _program(settings: Settings) -> Program:
    return Program(
        name="connect",
        command=java_command(
            "org.apache.kafka.connect.cli.ConnectDistributed",
            str(run_folder(settings) / "connect.properties"),
            heap_mb=HEAP_MB,
        ),
        environment={
            "POSTGRES_HOST": settings.postgres_host,
            "POSTGRES_PORT": str(settings.postgres_port),
            "POSTGRES_DATABASE": settings.postgres_database,
            "CDC_PASSWORD": settings.secret("cdc_password"),
            "TOAST_PLACEHOLDER": settings.secret("toast_placeholder"),
        },
        stop_limit=20,
    )


def _why_not_ready(settings: Settings) -> str | None:
    try:
        # The answer comes from this machine: no proxy of the environment may stand between.
        with httpx.Client(base_url=settings.connect_url, timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            if client.get("/health").status_code != httpx.codes.OK:
                return "its worker has not joined its group yet"
            plugins = client.get("/connector-plugins").raise_for_status().json()
    except httpx.HTTPError:
        return "it does not answer yet"
    known = any(plugin["class"] == DEBEZIUM for plugin in plugins)
    return None if known else "it does not know Debezium's connector"


CONNECT = Server(
    name="connect",
    title="Kafka Connect",
    ports=lambda settings: {"CONNECT_PORT": settings.connect_port},
    prepare=_prepare,
    program=_program,
    why_not_ready=_why_not_ready,
)
