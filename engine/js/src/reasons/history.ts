/**
 * What each past event did to a score: the recurrence without that event, for all events at once.
 *
 * Leaving an event out also spares the events before it one step of decay, as it would on a device
 * that never saw it.
 */

import type { Scorer } from "../ranking/scorer.js";

/** What is left of an event when float32 cannot tell it from rounding. */
const FORGOTTEN = 2 ** -24;

/** The user's state at a decision, and the events from which it was made. */
export interface UserHistory {
  /** The state [c]. */
  readonly state: Float32Array;

  /** The events that are known: item id and kind, oldest first. */
  readonly steps: readonly (readonly [string, string])[];

  /** How many events there were in all. */
  readonly events: number;
}

/** The states of a user to whom one thing never happened. */
export interface Counterfactuals {
  /** A state [c] for each known event, without it. */
  readonly withoutEvent: readonly Float32Array[];

  /** Only the known events [c]. */
  readonly withoutOlder: Float32Array;

  /** Whether the known events make the user's state bit for bit. */
  readonly isExact: boolean;
}

/**
 * Returns the states without each known event, and without all that is older.
 *
 * What the known events do not explain of the state, events that are no longer kept, decays by one
 * step less where an event is left out.
 */
export function counterfactuals(history: UserHistory, scorer: Scorer): Counterfactuals {
  const { state, steps, events } = history;
  const decay = scorer.bundle.policy["state.decay"];
  const inputs = steps.map(([item, kind]) => inputOf(scorer, item, kind));
  const moving = inputs.filter((input) => input !== null);
  const initial = scorer.userModel.initialState();
  const { without, all } = leaveOneOut(initial, decay, moving);

  const unexplained = state.map((value, i) => value - all[i]!);
  const isExact = unexplained.every((value) => value === 0);
  // A channel that has forgotten the older events holds rounding alone.
  const isRemembered = (left: number): boolean => Math.fround(left ** moving.length) > FORGOTTEN;
  const spared =
    events > steps.length
      ? unexplained.map((value, i) => (isRemembered(decay[i]!) ? value / decay[i]! : 0))
      : unexplained;

  let next = 0;
  const withoutEvent = inputs.map((input) => {
    if (input === null) {
      return state; // an unknown item changed no state
    }
    const replayed = without[next]!;
    next += 1;
    return isExact ? replayed : replayed.map((value, i) => value + spared[i]!);
  });
  return { withoutEvent, withoutOlder: all, isExact };
}

/** Returns what an event adds to the state, null for an item that is in no catalog. */
function inputOf(scorer: Scorer, item: string, kind: string): Float32Array | null {
  const row = scorer.find(item);
  return row === null ? null : scorer.userModel.input(scorer.vector(row), kind);
}

/**
 * Returns the states without each of n inputs, and that of all.
 *
 * These are the same operations as those of `UserModel.step`, and the same bits.
 */
function leaveOneOut(
  initial: Float32Array,
  decay: Float32Array,
  inputs: readonly Float32Array[],
): { without: Float32Array[]; all: Float32Array } {
  const step = (state: Float32Array, input: Float32Array): Float32Array =>
    state.map((value, i) => Math.fround(decay[i]! * value) + input[i]!);
  let all = initial;
  let without: Float32Array[] = [];
  for (const input of inputs) {
    without = [...without.map((state) => step(state, input)), all];
    all = step(all, input);
  }
  return { without, all };
}
