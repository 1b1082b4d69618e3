"""Python's search for cycles of garbage, which finds none among changes and documents."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects made until the next search. A batch makes some 50,000 that live until it is written, and with Python's own
# threshold of hundreds each of them is looked at again and again: a third of a drain's processor time.
_OBJECTS = 50_000


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Have the process look for cycles as seldom as batches are big; as before at the end."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
