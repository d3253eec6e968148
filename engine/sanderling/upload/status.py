"""What a response of the collector, or of whatever answered in its place, means for the app."""

from __future__ import annotations

from sanderling.upload.transport import Response

REDIRECTS = (301, 302, 303, 307, 308)
TRANSIENT = (408, 413, 425, 429)
"""Statuses below 500 that end by themselves."""

MAX_LOCATION = 200  # characters of a redirect's target


def needs_action(status: int) -> bool:
    """Return whether a status lasts until somebody changes the URL, the token or a proxy."""
    return status < 500 and status not in TRANSIENT


def meaning(response: Response) -> str:
    """Return in one line what a response without verdicts means, and what to do about it."""
    status = response.status
    if status in REDIRECTS:
        target = response.headers.get("location", "")[:MAX_LOCATION]
        return (
            f"{status}: the URL of `collector` redirects to {target!r}, which is not followed;"
            " if that is the collector, give its URL"
        )
    return f"{status}: {_MEANINGS.get(status, _range_meaning(status))}"


def _range_meaning(status: int) -> str:
    if status >= 500:
        return "the collector, or a proxy before it, fails; trying again later"
    if status >= 400:
        return "the collector, or a proxy before it, refuses this batch; see its log"
    return _MEANINGS[200]


_MEANINGS = {
    200: "the answer is not that of a collector; check the URL of `collector`, or sign in to the"
    " network",
    401: "the collector does not accept the token; check `token` (`sanderling tokens list` names"
    " those that were issued)",
    403: "a proxy before the collector refuses the device; check its rules",
    404: "there is no collector at this URL; check `collector`, such as https://rewards.example/v1",
    405: "there is no collector at this URL; check `collector`, such as https://rewards.example/v1",
    410: "the collector, or a proxy before it, says that the URL is gone; check `collector`",
    413: "a single event is larger than a proxy before the collector allows; raise its limit",
    429: "too many requests; trying again later",
    503: "the collector is overloaded or not ready; trying again later",
}
