"""The figures of the report, from the slots of a store: plain values, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from sanderling_trainer.evaluation import clustered_rates as rates
from sanderling_trainer.evaluation.intervals import Interval
from sanderling_trainer.report.slot_table import SlotTable

NEW_DAYS = 7
"""An item is new for so many days from its first mention on."""

MIN_INSTALLS = 10
"""With fewer installs, intervals are over pseudonyms."""

SHARED = 0.2
"""Releases are compared on common days where this share of the latest one's seen slots is theirs;
otherwise before and after."""

TOP_SHARE = 0.1

Mask = NDArray[np.bool_]


def figures_of(table: SlotTable, catalog: int = 0) -> dict[str, Any]:
    """Return all figures of a store's slots; of an empty store those that there are.

    catalog: the number of items of the latest catalog, 0 where it is not known.
    """
    slots = _Slots(table)
    return {
        "slates": int((table.rows["slot"] == 0).sum()),
        "slots": len(table.rows),
        "seen": int(table.rows["judged"].sum()),
        "installs": table.installs,
        "users": table.users,
        "units": slots.units,
        "days": slots.days,
        "in_arms": int((slots.in_arm & (table.rows["slot"] == 0)).sum()),
        "lonely_releases": slots.lonely,
        "is_noisy": table.is_noisy,
        "releases": slots.releases(),
        "by_day": slots.by_day(),
        "comparison": slots.comparison(),
        "newcomers": slots.newcomers(),
        "exploration": slots.exploration(),
        "coverage": slots.coverage(catalog or table.eligible),
        "catalog_is_known": catalog > 0,
        "losses": _losses(table),
        "experiments": sorted(table.experiments),
    }


class _Slots:
    """The slots of a store, and what is summed over its units."""

    def __init__(self, table: SlotTable) -> None:
        self._table = table
        self._rows = table.rows
        by_install = table.installs >= MIN_INSTALLS
        self.units = "installs" if by_install else "pseudonyms"
        self._unit = self._rows["install" if by_install else "user"]
        self._n_units = table.installs if by_install else table.users
        in_arm = self._rows["arm"] > 0
        self.in_arm: Mask = in_arm if not in_arm.all() else np.zeros(len(in_arm), np.bool_)
        """The slots that an arm of an experiment decided; none where an arm decided each."""

        self.lonely = _lonely_releases(table)
        self.rest: Mask = ~self.in_arm & ~np.isin(self._rows["release"], self.lonely)
        """The slots that count."""

        days = self._rows["day"]
        self._start = int(np.quantile(days, 0.01, method="lower")) if len(days) else 0
        self.days = [self._start, int(days.max())] if len(days) else []
        judged = self._rows["judged"] & self.rest
        self._judged = judged
        self._numbers = sorted(set(self._rows["release"][judged].tolist()))

    def _seen(self, mask: Mask, stratum: NDArray[np.integer] | None = None) -> rates.Slots:
        """Return the seen slots of a mask, all of one stratum if none are given."""
        seen = mask & self._rows["judged"]
        click = self._rows["click"][seen].astype(np.float64)
        strata = np.zeros(len(click), np.int64) if stratum is None else stratum[seen]
        count = 1 if stratum is None else int(stratum.max()) + 1
        return rates.Slots(click, self._unit[seen], strata, self._n_units, count)

    def _sums(self, mask: Mask) -> tuple[rates.Floats, rates.Floats]:
        """Return the clicks and the seen slots of each unit, of the slots of a mask."""
        slots = self._seen(mask)
        return slots.by_unit(slots.click), slots.by_unit(np.ones(len(slots.click)))

    def _rate(self, mask: Mask) -> dict[str, float | None]:
        return _plain(rates.rate(*self._sums(mask)))

    def _estimate(self, mask: Mask) -> rates.Estimate:
        return rates.standardized(self._seen(mask), np.ones(1))

    def _of(self, release: int) -> Mask:
        return self.rest & (self._rows["release"] == release)

    def releases(self) -> list[dict[str, Any]]:
        """Return each release's click rate, and its change against the one before."""
        rows: list[dict[str, Any]] = []
        for place, release in enumerate(self._numbers):
            mask = self._of(release)
            mine = self._rows[mask]
            row = {
                "release": release,
                "slates": int((mine["slot"] == 0).sum()),
                "seen": int(mine["judged"].sum()),
                "clicks": float(mine["click"].sum(dtype=np.float64)),
                "installs": len(np.unique(mine["install"])),
                "first_day": int(mine["day"].min()),
                "last_day": int(mine["day"].max()),
                "rate": self._rate(mask),
                "change": None,
            }
            if place:
                before = self._estimate(self._of(self._numbers[place - 1]))
                row["change"] = _plain(rates.change(self._estimate(mask), before))
            rows.append(row)
        return rows

    def by_day(self) -> list[dict[str, Any]]:
        """Return the click rate of each release on each day."""
        found = []
        for release in self._numbers:
            mask = self._of(release) & self._judged
            days = self._rows["day"][mask]
            first = max(self._start, int(days.min()))
            slots = np.bincount(np.maximum(days - first, 0))
            clicks = np.bincount(np.maximum(days - first, 0), self._rows["click"][mask])
            found += [
                {"release": release, "day": first + day, "value": float(clicks[day] / slots[day])}
                for day in np.flatnonzero(slots).tolist()
            ]
        return found

    def comparison(self) -> dict[str, Any] | None:
        """Return how the latest release fares against what was before it; None with one release.

        Where older releases ran on the same days on enough slots, they are compared on those days,
        each of which weighs as it does for the latest one.
        """
        if len(self._numbers) < 2:
            return None
        latest, previous = self._numbers[-1], self._numbers[-2]
        new, old = self._of(latest) & self._judged, (self._rows["release"] < latest) & self._judged
        days = self._rows["day"]
        common = np.isin(days, np.intersect1d(days[new], days[old]))
        is_same_days = (new & common).sum() >= SHARED * new.sum()
        if is_same_days:
            new, old = new & common, old & common
        else:
            old = self._of(previous) & self._judged
        stratum = days - days.min() if is_same_days else np.zeros(len(days), np.int64)
        slots = self._seen(new, stratum), self._seen(old, stratum)
        counts = slots[0].counts()
        first, second = (rates.standardized(each, counts / counts.sum()) for each in slots)
        return {
            "release": latest,
            "others": sorted(set(self._rows["release"][old].tolist())),
            "is_same_days": bool(is_same_days),
            "rate": first.value,
            "other_rate": second.value,
            "difference": _plain(rates.difference(first, second)),
            "change": _plain(rates.change(first, second)),
        }

    def newcomers(self) -> dict[str, Any] | None:
        """Return what new items get, by release; None without seen slots."""
        if not self._numbers:
            return None
        first = self._table.first_seen[self._rows["item"]]
        is_new = (first > self._start) & (self._rows["day"] - first < NEW_DAYS)
        rows = []
        for release in self._numbers:
            mask = self._of(release)
            clicks, seen = self._sums(mask & is_new)
            all_clicks = self._sums(mask)[0].sum()
            rows.append(
                {
                    "release": release,
                    "items": len(np.unique(self._rows["item"][mask & is_new])),
                    "slots": float((mask & is_new).sum() / mask.sum()),
                    "quota": float(self._rows["newcomer"][mask].mean()),
                    "seen": int(seen.sum()),
                    "clicks": float(clicks.sum() / all_clicks) if all_clicks > 0.0 else None,
                    "rate": self._rate(mask & is_new),
                    "other_rate": self._rate(mask & ~is_new),
                }
            )
        return {"days": NEW_DAYS, "releases": rows}

    def exploration(self) -> dict[str, Any] | None:
        """Return the click rates of explored and greedy slots, and what exploration cost.

        Greedy slots are those that could have explored; the cost compares with those of the same
        release and place on the slate. None where nothing explored.
        """
        explored = self.rest & self._rows["explored"]
        quota = self.rest & self._rows["newcomer"]
        greedy = self.rest & self._rows["greedy"]
        if not (explored | quota).any():
            return None
        shown = max(int(self.rest.sum()), 1)
        found: dict[str, Any] = {
            "explored_share": float(explored.sum() / shown),
            "quota_share": float(quota.sum() / shown),
            "greedy": self._rate(greedy),
            "explored": self._rate(explored),
            "quota": self._rate(quota),
            "seen": {
                name: int((mask & self._rows["judged"]).sum())
                for name, mask in (("greedy", greedy), ("explored", explored), ("quota", quota))
            },
            "cost": None,
            "cost_of_clicks": None,
        }
        _, place = np.unique(self._rows["release"], return_inverse=True)
        stratum = place * (int(self._rows["slot"].max()) + 1) + self._rows["slot"]
        compared, baseline = (self._seen(each, stratum) for each in (explored | quota, greedy))
        if len(compared.click) and len(baseline.click):
            clicks, seen = self._sums(self.rest)
            lost = rates.cost(compared, baseline, seen)
            found["cost"] = _plain(lost)
            would = clicks.sum() / seen.sum() + lost.value
            if would > 0.0:
                found["cost_of_clicks"] = lost.value / would
        return found

    def coverage(self, catalog: int) -> dict[str, Any] | None:
        """Return how many items each release has shown, and how evenly; None without slots."""
        if not self._numbers:
            return None
        counts = {
            release: np.bincount(self._rows["item"][self._of(release)]) for release in self._numbers
        }
        sample = min(int(count.sum()) for count in counts.values())
        rows = []
        for release, count in counts.items():
            shown = count[count > 0]
            rows.append(
                {
                    "release": release,
                    "items": len(shown),
                    "share": min(1.0, len(shown) / catalog) if catalog else None,
                    "in_sample": distinct_in(shown, sample),
                    "top": top_share(shown, catalog),
                    "gini": gini(shown, catalog),
                }
            )
        return {"catalog": catalog, "sample": sample, "releases": rows}


