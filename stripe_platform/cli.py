"""The command line, `stripe-platform`: every command is one call into a room, and one way to show the answer."""

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Annotated, Literal, ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import load_settings

app = typer.Typer(
    help="A payments data platform: PostgreSQL, Debezium, Kafka, Delta, dbt and Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
P = ParamSpec("P")
Sink = Literal["raw", "mongodb"]
# Results go to stdout alone, so that a script can read them; all else goes here. What is told may quote file names,
# data or other programs: brackets and colons in it are no markup.
messages = Console(stderr=True, markup=False, emoji=False)


def _answers() -> Console:
    return Console(markup=False, emoji=False)


def _plain_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Print a mendable error as its message, without a traceback, and exit with 1."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StripePlatformError as error:
            messages.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)
            raise typer.Exit(1) from error

    return wrapper


@app.command()
@_plain_errors
def up(
    empty: Annotated[
        bool, typer.Option("--empty", help="Servers, schema and connector only: no payments, no Dagster.")
    ] = False,
) -> None:
    """Start the stack, migrate, register the connector, simulate payments and move them to the marts."""
    from stripe_platform.bring_up import bring_up

    bring_up(load_settings(), empty=empty, console=_answers())


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
        print_status(state, _answers())


@app.command()
@_plain_errors
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Examine machine, servers and stream; each finding comes with its remedy. Exits with 1 when there is a problem."""
    from stripe_platform.doctor.examine import examine, print_diagnosis

    diagnosis = examine(load_settings())
    if as_json:
        typer.echo(diagnosis.model_dump_json(indent=2))
    else:
        print_diagnosis(diagnosis, _answers())
    if diagnosis.has_problem:
        raise typer.Exit(1)


@app.command()
@_plain_errors
def logs(
    server: Annotated[str | None, typer.Argument(help="One server; all of them when left out.")] = None,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines of each log.")] = 20,
) -> None:
    """Show the last lines of the servers' logs, with secrets masked."""
    from stripe_platform.local.logs import show_logs

    try:
        show_logs(load_settings(), server, lines=lines, following=following, out=sys.stdout, told=messages)
    except KeyboardInterrupt:
        # The way to end it.
        return


def _is_asked_on_terminal() -> bool:
    return sys.stdin.isatty()


@app.command()
@_plain_errors
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Stop the stack and remove all its data and secrets; the next `up` begins from nothing."""
    from stripe_platform.local.errors import ResetNotConfirmed
    from stripe_platform.local.reset import plan_reset
    from stripe_platform.local.reset import reset as remove_data

    settings = load_settings()
    if not yes:
        plan = plan_reset(settings)
        if not _is_asked_on_terminal():
            raise ResetNotConfirmed(settings.home)
        messages.print(f"This removes for good, in {plan.describe()}. Downloaded servers stay.", soft_wrap=True)
        typer.confirm("Go on?", abort=True, err=True)
    messages.print(f"removed, in {remove_data(settings).describe()}", soft_wrap=True)


@app.command()
@_plain_errors
def run(job: Annotated[str, typer.Argument(help="Name of a Dagster job.")]) -> None:
    """Execute a Dagster job and wait for it; exits with 1 when it fails."""
    from stripe_platform.run import run_job

    if not run_job(load_settings(), job):
        raise typer.Exit(1)


@app.command()
@_plain_errors
def snapshot(
    tables: Annotated[list[str] | None, typer.Argument(help="Captured tables; left out: those that need it.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Although they have been taken: after a loss.")] = False,
) -> None:
    """Take captured tables into their topics while changes stream; one that is under way is waited for."""
    from stripe_platform.bring_up import snapshot_with_progress

    snapshot_with_progress(load_settings(), tables or None, again=again, console=_answers())


@app.command()
@_plain_errors
def stream(
    sink: Annotated[Sink | None, typer.Option(help="One sink in this process, with nobody to start it again.")] = None,
    watched: Annotated[bool, typer.Option("--watched", hidden=True)] = False,
) -> None:
    """Keep the raw change log and MongoDB at the end of the topics until Ctrl-C or SIGTERM."""
    from stripe_platform.stream.run import run_sink, run_stream

    if sink is None:
        run_stream(load_settings())
    else:
        run_sink(load_settings(), sink, is_watched=watched)


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
        print_table(load_settings(), statement, _answers())


@app.command()
@_plain_errors
def search(
    text: Annotated[str, typer.Argument(help="Words of a merchant's name, a descriptor, a description or a decline.")],
    limit: Annotated[int, typer.Option(min=1, help="So many merchants and charges at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Find merchants and charges by words, for support."""
    from stripe_platform.features.search import print_found
    from stripe_platform.features.search import search as find

    found = find(load_settings(), text, limit=limit)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        print_found(found, Console())


@app.command()
@_plain_errors
def psql(statement: Annotated[str, typer.Argument(help="One or more statements for PostgreSQL.")]) -> None:
    """Execute statements on PostgreSQL in one transaction; rows come as CSV with a header on stdout."""
    from stripe_platform.oltp.statement import execute_statement

    execute_statement(load_settings(), statement, sys.stdout)


