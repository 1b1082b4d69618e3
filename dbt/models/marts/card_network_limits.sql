-- Visa: docs.antom.com/ac/merchant_service/card_monitor (read in 2026). Mastercard: developer.paypal.com/braintree,
-- "Excessive Chargeback Program" (since October 2019). Both conditions of a program must be met.
select
    'visa' as card_brand,
    'VAMP' as program,
    cast(0.015 as decimal(5, 4)) as ratio,
    cast(1500 as bigint) as events
union all
select
    'mastercard' as card_brand,
    'ECM' as program,
    cast(0.015 as decimal(5, 4)) as ratio,
    cast(100 as bigint) as events
