"""What becomes of a wish to pay: risk score, card holder's authentication, the issuer's answer, and tries again."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from stripe_platform.oltp.simulator import catalogue
from stripe_platform.oltp.simulator.billing import DUNNING
from stripe_platform.oltp.simulator.fraud import Kind
from stripe_platform.oltp.simulator.run import DAY, HOUR, MINUTE, SECOND, Draws, Flags, Floats, Ints
from stripe_platform.oltp.simulator.scope import Scope

ELEVATED = 65
HIGHEST = 75
"""Risk scores from which a charge is looked at, and from which it is blocked."""

_TRIES = 3
_TRIES_AGAIN = 0.55
_ABANDONED = 0.03
_CAPTURED_IN_PART = 0.2
_NEVER_CAPTURED = 0.1
_ASKED_IN_EUROPE = 0.45
_ASKED_ELSEWHERE = 0.06
# (result of 3D Secure, how often); the last two stop the payment.
_THREE_D = ("authenticated", "attempt_acknowledged", "exempted", "not_supported", "failed", "processing_error")
_THREE_D_WEIGHTS = (0.84, 0.06, 0.04, 0.025, 0.03, 0.005)
_STOPPED_FROM = 4
# (decline code, how often for an honest payer, a tester of cards, a user of a stolen card).
_DECLINES = (
    ("insufficient_funds", 0.40, 0.05, 0.10),
    ("do_not_honor", 0.20, 0.20, 0.20),
    ("generic_decline", 0.16, 0.25, 0.15),
    ("transaction_not_allowed", 0.06, 0.05, 0.05),
    ("expired_card", 0.06, 0.08, 0.0),
    ("incorrect_cvc", 0.05, 0.25, 0.05),
    ("processing_error", 0.03, 0.02, 0.02),
    ("card_velocity_exceeded", 0.03, 0.05, 0.13),
    ("lost_card", 0.005, 0.02, 0.10),
    ("stolen_card", 0.005, 0.03, 0.20),
)
DECLINE_CODES = (*(code for code, *_ in _DECLINES), "authentication_required", "fraudulent")
AUTHENTICATION = len(_DECLINES)
BLOCKED = len(_DECLINES) + 1
APPROVED = -1


@dataclass(frozen=True)
class Payments:
    """`intents`, in order of time, and their tries, `charges`, each with the place of its intent.

    `intents`: the wishes' columns, id, merchant_id, currency, status, received, capturable, canceled (the reason),
    latest (the place of the last charge, or -1). `charges`: id, intent, created, approved, decline (a place in
    `DECLINE_CODES` or APPROVED), three_d (a place in `THREE_D` or -1), score, last, captured_at (-1: not), captured
    (the amount).
    """

    intents: pl.DataFrame
    charges: pl.DataFrame


THREE_D = _THREE_D


def judge(scope: Scope, draws: Draws, wished: pl.DataFrame) -> Payments:
    """Carry the wishes through to their end, or to the end of the run."""
    count = wished.height
    kind = wished["kind"].to_numpy()
    score = _scores(draws, kind, (wished["invoice"] >= 0).to_numpy())
    three_d = _three_d(scope, draws, wished)
    blocked, stopped = score >= HIGHEST, three_d >= _STOPPED_FROM
    settled = (wished["tries"] >= 0).to_numpy()
    tries, paid = _tries(draws, wished["approval"].to_numpy())
    once = blocked | stopped
    tries, paid = np.where(once, 1, tries), paid & ~once
    abandoned = draws.happens(_ABANDONED, count) & ~settled & (kind == Kind.HONEST)
    tries = np.where(settled, wished["tries"].to_numpy(), np.where(abandoned, 0, tries))
    paid = np.where(settled, wished["paid"].to_numpy(), paid & ~abandoned)
    decline = np.where(blocked, BLOCKED, np.where(stopped, AUTHENTICATION, APPROVED))
    charges = _charges(draws, wished, tries, paid, decline)
    intent = charges["intent"].to_numpy()
    charges = charges.with_columns(three_d=pl.Series(three_d[intent]), score=pl.Series(score[intent]))
    charges = charges.hstack(_captures(scope, draws, wished, charges))
    return Payments(_intents(scope, draws, wished, charges, tries=tries, paid=paid), charges)


def _scores(draws: Draws, kind: Ints, invoiced: Flags) -> Ints:
    """What a risk model that is right most of the time says, 0 to 99; a renewal is not asked about again."""
    count = len(kind)
    honest: Floats = draws.random.beta(1.2, 12, count) * 60
    odd = draws.happens(0.012, count)
    honest = np.where(odd, 55 + 38 * draws.random.random(count), honest)
    fraudulent = np.clip(draws.random.normal(46, 21, count), 1, 99)
    score = np.where(kind == Kind.HONEST, np.where(invoiced, np.minimum(honest, 40), honest), fraudulent)
    return score.astype(np.int64)


def _three_d(scope: Scope, draws: Draws, wished: pl.DataFrame) -> Ints:
    european = np.array([country.european for country in catalogue.COUNTRIES])
    asked_there = european[scope.country(wished["merchant"].to_numpy())]
    asked = draws.happens(np.where(asked_there, _ASKED_IN_EUROPE, _ASKED_ELSEWHERE), wished.height)
    # A thief asks for no authentication that he cannot pass, and a subscriber is not there.
    asked &= (wished["kind"].to_numpy() == Kind.HONEST) | draws.happens(0.2, wished.height)
    asked &= (wished["invoice"] < 0).to_numpy()
    return np.where(asked, draws.pick(_THREE_D_WEIGHTS, wished.height), -1)


def _tries(draws: Draws, approval: Floats) -> tuple[Ints, Flags]:
    """How often each payer tries, and whether the last try is approved."""
    count = len(approval)
    tries, paid = np.ones(count, dtype=np.int64), draws.happens(approval, count)
    goes_on = ~paid
    for _ in range(_TRIES - 1):
        goes_on &= draws.happens(_TRIES_AGAIN, count)
        tries += goes_on
        # Whoever was declined once is declined more easily.
        approved = goes_on & draws.happens(0.6 * approval, count)
        paid |= approved
        goes_on &= ~approved
    return tries, paid


def _charges(draws: Draws, wished: pl.DataFrame, tries: Ints, paid: Flags, decline: Ints) -> pl.DataFrame:
    intent = np.repeat(np.arange(wished.height), tries)
    count = len(intent)
    place = np.arange(count) - np.repeat(np.cumsum(tries) - tries, tries)
    last = place == tries[intent] - 1
    pauses = np.where(place == 0, draws.between(2 * SECOND, 20 * SECOND, count), 0)
    pauses += np.where(place > 0, draws.between(30 * SECOND, 8 * MINUTE, count), 0)
    waited = np.cumsum(pauses)
    begun = np.repeat((np.cumsum(tries) - tries)[tries > 0], tries[tries > 0])
    at_once = waited - waited[begun] + pauses[begun]
    after = np.where(wished["renewal"].to_numpy()[intent], DUNNING[place.clip(0, len(DUNNING) - 1)], at_once)
    approved = last & paid[intent]
    code = np.where(decline[intent] == APPROVED, _codes(draws, wished["kind"].to_numpy()[intent]), decline[intent])
    charges = pl.DataFrame(
        {
            "intent": intent,
            "created": wished["at"].to_numpy()[intent] + after,
            "approved": approved,
            "decline": np.where(approved, APPROVED, code),
            "last": last,
        }
    )
    return charges.with_columns(id=draws.keys(charges["created"]))


def _codes(draws: Draws, kind: Ints) -> Ints:
    weights = np.array([weights for _, *weights in _DECLINES]).T
    codes = draws.pick(weights[0], len(kind))
    codes = np.where(kind == Kind.CARD_TESTING, draws.pick(weights[1], len(kind)), codes)
    return np.where(kind == Kind.STOLEN_CARD, draws.pick(weights[2], len(kind)), codes)


def _captures(scope: Scope, draws: Draws, wished: pl.DataFrame, charges: pl.DataFrame) -> pl.DataFrame:
    """When each approved charge is captured and how much of it; by hand days later, in part or never."""
    intent, count = charges["intent"].to_numpy(), charges.height
    amount = wished["amount"].to_numpy()[intent]
    multiple = scope.multiple(wished["merchant"].to_numpy()[intent])
    by_hand = wished["by_hand"].to_numpy()[intent]
    created = charges["created"].to_numpy()
    at = np.where(by_hand, created + draws.between(HOUR, 5 * DAY, count), created)
    in_part = by_hand & draws.happens(_CAPTURED_IN_PART, count)
    share = 0.5 + 0.45 * draws.random.random(count)
    part = np.maximum((amount * share / multiple).astype(np.int64), 1) * multiple
    let_go = by_hand & draws.happens(_NEVER_CAPTURED, count)
    done = charges["approved"].to_numpy() & (at < scope.run.end) & ~let_go
    return pl.DataFrame(
        {
            "captured_at": np.where(done, at, -1),
            "captured": np.where(done, np.where(in_part, part, amount), 0),
            "released_at": np.where(charges["approved"].to_numpy() & let_go & (at < scope.run.end), at, -1),
        }
    )


def _intents(
    scope: Scope, draws: Draws, wished: pl.DataFrame, charges: pl.DataFrame, *, tries: Ints, paid: Flags
) -> pl.DataFrame:
    latest = np.where(tries > 0, np.cumsum(tries) - 1, -1)
    has = latest >= 0
    received, released = np.zeros(wished.height, dtype=np.int64), np.zeros(wished.height, dtype=bool)
    received[has] = charges["captured"].to_numpy()[latest[has]]
    released[has] = charges["released_at"].to_numpy()[latest[has]] >= 0
    given_up = draws.happens(np.where(has, 0.4, 1.0), wished.height) & (wished["invoice"] < 0).to_numpy()
    given_up &= wished["at"].to_numpy() + DAY < scope.run.end
    waiting = np.where(
        draws.happens(np.where(has, 0.0, 0.3), wished.height), "requires_action", "requires_payment_method"
    )
    unpaid = np.where(given_up, "canceled", waiting)
    held = np.where(released, "canceled", "requires_capture")
    status = np.where(received > 0, "succeeded", np.where(paid, held, unpaid))
    reason = np.where(released, "requested_by_customer", np.where(~paid & given_up, "abandoned", ""))
    amount = wished["amount"].to_numpy()
    capturable = np.where(status == "requires_capture", amount, 0)
    merchant = wished["merchant"]
    return wished.with_columns(
        id=draws.keys(wished["at"]),
        merchant_id=scope.merchant_ids(merchant),
        currency=scope.currencies(merchant.to_numpy()),
        status=pl.Series(status, dtype=pl.String),
        canceled=pl.Series(reason, dtype=pl.String).replace({"": None}),
        received=pl.Series(received),
        capturable=pl.Series(capturable),
        latest=pl.Series(latest),
    )