def _lonely_releases(table: SlotTable) -> list[int]:
    """Return the releases that a single install claims, of a fleet: any device can claim any."""
    if table.installs < MIN_INSTALLS:
        return []
    releases, place = np.unique(table.rows["release"], return_inverse=True)
    pairs = np.unique(place * table.installs + table.rows["install"])
    installs = np.bincount(pairs // table.installs, minlength=len(releases))
    return [int(release) for release in releases[installs < 2]]


def distinct_in(counts: NDArray[np.int64], sample: int) -> float:
    """Return how many distinct items a random `sample` of the slots would show on average.

    counts: how often each item was shown, int [n]. Source: rarefaction (Hurlbert 1971).
    """
    total = int(counts.sum())
    rest = total - counts
    log_absent = np.where(
        rest >= sample,
        gammaln(rest + 1.0)
        - gammaln(np.maximum(rest - sample, 0) + 1.0)
        - gammaln(total + 1.0)
        + gammaln(total - sample + 1.0),
        -np.inf,
    )
    return float((1.0 - np.exp(log_absent)).sum())


def top_share(counts: NDArray[np.int64], catalog: int) -> float:
    """Return the share of the slots that the most shown tenth of the catalog has."""
    top = max(1, math.ceil(TOP_SHARE * max(catalog, len(counts))))
    return float(np.sort(counts)[::-1][:top].sum() / counts.sum())


def gini(counts: NDArray[np.int64], catalog: int) -> float:
    """Return the Gini coefficient of how often the items of a catalog were shown: 0 for evenly,
    near 1 where few items have all slots. Items that were never shown count."""
    n = max(catalog, len(counts))
    ordered = np.sort(counts).astype(np.float64)
    ranks = np.arange(n - len(counts) + 1, n + 1)
    return float((2.0 * (ranks * ordered).sum() / ordered.sum() - n - 1.0) / n)


def _losses(table: SlotTable) -> dict[str, Any]:
    summary = table.summary
    declared = {reason: dict(counter) for reason, counter in sorted(table.losses.items())}
    return {
        "events": summary.received - summary.duplicates,
        "duplicates": summary.duplicates,
        "missing": summary.missing,
        "declared": sum(sum(counter.values()) for counter in declared.values()),
        "by_reason": declared,
        "incomplete": len(summary.incomplete),
        "cloned": len(summary.cloned),
        "conflicts": summary.conflicts,
        "misdated": summary.misdated,
        "faulty": sum(table.faulty.values()),
        "installs": summary.installs,
    }


def _plain(interval: Interval) -> dict[str, float | None]:
    """Return an interval for JSON, which has no nan."""
    values: Mapping[str, float] = interval.as_dict()
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
