"""Random change logs of products, and the versions that they tell: a model in plain Python, one change at a time."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from stripe_platform_tests.integration.test_warehouse import EPOCH, UNCHANGED, Lake, key

NO_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
TEXTS = ("name", "tax_code")

# is_deleted, name, tax_code, active.
State = tuple[bool, str | None, str | None, bool | None]


@dataclass
class Told:
    """What the log has told of one product: its states in time, and the values known since it was lost last."""

    states: list[tuple[datetime, State]] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)
    lost_at: datetime | None = None

    def row(self, op: str, time: datetime, change: dict[str, Any]) -> None:
        self._found(op)
        self.known |= {name: change[name] for name in TEXTS if change[name] is not UNCHANGED}
        self.states.append((time, (False, self.known.get("name"), self.known.get("tax_code"), change["active"])))

    def gone(self, time: datetime) -> None:
        self._found("d")
        self.known = {}
        self.states.append((time, self._without()))

    def truncated(self, time: datetime) -> None:
        if self.lost_at is None:
            self.gone(time)

    def lost(self, time: datetime) -> None:
        self.known = {}
        self.lost_at = self.lost_at or time

    def versions(self) -> list[tuple[datetime, State]]:
        """When each state that lasted began."""
        states = [*self.states, *([(self.lost_at, self._without())] if self.lost_at else [])]
        lasting: dict[datetime, State] = {}
        clock = NO_BEGINNING
        for time, state in states:
            clock = max(clock, time)
            lasting[clock] = state
        begun = list(lasting.items())
        return [begun[0], *(after for before, after in pairwise(begun) if before[1] != after[1])]

    def _found(self, op: str) -> None:
        """A row that comes again after a loss has lived on, unless it is inserted."""
        if self.lost_at and op == "c":
            self.states.append((self.lost_at, self._without()))
        self.lost_at = None

    def _without(self) -> State:
        """Deleted, with the values it had last."""
        return (True, *self.states[-1][1][1:]) if self.states else (True, None, None, None)


class ProductHistories:
    """A PostgreSQL of products in miniature, one history per seed, written to a lake; truncates are of all of them."""

    def __init__(self, lake: Lake, seeds: Sequence[int]) -> None:
        self.lake = lake
        self.chances = {seed: random.Random(seed) for seed in seeds}  # noqa: S311 - repeatable, not secret
        self.rows: dict[int, dict[str, dict[str, Any]]] = {seed: {} for seed in seeds}
        self.streamed: dict[int, list[dict[str, Any]]] = {seed: [] for seed in seeds}
        self.made: dict[int, list[str]] = {seed: [] for seed in seeds}
        self.told: dict[str, Told] = {}
        self.batch: list[dict[str, Any]] = []
        self.is_losing = False
        self.now = self.known_until = EPOCH
        # Changes of transactions that were open when the snapshot was taken come after it, with lower LSNs.
        self.lsn, self.snapshot_lsn = 4_950, 5_000

    def begin(self) -> None:
        """A snapshot, and changes after it."""
        for seed in self.chances:
            for _ in range(10):
                row = self._new_row(seed)
                self._log(row | {"_op": "r", "_lsn": self.snapshot_lsn, "_snapshot": True})
        self._step(60)

    def lose_and_read_again(self) -> None:
        """Changes are lost twice, each time before all living rows are read again."""
        for _ in range(2):
            self._step(20)
            self._lose()
            # Changes of rows that the log knows no more come before the rows are read again.
            self._step(5)
            for rows in self.rows.values():
                for row in rows.values():
                    self._read(row)
            self._step(20)

    def truncate_and_go_on(self) -> None:
        """All products are gone at once, and others come."""
        self._step(20)
        self._truncate()
        self._step(40)

    def versions(self) -> list[tuple[Any, ...]]:
        """(id, version, valid_from, valid_to, is_deleted, name, tax_code, active) of each version."""
        listed: list[tuple[Any, ...]] = []
        for identity in sorted(self.told):
            begun = self.told[identity].versions()
            begins = [NO_BEGINNING, *(begin for begin, _ in begun[1:])]
            ends = [*begins[1:], None]
            for number, (begin, end, (_, state)) in enumerate(zip(begins, ends, begun, strict=True), start=1):
                listed.append((identity, number, begin, end, *state))
        return listed

    def _step(self, count: int) -> None:
        for _ in range(count):
            for seed, chance in self.chances.items():
                # Now and then in the transaction of the change before, and by a clock that was set back.
                self.now += timedelta(milliseconds=chance.choice([0, 0, 1, 5, 20, 50, -3]))
                self._change(seed, chance)
        self._flush()

    def _change(self, seed: int, chance: random.Random) -> None:
        live = list(self.rows[seed].values())
        gone = [identity for identity in self.made[seed] if identity not in self.rows[seed]]
        kind = chance.choices(
            ["insert", "update", "touch", "delete", "insert again", "replay", "read again"], [3, 9, 2, 3, 2, 3, 2]
        )[0]
        if kind == "replay" and self.streamed[seed]:
            self._log(chance.choice(self.streamed[seed]), is_replay=True)
        elif kind == "read again" and live:
            self._read(chance.choice(live))
        elif kind == "delete" and live:
            row = self.rows[seed].pop(chance.choice(live)["id"])
            self._stream(seed, {"_op": "d", "id": row["id"]})
        elif kind in ("update", "touch") and live:
            self._update(seed, chance, chance.choice(live), is_touch=kind == "touch")
        else:
            identity = chance.choice(gone) if kind == "insert again" and gone else None
            self._stream(seed, self._new_row(seed, identity) | {"_op": "c"})

    def _new_row(self, seed: int, identity: str | None = None) -> dict[str, Any]:
        chance = self.chances[seed]
        if identity is None:
            identity = key(seed * 10_000 + len(self.made[seed]))
            self.made[seed].append(identity)
        row: dict[str, Any] = {"id": identity, "created": EPOCH, "active": True, "metadata": "{}"}
        row |= {name: self._text(chance) for name in TEXTS}
        self.rows[seed][identity] = row
        return row

    def _update(self, seed: int, chance: random.Random, row: dict[str, Any], *, is_touch: bool) -> None:
        """Some of the shown columns, or by a touch none of them."""
        values: dict[str, Any] = {"metadata": str(chance.random())}
        left_out = {name: UNCHANGED for name in TEXTS if chance.random() < 0.5}
        if not is_touch:
            values |= {"active": chance.random() < 0.5}
            values |= {name: self._text(chance) for name in TEXTS if name not in left_out}
        row |= values
        self._stream(seed, row | left_out | {"_op": "u"})

    def _text(self, chance: random.Random) -> str | None:
        return chance.choice([None, "a", "b", "c"])

    def _read(self, row: dict[str, Any]) -> None:
        self._log(row | {"_op": "r", "_lsn": None, "_snapshot": True})

    def _stream(self, seed: int, change: dict[str, Any]) -> None:
        self.lsn += self.chances[seed].randint(1, 5)
        change = change | {"_lsn": self.lsn, "_committed_at": self.now}
        self.streamed[seed].append(change)
        self._log(change)

    def _log(self, change: dict[str, Any], *, is_replay: bool = False) -> None:
        if self.is_losing:
            return
        change = {"_committed_at": self.now} | change
        time: datetime = change["_committed_at"]
        self.batch.append(change)
        self.known_until = max(time, self.known_until)
        if is_replay:
            return
        told = self.told.setdefault(change["id"], Told())
        if change["_op"] == "d":
            told.gone(time)
        else:
            told.row(change["_op"], time, change)

    def _flush(self) -> None:
        self.lake.write("products", *self.batch)
        self.batch.clear()

    def _lose(self) -> None:
        self.is_losing = True
        self._step(10)
        self.is_losing = False
        self.lake.lose("products", 0, 3)
        for told in self.told.values():
            told.lost(self.known_until + timedelta(microseconds=1))
        # Nothing from before can be replayed: it is in no topic.
        for streamed in self.streamed.values():
            streamed.clear()

    def _truncate(self) -> None:
        # Rows that are read have no LSN: by the clock they are before it, or after it.
        self.now += timedelta(seconds=1)
        self.lsn += 10
        self.lake.write("products", {"_op": "t", "_lsn": self.lsn, "_committed_at": self.now})
        for told in self.told.values():
            told.truncated(self.now)
        self.known_until = self.now
        self.now += timedelta(seconds=1)
        for rows in self.rows.values():
            rows.clear()
