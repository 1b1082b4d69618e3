"""Subscriptions: trials, renewals, tries again when a card is declined, dearer plans, who leaves and comes back."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.run import DAY, HOUR, MINUTE, SECOND, Draws, Flags, Floats, Ints, Purpose
from stripe_platform.oltp.simulator.scope import Scope
from stripe_platform.oltp.simulator.shop import Shop
from stripe_platform.oltp.simulator.subscriptions import FIRST_TRIES_WITHIN, Subscriptions, dearest, later, subscribe

DUNNING = np.array([5 * SECOND, DAY + 5 * SECOND, 3 * DAY + 5 * SECOND])
"""After its invoice is final, a renewal is tried at these times, until it is paid."""

_MOST_OF_QUOTA = 0.7
_APPROVAL = 0.9
_LEAVE = 0.05
_COME_BACK = 0.15
_UPGRADE = 0.05
_FINAL_AFTER = HOUR
_EXPIRES_AFTER = 23 * HOUR
_LAST_TRY_AFTER = _FINAL_AFTER + int(DUNNING[-1]) + MINUTE

_INVOICE_COLUMNS = (
    "subscription", "at", "final", "subtotal", "tries", "paid", "first", "reason", "period_start", "period_end"
)  # fmt: skip


@dataclass
class _Ledger:
    """Invoices and their lines as they come about; a line knows its invoice by its place."""

    invoices: list[pl.DataFrame] = field(default_factory=list)
    lines: list[pl.DataFrame] = field(default_factory=list)
    count: int = 0

    def write(self, invoices: pl.DataFrame, *lines: pl.DataFrame) -> None:
        """Invoices, each with the line of the same row in every frame of `lines`."""
        place = pl.int_range(self.count, self.count + invoices.height, eager=True)
        self.invoices.append(invoices.select(_INVOICE_COLUMNS))
        self.lines += [line.with_columns(invoice=place) for line in lines]
        self.count += invoices.height


@dataclass(frozen=True)
class _Books:
    """What the steps of one period work on."""

    scope: Scope
    sold: Shop
    draws: Draws
    state: Subscriptions
    ledger: _Ledger


@dataclass(frozen=True)
class Billing:
    """`subscriptions`, `invoices` and `lines`; an invoice knows its subscription, a line its invoice, by its place."""

    subscriptions: pl.DataFrame
    invoices: pl.DataFrame
    lines: pl.DataFrame


def bill(scope: Scope, sold: Shop) -> Billing:
    """What the subscriptions of the merchants in scope come to, until the end of the run."""
    draws = scope.draws(Purpose.BILLING)
    first = _told(scope, sold, draws, subscribe(scope, draws))
    gone = first.subscriptions.filter(pl.col("ended_at").is_between(0, scope.run.end - 6 * DAY))
    gone = gone.filter(pl.Series(draws.happens(_COME_BACK, gone.height)))
    back = Subscriptions(
        merchant=gone["merchant"].to_numpy(),
        customer=gone["customer"].to_numpy(),
        start=gone["ended_at"].to_numpy() + draws.between(DAY, 5 * DAY, gone.height),
        trial=np.zeros(gone.height, dtype=bool),
        interval=gone["interval"].to_numpy(),
        product=gone["product"].to_numpy(),
    )
    return _taxed(scope, _within_quota(scope, _joined(first, _told(scope, sold, draws, back))))


def _taxed(scope: Scope, billing: Billing) -> Billing:
    """The invoices with `tax`, `total` and `given_up`: all tries failed, and the time to pay is over."""
    if billing.invoices.is_empty():
        return billing
    invoices = billing.invoices
    merchant = billing.subscriptions["merchant"].gather(invoices["subscription"]).to_numpy()
    multiple = scope.multiple(merchant)
    rate = np.array([country.tax for country in catalogue.COUNTRIES])[scope.country(merchant)]
    tax = np.rint(invoices["subtotal"].to_numpy() * rate / multiple).astype(np.int64) * multiple
    over = pl.when("first").then(pl.col("at") + _EXPIRES_AFTER).otherwise(pl.col("at") + _LAST_TRY_AFTER)
    failed = ~pl.col("paid") & (pl.col("tries") == len(DUNNING))
    invoices = invoices.with_columns(
        tax=pl.Series(tax), total=pl.Series(tax) + invoices["subtotal"], given_up=failed & (over < scope.run.end)
    )
    return Billing(billing.subscriptions, invoices, billing.lines)


def _told(scope: Scope, sold: Shop, draws: Draws, state: Subscriptions) -> Billing:
    """Every period of the subscriptions, one after the other, until the end of the run."""
    ledger = _Ledger()
    begun = state.start < scope.run.end - FIRST_TRIES_WITHIN
    state.alive &= begun
    _trials(sold, state, ledger, np.flatnonzero(state.trial & begun))
    period = 0
    while True:
        begins, ends = (later(state.anchor, state.interval, period + more) for more in (0, 1))
        due = np.flatnonzero(state.alive & (begins < scope.run.end))
        if not len(due):
            break
        books = _Books(scope, sold, draws, state, ledger)
        _period(books, due, begins=begins[due], ends=ends[due], period=period)
        period += 1
    subscriptions = pl.DataFrame(
        {name: getattr(state, name) for name in ("merchant", "customer", "start", "trial", "interval", "product")}
        | {
            name: getattr(state, name)
            for name in ("anchor", "period_start", "period_end", "canceled_at", "cancel_at", "ended_at")
        }
        | {"status": pl.Series(state.status.tolist(), dtype=pl.String), "begun": begun}
    )
    return (
        Billing(subscriptions, pl.concat(ledger.invoices), pl.concat(ledger.lines))
        if ledger.count
        else Billing(subscriptions, pl.DataFrame(), pl.DataFrame())
    )


def _trials(sold: Shop, state: Subscriptions, ledger: _Ledger, who: Ints) -> None:
    """A first invoice over nothing."""
    price = _prices(sold, state, who, state.product[who])
    begins, ends = state.start[who], state.anchor[who]
    nothing = np.zeros(len(who), dtype=np.int64)
    paid = np.ones(len(who), dtype=bool)
    invoices = _invoices(who, begins, begins, nothing, nothing, paid, paid, "subscription_create", begins, ends)
    ledger.write(invoices, _lines(price["id"], nothing, "Trial period", begins, ends))


def _period(books: _Books, who: Ints, *, begins: Ints, ends: Ints, period: int) -> None:
    scope, sold, draws, state = books.scope, books.sold, books.draws, books.state
    end = scope.run.end
    first = ~state.trial[who] & (period == 0)
    final = np.where(first, begins, begins + _FINAL_AFTER)
    tries, paid = _tries(draws, len(who))
    # A first invoice is tried by somebody who is there: all tries come before the end of the run.
    made = np.where(first, tries, np.minimum(tries, np.searchsorted(DUNNING, end - final, side="left")))
    paid &= made == tries
    price = _prices(sold, state, who, state.product[who])
    amount = price["unit_amount"].to_numpy()
    reason = np.where(first, "subscription_create", "subscription_cycle")
    books.ledger.write(
        _invoices(who, begins, final, amount, made, paid, first, reason, begins, ends),
        _lines(price["id"], amount, "Subscription", begins, ends),
    )
    state.period_start[who], state.period_end[who] = begins, ends
    state.alive[who] = paid
    state.status[who] = np.where(paid | (made == 0), "active", "past_due")
    _fail(scope, state, who[~paid & (tries == len(DUNNING)) & (made == tries)], period)
    _upgrade(books, _leave(books, who[paid], begins[paid], ends[paid]))


def _tries(draws: Draws, count: int) -> tuple[Ints, Flags]:
    """After how many tries an invoice is paid, or that all have failed."""
    approved = draws.random.random((count, len(DUNNING))) < _APPROVAL
    paid: Flags = np.asarray(approved.any(axis=1))
    return np.where(paid, approved.argmax(axis=1) + 1, len(DUNNING)), paid


def _fail(scope: Scope, state: Subscriptions, who: Ints, period: int) -> None:
    """The last try has failed: who has not paid once never began, the others are canceled."""
    first = (period == 0) & ~state.trial[who]
    lapsed = state.period_start[who] + _EXPIRES_AFTER
    last_try = state.period_start[who] + _LAST_TRY_AFTER
    over = np.where(first, lapsed, last_try) < scope.run.end
    state.status[who] = np.where(
        first, np.where(over, "incomplete_expired", "incomplete"), np.where(over, "canceled", "past_due")
    )
    state.ended_at[who] = np.where(over, np.where(first, lapsed, last_try), -1)
    state.canceled_at[who] = np.where(over & ~first, last_try, -1)


def _leave(books: _Books, who: Ints, begins: Ints, ends: Ints) -> Ints:
    """Some cancel for the end of the period; returns the others."""
    scope, draws, state = books.scope, books.draws, books.state
    told = draws.between(begins + 4 * DAY, ends, len(who))
    leaves = draws.happens(_LEAVE, len(who)) & (told < scope.run.end)
    gone, over = who[leaves], ends[leaves] < scope.run.end
    state.alive[gone] = False
    state.canceled_at[gone] = told[leaves]
    state.cancel_at[gone] = ends[leaves]
    state.ended_at[gone] = np.where(over, ends[leaves], -1)
    state.status[gone] = np.where(over, "canceled", "active")
    return who[~leaves]


def _upgrade(books: _Books, who: Ints) -> None:
    """Some take a dearer product in the middle of a period: the rest of the old one is credited."""
    scope, sold, draws, state = books.scope, books.sold, books.draws, books.state
    begins, ends = state.period_start[who], state.period_end[who]
    at = draws.between(begins + 4 * DAY, ends - DAY, len(who))
    chosen = draws.happens(_UPGRADE, len(who)) & (at < scope.run.end - FIRST_TRIES_WITHIN)
    chosen &= state.product[who] < dearest(scope, state.merchant[who])
    who, at, begins, ends = (values[chosen] for values in (who, at, begins, ends))
    rest: Floats = (ends - at) / (ends - begins)
    multiple = scope.multiple(state.merchant[who])
    old, new = (_prices(sold, state, who, state.product[who] + more) for more in (0, 1))
    credit, debit = (
        np.rint(price["unit_amount"].to_numpy() * rest / multiple).astype(np.int64) * multiple for price in (old, new)
    )
    dearer = debit > credit
    who, at, begins, ends, credit, debit = (values[dearer] for values in (who, at, begins, ends, credit, debit))
    old, new = old.filter(pl.Series(dearer)), new.filter(pl.Series(dearer))
    once, paid = np.ones(len(who), dtype=np.int64), np.ones(len(who), dtype=bool)
    books.ledger.write(
        _invoices(who, at, at, debit - credit, once, paid, paid, "subscription_update", at, ends),
        _lines(old["id"], -credit, "Unused time", at, ends, proration=True),
        _lines(new["id"], debit, "Remaining time", at, ends, proration=True),
    )
    state.product[who] += 1


def _prices(sold: Shop, state: Subscriptions, who: Ints, product: Ints) -> pl.DataFrame:
    return sold.recurring(pl.Series(state.merchant[who]), pl.Series(product), pl.Series(state.interval[who]))


def _invoices(*columns: object) -> pl.DataFrame:
    subscription, *others = columns
    frame = {"subscription": pl.Series(np.asarray(subscription, dtype=np.int64))}
    for name, values in zip(_INVOICE_COLUMNS[1:], others, strict=True):
        if isinstance(values, str):
            frame[name] = pl.repeat(values, len(frame["subscription"]), eager=True)
        else:
            frame[name] = pl.Series(np.asarray(values))
    return pl.DataFrame(frame).with_columns(pl.col("reason").cast(pl.String))


def _lines(
    price: pl.Series, amount: Ints, description: str, begins: Ints, ends: Ints, *, proration: bool = False
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "price_id": price,
            "amount": amount,
            "description": pl.repeat(description, len(amount), eager=True),
            "proration": pl.repeat(proration, len(amount), eager=True),
            "period_start": begins,
            "period_end": ends,
        }
    )


def _joined(one: Billing, two: Billing) -> Billing:
    """Both, with the places of the second counted on."""
    later = two.invoices
    lines = two.lines
    if not later.is_empty():
        later = later.with_columns(pl.col("subscription") + one.subscriptions.height)
        lines = lines.with_columns(pl.col("invoice") + one.invoices.height)
    kept = [[frame for frame in pair if not frame.is_empty()] for pair in ((one.invoices, later), (one.lines, lines))]
    invoices, all_lines = (pl.concat(frames) if frames else pl.DataFrame() for frames in kept)
    return Billing(pl.concat([one.subscriptions, two.subscriptions]), invoices, all_lines)


def _within_quota(scope: Scope, billing: Billing) -> Billing:
    """Without the subscriptions whose payments would be more than their share of the merchant's."""
    if billing.invoices.is_empty():
        return billing
    tried = (pl.col("tries") > 0) & (pl.col("subtotal") > 0)
    counts = billing.invoices.filter(tried).group_by("subscription").len()
    numbered = billing.subscriptions.with_row_index("subscription").with_columns(pl.col("subscription").cast(pl.Int64))
    counted = numbered.join(counts, on="subscription", how="left", maintain_order="left")
    quota = scope.population.merchants["quota"].gather(counted["merchant"])
    kept = counted.with_columns(pl.col("len").fill_null(0).cast(pl.Int64), most=quota * _MOST_OF_QUOTA).filter(
        "begun", pl.col("len").cum_sum().over("merchant") <= pl.col("most")
    )
    renumbered = kept.select("subscription", place=pl.int_range(pl.len()))
    invoices = (
        billing.invoices.with_row_index("invoice")
        .join(renumbered, on="subscription", how="inner", maintain_order="left")
        .with_columns(pl.col("invoice").cast(pl.Int64), subscription=pl.col("place"))
        .drop("place")
    )
    places = invoices.select("invoice", place=pl.int_range(pl.len()))
    lines = billing.lines.join(places, on="invoice", how="inner", maintain_order="left")
    return Billing(
        kept.drop("subscription", "len", "most", "begun"),
        invoices.drop("invoice"),
        lines.with_columns(invoice=pl.col("place")).drop("place"),
    )
