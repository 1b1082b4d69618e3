"""UUIDv7 keys for many rows at once."""

import os

import numpy as np
import numpy.typing as npt
import polars as pl

_COUNTER_BITS = 26


def uuid_v7_keys(times: pl.Series, order: pl.Series, random: np.random.Generator | None = None) -> pl.Series:
    """Keys as 32 hexadecimal digits, one for each time (`Datetime` in UTC, from 1970 on).

    Keys sort by the millisecond of their time, then by `order` (0 ≤ order < 2^26), the place among rows of
    one instant: RFC 9562 section 6.2, method 1, a counter in front of 48 random bits. With `random` these
    bits are drawn from it: the same state, the same keys.
    """
    milliseconds = times.dt.epoch("ms").to_numpy().astype(np.uint64)
    counter = order.to_numpy().astype(np.uint64)
    if len(counter) and int(counter.max()) >> _COUNTER_BITS:
        raise ValueError(f"more than {2**_COUNTER_BITS} rows of one instant")
    words = np.empty((len(milliseconds), 2), dtype=">u8")
    words[:, 0] = milliseconds << np.uint64(16) | np.uint64(7 << 12) | counter >> np.uint64(14)
    words[:, 1] = np.uint64(2 << 62) | (counter & np.uint64(0x3FFF)) << np.uint64(48) | _random_48(len(counter), random)
    digits = words.tobytes().hex()
    return pl.Series([digits[at : at + 32] for at in range(0, len(digits), 32)], dtype=pl.String)


def _random_48(count: int, random: np.random.Generator | None) -> npt.NDArray[np.uint64]:
    if random is not None:
        return random.integers(2**48, size=count, dtype=np.uint64)
    return np.frombuffer(os.urandom(8 * count), dtype=np.uint64) & np.uint64(0xFFFF_FFFF_FFFF)
