"""`sanderling demo --web`: a page that recommends and learns in the browser.

The server's libraries are imported when it runs.
"""

from __future__ import annotations

from pathlib import Path

from sanderling.cli.output import finish, note
from sanderling.cli.tiny import BUNDLE
from sanderling_trainer.cli.operations import check_address


def show_page(out: Path, bundle: Path | None, port: int, as_json: bool) -> None:
    """Serve the page until Ctrl-C with a bundle, or else with the newest release in `out`, or else
    with the one that comes with the engine. What browsers send goes to `out`.
    """
    from sanderling_trainer.demo import page_server

    check_address(page_server.HOST, port)
    shown = bundle or page_server.newest_release(out / "releases") or BUNDLE
    folder = out / "page"
    events = folder / "events"
    app = page_server.page_app(shown, events, page_server.page_token(folder))
    page_server.serve(app, port, lambda address: note(f"{address} shows {shown}; stop with Ctrl-C"))
    result = {"bundle": str(shown), "events": str(events), "stopped": True}
    finish(result, f"stopped; segments are in {events}", as_json)
