/**
 * Each user's state and the pseudonym that stands for the user.
 *
 * A state lives in the vector space of one bundle. When the bundle changes, the state is recomputed
 * from the user's last events, which are stored beside it. A pseudonym is random, drawn together
 * with an empty state, and lives as long as the state: the collector's side rebuilds states by
 * pseudonym, so a user whose state is gone gets a new pseudonym. The key under which a state is
 * stored is an HMAC of the user's name under the device's secret, and never leaves the device.
 */

import { NO_EVENTS, nextChecksum } from "../events/stateChecksum.js";
import type { Scorer } from "../ranking/scorer.js";
import type { Entropy } from "../runtime/clock.js";
import { hmacSha256 } from "../runtime/hmac.js";
import { encodeJson } from "../runtime/json.js";
import { LruCache } from "../runtime/lruCache.js";
import { list, text, tuple } from "../runtime/structs.js";
import { base64, hex, unbase64, unhex, utf8, utf8Length } from "../runtime/text.js";
import type { UserState } from "./types.js";

/** Users whose states are in memory as vectors. */
const CACHED_USERS = 4096;

/** Events kept with a state, from which it is recomputed in another vector space. */
const MAX_HISTORY = 256;

/** Bytes of the steps of a `StateReset`, as JSON: the event then fits into a line. */
const MAX_RESET_BYTES = 32 * 1024;

/** The version of the stored form. */
const VERSION = 1;

const STEPS = list(tuple(text(), text()));

type History = UserState["history"];

/** The parts of a scorer that make states. */
export type StateModel = Pick<Scorer, "space" | "find" | "vector" | "userModel">;

/** By key, the pseudonyms of users who were forgotten and may still be stored. */
export type Forgotten = Map<string, Set<string>>;

/** The states of all users of an install; `load` returns what is stored under a key. */
export class UserStates {
  readonly #load: (key: string) => string | undefined;
  readonly #secret: Uint8Array;
  readonly #entropy: Entropy;
  readonly #states = new LruCache<string, UserState>(CACHED_USERS);
  readonly #keys = new LruCache<string, string>(CACHED_USERS);
  readonly #forgotten: Forgotten;

  constructor(
    load: (key: string) => string | undefined,
    secret: string,
    entropy: Entropy,
    forgotten: Forgotten,
  ) {
    this.#forgotten = forgotten;
    this.#load = load;
    this.#secret = unhex(secret);
    this.#entropy = entropy;
  }

  /** Returns the key under which a user's state is stored: 32 hex digits. */
  key(user: string): string {
    return this.#keys.getOrMake(user, () =>
      hex(hmacSha256(this.#secret, utf8(user))).slice(0, 32),
    );
  }

  /** Returns a user's state in the scorer's space; an unknown user has an empty state. */
  get(user: string, scorer: StateModel): UserState {
    const key = this.key(user);
    let state = this.#states.get(key) ?? this.#restore(key, scorer);
    if (state.space !== scorer.space) {
      state = { ...state, space: scorer.space, vector: replay(state.history, scorer) };
    }
    this.#states.set(key, state);
    return state;
  }

  /**
   * Updates a user's state by one event and returns it.
   *
   * An item that is not in the catalog changes only the checksum and the history.
   */
  observe(user: string, item: string, kind: string, scorer: StateModel): UserState {
    const before = this.get(user, scorer);
    const after = {
      pseudonym: before.pseudonym,
      space: scorer.space,
      vector: step(before.vector, item, kind, scorer),
      checksum: nextChecksum(before.checksum, item, kind),
      events: before.events + 1,
      history: [...before.history.slice(1 - MAX_HISTORY), [item, kind] as const],
    };
    this.#states.set(this.key(user), after);
    return after;
  }

  /**
   * Rebuilds a user's state from an empty one and the last of its events, and returns it.
   *
   * As many events are taken as fit into a `StateReset`.
   */
  reset(user: string, scorer: StateModel): UserState {
    const { pseudonym, history } = this.get(user, scorer);
    let steps = history;
    while (utf8Length(encodeJson(STEPS, steps)) > MAX_RESET_BYTES) {
      steps = steps.slice(Math.floor(steps.length / 2));
    }
    const checksum = steps.reduce((sum, [item, kind]) => nextChecksum(sum, item, kind), NO_EVENTS);
    const vector = replay(steps, scorer);
    const { space } = scorer;
    const after = { pseudonym, space, vector, checksum, events: steps.length, history: steps };
    this.#states.set(this.key(user), after);
    return after;
  }

  /**
   * Forgets a user, whatever is still stored.
   *
   * Returns the key, and all pseudonyms under which something may be stored until
   * `confirmForgotten`.
   */
  forget(user: string): { key: string; pseudonyms: ReadonlySet<string> } {
    const key = this.key(user);
    const pseudonyms = this.#forgotten.get(key) ?? new Set();
    const state = this.#states.peek(key) ?? parse(this.#load(key));
    if (state !== null) {
      pseudonyms.add(state.pseudonym);
    }
    this.#forgotten.set(key, pseudonyms);
    this.#states.delete(key);
    this.#keys.delete(user);
    return { key, pseudonyms: new Set(pseudonyms) };
  }

  /** Uses what is stored under a key again: the forgotten user's data has been deleted. */
  confirmForgotten(key: string): void {
    this.#forgotten.delete(key);
  }

  #restore(key: string, scorer: StateModel): UserState {
    const state = parse(this.#load(key));
    if (state === null || this.#forgotten.get(key)?.has(state.pseudonym)) {
      return this.#newUser(scorer);
    }
    // A state of another width is recomputed by `get`, as one of another space is.
    const fits = state.vector.length === scorer.userModel.initialState().length;
    return fits ? state : { ...state, space: "" };
  }

  #newUser({ space, userModel }: StateModel): UserState {
    const pseudonym = hex(this.#entropy(16));
    const vector = userModel.initialState();
    return { pseudonym, space, vector, checksum: NO_EVENTS, events: 0, history: [] };
  }
}

/** Returns what to store of a state. */
export function dump(state: UserState): string {
  const { space, checksum, events, history, pseudonym } = state;
  // Bytes are little-endian, as they are in memory on every machine that runs JavaScript now.
  const { buffer, byteOffset, byteLength } = state.vector;
  const vector = base64(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength));
  return JSON.stringify([VERSION, space, vector, checksum, events, history, pseudonym]);
}

/** Returns a stored state, in the space of its bundle; null for none, and for a damaged one. */
function parse(stored: string | undefined): UserState | null {
  if (stored === undefined) {
    return null;
  }
  try {
    const [version, space, vector, checksum, events, history, pseudonym] = JSON.parse(stored);
    if (version !== VERSION) {
      return null;
    }
    const floats = new Float32Array(unbase64(vector).buffer);
    return { pseudonym, space, vector: floats, checksum, events, history };
  } catch {
    return null;
  }
}

function step(state: Float32Array, item: string, kind: string, scorer: StateModel): Float32Array {
  const row = scorer.find(item);
  return row === null ? state : scorer.userModel.step(state, scorer.vector(row), kind);
}

function replay(history: History, scorer: StateModel): Float32Array {
  let state = scorer.userModel.initialState();
  for (const [item, kind] of history) {
    state = step(state, item, kind, scorer);
  }
  return state;
}
