"""Kafka Connect's REST interface: the few calls the platform needs, each with a time limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from stripe_platform.errors import StripePlatformError

# Validation connects to PostgreSQL before Connect answers.
ANSWER_LIMIT = timedelta(seconds=30)


class ConnectUnavailable(StripePlatformError):
    """Kafka Connect cannot be reached, or is rebalancing for longer than we wait."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"Kafka Connect at {url} does not answer: {reason}; "
            "see `stripe-platform status` and Connect's log, and start it with `stripe-platform up`"
        )


class ConnectRefused(StripePlatformError):
    """Kafka Connect answered that the request is wrong."""

    def __init__(self, what: str, status: int, reason: str) -> None:
        super().__init__(
            f"Kafka Connect refused {what} (HTTP {status}): {reason}; mend debezium/*.json or what it names"
        )


class _Passing(Exception):
    """An answer that another attempt may change."""


@dataclass(frozen=True)
class ConnectClient:
    """One Connect cluster; for `patience` a call goes on trying while the cluster starts or rebalances."""

    url: str
    patience: timedelta = timedelta(seconds=60)

    def config(self, name: str) -> dict[str, str] | None:
        """The configuration as Connect keeps it, references unresolved; None when there is none."""
        config: dict[str, str] | None = self._call("GET", f"/connectors/{name}/config")
        return config

    def put_config(self, name: str, config: Mapping[str, str]) -> None:
        """Create the connector or replace its configuration; `ConnectRefused` when it is not valid."""
        self._call("PUT", f"/connectors/{name}/config", json=dict(config))

    def status(self, name: str) -> dict[str, Any] | None:
        """States of the connector and its tasks; None when there is no such connector."""
        status: dict[str, Any] | None = self._call("GET", f"/connectors/{name}/status")
        return status

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """The source offsets that the connector has stored; empty before its first record."""
        stored: dict[str, list[dict[str, Any]]] = self._call("GET", f"/connectors/{name}/offsets") or {}
        return stored.get("offsets", [])

    def restart_failed(self, name: str) -> None:
        """Restart the connector and those of its tasks that have failed."""
        self._call("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")

    def resume(self, name: str) -> None:
        """Read on after a pause or a stop."""
        self._call("PUT", f"/connectors/{name}/resume")

    def stop(self, name: str) -> None:
        """End the tasks, for good until `resume`; harmless when there is no such connector."""
        self._call("PUT", f"/connectors/{name}/stop")

    def delete_offsets(self, name: str) -> None:
        """Forget how far the connector has read; only of a stopped one."""
        self._call("DELETE", f"/connectors/{name}/offsets")

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        """The decoded answer; None for 404 and for an empty body."""
        attempts = Retrying(
            stop=stop_after_delay(self.patience),
            wait=wait_exponential_jitter(multiplier=0.2, max=3),
            retry=retry_if_exception_type((_Passing, httpx.TransportError)),
        )
        try:
            answer: httpx.Response = attempts(self._attempt, method, path, **arguments)
        except RetryError as failure:
            cause = failure.last_attempt.exception()
            raise ConnectUnavailable(self.url, f"{type(cause).__name__}: {cause}") from cause
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.is_error:
            raise ConnectRefused(f"{method} {path.partition('?')[0]}", answer.status_code, _reason(answer))
        return answer.json() if answer.content else None

    def _attempt(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        # Connect is never behind a proxy of the environment.
        answer = httpx.request(
            method, self.url + path, timeout=ANSWER_LIMIT.total_seconds(), trust_env=False, **arguments
        )
        if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.SERVICE_UNAVAILABLE):
            raise _Passing(_reason(answer))
        return answer


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return answer.reason_phrase