@app.command("accept-schema")
@_plain_errors
def accept_schema(table: Annotated[str, typer.Argument(help="A captured table whose log stopped.")]) -> None:
    """Have a table's log go on with the definition that PostgreSQL has of it today; nothing stored is lost."""
    from stripe_platform.raw import acceptance

    accepted = acceptance.accept_schema(load_settings(), table)
    messages.print(acceptance.told(table, accepted), highlight=False, soft_wrap=True)


@app.command()
@_plain_errors
def recover(
    tables: Annotated[list[str] | None, typer.Argument(help="Captured tables; left out: the stream and all.")] = None,
) -> None:
    """Make up for changes that were lost: read the rows again, forget the rest; a lost stream begins anew first."""
    from stripe_platform.raw import recovery

    recovered = recovery.recover_stream(load_settings(), tables or [])
    messages.print(recovery.told(tables or [], recovered), highlight=False, soft_wrap=True)


@app.command()
@_plain_errors
def rebuild(
    collections: Annotated[list[str], typer.Argument(help="Collections of MongoDB, or captured tables in them.")],
) -> None:
    """Build collections anew from the raw change log, say how many documents differed, and put them in place."""
    from stripe_platform.features.rebuild import rebuild as build_anew
    from stripe_platform.features.rebuild import told
    from stripe_platform.features.sink import open_store

    settings = load_settings()
    with open_store(settings) as store:
        rebuilt = build_anew(settings, store, collections)
    messages.print(told(rebuilt), highlight=False, soft_wrap=True)


@app.command("dbt", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@_plain_errors
def run_dbt(context: typer.Context) -> None:
    """Run a dbt command on the published marts, which it can only read, such as `dbt source freshness`."""
    import subprocess

    from stripe_platform.warehouse.model_code import PROJECT_DIR
    from stripe_platform.warehouse.project import DBT
    from stripe_platform.warehouse.published_dbt import dbt_on_published

    with dbt_on_published(load_settings()) as environment:
        run = subprocess.run([DBT, *context.args], cwd=PROJECT_DIR, env=environment, check=False)
    raise typer.Exit(run.returncode)


@app.command("mf", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@_plain_errors
def run_metricflow(context: typer.Context) -> None:
    """Ask the published marts for metrics, such as `mf query --metrics gross,net --group-by metric_time__month`."""
    from stripe_platform.warehouse.metrics import run_mf

    raise typer.Exit(run_mf(load_settings(), context.args))


@app.command()
@_plain_errors
def docs() -> None:
    """Document the published marts (models, columns, tests, lineage) in one HTML file, and print its path."""
    from stripe_platform.warehouse.docs import write_docs

    typer.echo(write_docs(load_settings()))


letters = typer.Typer(help="Records that could not become documents in MongoDB.", no_args_is_help=True)
app.add_typer(letters, name="dead-letters")


@letters.command("list")
@_plain_errors
def list_letters() -> None:
    """Show where each came from and why it was refused; nothing of what it holds."""
    from stripe_platform.features.dead_letters import listed, print_listed
    from stripe_platform.features.sink import open_documents

    with open_documents(load_settings()) as documents:
        print_listed(listed(documents), Console())


@letters.command("replay")
@_plain_errors
def replay_letters(
    ids: Annotated[list[str] | None, typer.Argument(help="Some of them; left out: all.")] = None,
) -> None:
    """Apply them now, each at its own place: what is newer stands. Exits with 1 when some are refused again."""
    from stripe_platform.features.replay import replay, told
    from stripe_platform.features.sink import open_store

    settings = load_settings()
    with open_store(settings) as store:
        replayed = replay(settings, store, ids or None)
    messages.print(told(replayed), highlight=False, soft_wrap=True)
    if replayed.refused:
        raise typer.Exit(1)


@letters.command("triage")
@_plain_errors
def triage_letter(
    id: Annotated[str, typer.Argument(help="As `dead-letters list` shows it.")],
    note: Annotated[str, typer.Option(help="What was found, for those who come later.")],
) -> None:
    """Keep one, as looked after: the check no longer fails for it."""
    from stripe_platform.features.dead_letters import triage
    from stripe_platform.features.sink import open_documents

    with open_documents(load_settings()) as documents:
        triage(documents, id, note)


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

    import_with_progress(load_settings(), file, skip_bad=skip_bad, console=_answers())


@app.command()
@_plain_errors
def simulate(  # noqa: PLR0917 - options have names
    payments: Annotated[int | None, typer.Option(help="History: so many payments, written at once.")] = None,
    days: Annotated[int, typer.Option(help="History: over so many days.")] = 90,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="History: the day before which it ends; today.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Live: so many payments per second, as they happen.")] = None,
    duration: Annotated[float, typer.Option(help="Live: for so many seconds.")] = 60.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same company.")] = 1,
) -> None:
    """Simulate a payments company: its past (--payments), once for the same arguments, or its present (--rate)."""
    from stripe_platform.bring_up import simulate_live, simulate_with_progress

    if (payments is None) == (rate is None):
        raise typer.BadParameter("give --payments for a history, or --rate for live payments")
    if payments is not None:
        day = until.date() if until else None
        simulate_with_progress(load_settings(), payments=payments, days=days, seed=seed, until=day, console=_answers())
    elif rate is not None:
        simulate_live(load_settings(), rate=rate, duration=timedelta(seconds=duration), seed=seed, console=_answers())


if __name__ == "__main__":
    app()
