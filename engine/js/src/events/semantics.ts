/** What events mean to the device: which states they update, and the kind of a reward. */

import type { Event, Observation, Outcome } from "./wire.js";

/** Returns the pseudonyms whose states these events update. */
export function movedBy(events: Iterable<Event>): Set<string> {
  const users = new Set<string>();
  for (const event of events) {
    const isMove =
      event.type === "observation" ||
      event.type === "state_reset" ||
      (event.type === "outcome" && event.updates_state);
    if (isMove) {
      users.add(event.user);
    }
  }
  return users;
}

/**
 * Returns what remains of an outcome that updated a state when its decision is shed.
 *
 * It keeps its id and number: training needs it to rebuild the state, though not to learn from the
 * reward.
 */
export function asObservation(event: Outcome): Observation {
  const { id, install, seq, user, clock, item, kind } = event;
  return { type: "observation", id, install, seq, user, clock, item, kind };
}

/** Returns the kind of behaviour that a reward stands for unless the app names one. */
export function kindOfReward(value: number): string {
  return value > 0 ? "click" : "skip";
}
