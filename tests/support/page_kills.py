"""A browser whose tabs, or all of whose processes, are killed while a page stores rewards."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sanderling.events.schema import Outcome
from sanderling_trainer.event_log.reader import EventLog, read_segments
from tests.support.pages import BROWSER, PageServer, StoredReward, times_received

PATIENCE_S = 60.0

OPEN = """
const { Engine, loadKernels } = await import('/engine/dist/sanderling.js');
const config = await (await fetch('/config.json')).json();
const engine = await Engine.open(new URL('/bundle/', location), {
  kernels: await loadKernels(),
  state: 'kills', collector: new URL('/v1', location).href, token: config.token,
});
"""

REWARD = f"""
async (seed) => {{
  {OPEN}
  for (let turn = seed; ; turn++) {{
    const slate = await engine.recommend({{ user: `user ${{turn % 3}}`, k: 5 }});
    const item = slate.items[turn % 5];
    const receipt = await engine.reward(slate, item, turn % 4 ? 1 : -1);
    if (receipt.stored) {{
      rewardStored({{ decision: slate.decision, slot: item.slot, item: item.id }});
    }}
  }}
}}
"""

DRAIN = f"""
async () => {{
  {OPEN}
  const isEmpty = await engine.flush(60);
  await engine.close();
  return isEmpty;
}}
"""


@dataclass
class KillStatistics:
    """What became of the rewards of a browser that was killed again and again."""

    kills: int
    promised: list[StoredReward] = field(default_factory=list)
    lost: int = 0
    twice: int = 0

    unconfirmed: int = 0
    """Rewards that arrived though no promise of theirs was seen to resolve."""

    log: EventLog = field(default_factory=EventLog)


class KilledBrowser:
    """Chromium with a profile on disk, which outlives it."""

    def __init__(self, playwright: Any, profile: Path, url: str) -> None:
        self._playwright = playwright
        self._profile = profile
        self._url = url
        self.promised: list[StoredReward] = []
        """The rewards whose promises resolved."""

        self._context = self._launch()

    def reward_until_killed(self, rewards: int, ms: float, seed: int, is_whole: bool) -> None:
        """Let a new tab store so many rewards and go on for some ms, then kill its process, or all
        of them.
        """
        tab = self._open_tab()
        tab.evaluate(f"seed => {{ ({REWARD})(seed); }}", seed)
        enough = len(self.promised) + rewards
        deadline = time.monotonic() + PATIENCE_S
        while len(self.promised) < enough and time.monotonic() < deadline:
            tab.wait_for_timeout(5)
        tab.wait_for_timeout(ms)
        if is_whole:
            self._kill(self._processes())
            with contextlib.suppress(Exception):  # of a browser that is gone
                self._context.close()
            self._context = self._launch()
        else:
            self._kill([each for each in self._processes() if _is_renderer(each)])
            with contextlib.suppress(Exception):  # of a tab that is gone
                tab.close()

    def drain(self) -> bool:
        """Send what is stored; return whether all of it was acknowledged."""
        tab = self._open_tab()
        is_empty: bool = tab.evaluate(DRAIN)
        tab.close()
        return is_empty

    def close(self) -> None:
        """End the browser."""
        self._context.close()

    def _launch(self) -> Any:
        context = self._playwright.chromium.launch_persistent_context(
            self._profile, executable_path=BROWSER, args=["--no-sandbox"]
        )
        context.expose_function(
            "rewardStored", lambda reward: self.promised.append(StoredReward(**reward))
        )
        return context

    def _open_tab(self) -> Any:
        tab = self._context.new_page()
        # Any document of the origin: the page itself would store rewards of its own.
        tab.goto(f"{self._url}config.json")
        return tab

    def _processes(self) -> list[psutil.Process]:
        name = str(self._profile)
        mine = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(name in argument for argument in process.info["cmdline"] or [])
        ]
        children = [child for process in mine for child in process.children(recursive=True)]
        return list({process.pid: process for process in [*mine, *children]}.values())

    @staticmethod
    def _kill(processes: list[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)


def kill_often(
    playwright: Any, server: PageServer, profile: Path, kills: int, seed: int = 0
) -> KillStatistics:
    """Kill tabs, and every tenth time the browser, at random moments; count what arrives."""
    rng = random.Random(seed)
    browser = KilledBrowser(playwright, profile, server.url)
    for number in range(kills):
        # One in five dies while the engine opens; the others in the midst of rewards.
        rewards, ms = (0, 600) if number % 5 == 0 else (rng.randint(4, 10), 40)
        browser.reward_until_killed(rewards, rng.uniform(0, ms), 1000 * number, number % 10 == 4)
    assert browser.drain()
    browser.close()

    statistics = KillStatistics(kills, browser.promised)
    received = times_received(server.store, statistics.promised)
    statistics.lost = received.count(0)
    statistics.log = read_segments(str(server.store))
    outcomes = Counter(
        (event.decision, event.slot)
        for events in statistics.log.events.values()
        for event in events
        if isinstance(event, Outcome)
    )
    statistics.twice = sum(times > 1 for times in received) + statistics.log.duplicates
    statistics.unconfirmed = len(outcomes) - len(set(statistics.promised))
    return statistics


def _is_renderer(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "--type=renderer" in process.cmdline()
    return False
