/** Behaviour -> user vector, by the recurrence of one bundle; kinds of event go by name. */

import type { UserModel as KernelUserModel } from "../kernels/kernelSet.js";

/** The recurrence of one bundle: c channels, items of dimension d. */
export class UserModel {
  readonly #model: KernelUserModel;
  readonly #kinds: ReadonlyMap<string, number>;

  constructor(model: KernelUserModel, kinds: readonly string[]) {
    this.#model = model;
    this.#kinds = new Map(kinds.map((kind, index) => [kind, index]));
  }

  /** Returns the state [c] of a user without events. */
  initialState(): Float32Array {
    return this.#model.initialState();
  }

  /**
   * Returns the state [c] after an event with an item vector [d].
   *
   * An unknown kind counts as the first one.
   */
  step(state: Float32Array, item: Float32Array, kind: string): Float32Array {
    return this.#model.step(state, item, this.#kinds.get(kind) ?? 0);
  }

  /** Returns what an event with an item vector [d] adds to the decayed state [c]. */
  input(item: Float32Array, kind: string): Float32Array {
    return this.#model.input(item, this.#kinds.get(kind) ?? 0);
  }

  /** Returns the user vector [d] for a state [c] and the vector [t] of a context. */
  userVector(state: Float32Array, context?: Float32Array): Float32Array {
    return this.#model.userVector(state, context);
  }
}
