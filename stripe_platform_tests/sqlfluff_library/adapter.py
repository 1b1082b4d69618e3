"""dbt's `adapter` for sqlfluff, which connects to nothing: a dispatched macro is DuckDB's, or the default one."""

from collections.abc import Callable
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context, Undefined


def dispatch(name: str) -> Callable[..., Any]:
    """The macro that dbt would choose."""

    @pass_context
    def call(context: Context, *arguments: Any, **named: Any) -> Any:
        found = context.resolve(f"duckdb__{name}")
        macro = context.resolve(f"default__{name}") if isinstance(found, Undefined) else found
        return macro(*arguments, **named)

    return call
