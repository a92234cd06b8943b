"""Which reasons end a packet."""

from __future__ import annotations

from ixroute.forward.reasons import REASONS, Kind

DROPS = {reason.name for reason in REASONS if reason.kind is Kind.DROP}
