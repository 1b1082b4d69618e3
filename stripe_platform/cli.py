"""The command line, `stripe-platform`: every command is one call into a room, and one way to show the answer."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import load_settings

app = typer.Typer(
    help="A payments data platform: PostgreSQL, Debezium, Kafka, Delta, dbt and Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
P = ParamSpec("P")
# Results go to stdout alone, so that a script can read them; all else goes here.
messages = Console(stderr=True)


def _plain_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Print a mendable error as its message, without a traceback, and exit with 1."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StripePlatformError as error:
            messages.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error

    return wrapper


@app.command()
@_plain_errors
def up(
    empty: Annotated[
        bool, typer.Option("--empty", help="Servers, schema and connector only: no payments, no Dagster.")
    ] = False,
) -> None:
    """Start the stack, migrate, register the connector, import sample payments and move them to the marts."""
    from stripe_platform.bring_up import bring_up

    bring_up(load_settings(), empty=empty, console=Console())


@app.command()
@_plain_errors
def down() -> None:
    """Stop every process of this stack; its data stays."""
    from stripe_platform.local.stack import stop

    stop(load_settings())
    messages.print("stopped")


@app.command()
@_plain_errors
def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what runs, the rows per stage, the lag and the last days' revenue."""
    from stripe_platform.status import platform_status, print_status

    state = platform_status(load_settings())
    if as_json:
        typer.echo(state.model_dump_json(indent=2))
    else:
        print_status(state, Console())


@app.command()
@_plain_errors
def run(job: Annotated[str, typer.Argument(help="Name of a Dagster job.")]) -> None:
    """Execute a Dagster job and wait for it; exits with 1 when it fails."""
    from stripe_platform.run import run_job

    if not run_job(load_settings(), job):
        raise typer.Exit(1)


@app.command()
@_plain_errors
def sql(
    statement: Annotated[str, typer.Argument(help="A query on the published warehouse.")],
    csv: Annotated[bool, typer.Option("--csv", help="CSV with a header on stdout, nothing else.")] = False,
) -> None:
    """Query the marts, read only."""
    from stripe_platform.warehouse.query import print_table, query_csv

    if csv:
        query_csv(load_settings(), statement, sys.stdout)
    else:
        print_table(load_settings(), statement, Console())


@app.command()
@_plain_errors
def psql(statement: Annotated[str, typer.Argument(help="One or more statements for PostgreSQL.")]) -> None:
    """Execute statements on PostgreSQL in one transaction; rows come as CSV with a header on stdout."""
    from stripe_platform.oltp.statement import execute_statement

    execute_statement(load_settings(), statement, sys.stdout)


@app.command("import-payments")
@_plain_errors
def import_payments(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV file of payments.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Put bad rows into a rejects file instead of stopping.")
    ] = False,
) -> None:
    """Import payments into PostgreSQL; importing the same file again changes nothing."""
    from stripe_platform.bring_up import import_with_progress

    import_with_progress(load_settings(), file, skip_bad=skip_bad, console=Console())


if __name__ == "__main__":
    app()
