"""Sends an alert to a webhook."""

import urllib3

# A POST is repeated too: an alert that comes twice, with the same id, is better than none.
BUSY = (429, 500, 502, 503, 504)
RETRIES = urllib3.Retry(4, backoff_factor=0.5, status_forcelist=BUSY, allowed_methods=None)


def send(url: str, alert: dict[str, object], retries: urllib3.Retry = RETRIES) -> bool:
    """Post an alert as JSON, at most five times for 5 s each; return whether it was taken."""
    http = urllib3.PoolManager(timeout=urllib3.Timeout(total=5.0), retries=retries)
    try:
        return http.request("POST", url, json=alert).status < 300
    except urllib3.exceptions.HTTPError:
        return False
