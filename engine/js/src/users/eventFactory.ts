/** Builds the events of one install from what happened, with only what may leave the device. */

import { epsilonOf, isPoolShaped, newcomerRate, poolBoosts } from "../decide.js";
import type { DecisionRecord } from "../decision.js";
import type { BootClock } from "../events/bootClock.js";
import { fittingPool } from "../events/codec.js";
import { kindOfReward } from "../events/semantics.js";
import type { Decision, Observation, Outcome, StateReset } from "../events/wire.js";
import type { Identity } from "../outbox/outbox.js";
import { type Entropy, uuid7 } from "../runtime/clock.js";
import { base64 } from "../runtime/text.js";
import type { SlateItem } from "../slate.js";
import { flip, flipProbability } from "./randomizedResponse.js";
import type { UserState } from "./types.js";

/** One slot of a decision, its item, and the pseudonym of the user to whom it was shown. */
export interface ShownSlot {
  readonly decision: string;
  readonly slot: number;
  readonly item: string;
  readonly pseudonym: string;
}

/** How a reward is recorded. */
export interface OutcomeOptions {
  readonly kind?: string | null;
  readonly updatesState?: boolean;
  readonly isLate?: boolean;
}

/** What may leave the device. */
export interface EventPolicy {
  /** Whether context vectors may leave the device. */
  readonly shareContext: boolean;

  /** The ε of randomized response, null for exact rewards. */
  readonly privacy: number | null;
  readonly entropy: Entropy;
}

/** Makes events of one install; the outbox sets `seq` when it writes them. */
export class EventFactory {
  readonly #identity: Identity;
  readonly #boot: BootClock;
  readonly #policy: EventPolicy;

  constructor(identity: Identity, boot: BootClock, policy: EventPolicy) {
    this.#identity = identity;
    this.#boot = boot;
    this.#policy = policy;
  }

  /** Whether outcomes carry rewards as they were. */
  get isExact(): boolean {
    return this.#policy.privacy === null;
  }

  /** Returns the event of a decision and the state that it was made for. */
  decision(record: DecisionRecord, state: UserState, context: Float32Array | null): Decision {
    const { slate, plan, request, candidates, scorer, arm } = record;
    const boosts = poolBoosts(record);
    const poolItems = this.#poolItems(record, boosts);
    const experiment = scorer.bundle.manifest.experiment;
    return {
      type: "decision",
      ...this.#common(slate.decision),
      user: slate.pseudonym,
      release: slate.release,
      scheme: plan.scheme,
      epsilon: epsilonOf(record),
      pool: candidates.ranking.rows.length,
      eligible: candidates.ranking.eligible,
      slate: slate.items.map(wireSlot),
      state_checksum: state.checksum,
      state_events: state.events,
      context: context !== null && this.#policy.shareContext ? bytesOf(context) : null,
      pass_probability: 1,
      guarded: plan.guarded || undefined,
      caps: request.atMost.size > 0 ? request.atMost : undefined,
      pool_items: poolItems,
      boosts: boosts === null ? undefined : poolItems === undefined ? [] : [...boosts],
      newcomers: candidates.newcomers.length || undefined,
      newcomer_rate: newcomerRate(record) || undefined,
      diversity: request.diversity || undefined,
      experiment: experiment?.name,
      arm: arm?.name,
      temperature: plan.scheme === "softmax" ? plan.temperature : undefined,
    };
  }

  /**
   * Returns the event of one slot's reward.
   *
   * With randomized response the kind follows from the flipped value and no state is updated: the
   * app's own kind, or a moved state, would reveal the true value.
   */
  outcome(shown: ShownSlot, value: number, options: OutcomeOptions = {}): Outcome {
    const { privacy } = this.#policy;
    const { decision, slot, item, pseudonym } = shown;
    const isExact = privacy === null;
    const told = isExact ? value : flip(value, this.#identity.secret, decision, slot, privacy);
    return {
      type: "outcome",
      ...this.#common(),
      user: pseudonym,
      decision,
      slot,
      item,
      kind: (isExact && options.kind) || kindOfReward(told),
      value: told,
      updates_state: isExact && (options.updatesState ?? false),
      flip_probability: isExact ? undefined : flipProbability(privacy),
      late: options.isLate || undefined,
    };
  }

  /** Returns the event of organic behaviour. */
  observation(pseudonym: string, item: string, kind: string): Observation {
    return { type: "observation", ...this.#common(), user: pseudonym, item, kind };
  }

  /** Returns the event that names all behaviour from which a state was rebuilt. */
  stateReset(state: UserState): StateReset {
    const { pseudonym, history } = state;
    return { type: "state_reset", ...this.#common(), user: pseudonym, steps: history };
  }

  /** Returns the ids of a pool that nobody could rebuild, best first, if they have room. */
  #poolItems(record: DecisionRecord, boosts: Float64Array | null): readonly string[] | undefined {
    const { request, candidates, scorer } = record;
    // The app may exclude or list what was truly rewarded, which randomized response hides.
    const isListed = request.exclude.length > 0 || request.among !== null;
    if ((isListed && !this.isExact) || !isPoolShaped(record)) {
      return undefined;
    }
    const items = Array.from(candidates.ranking.rows, (row) => scorer.item(row).id);
    return fittingPool(items, boosts === null ? [] : [...boosts]);
  }

  #common(id?: string): Pick<Decision, "id" | "install" | "seq" | "clock"> {
    const clock = this.#boot.read();
    const { install } = this.#identity;
    return { id: id ?? uuid7(clock.wall, this.#policy.entropy), install, seq: 0, clock };
  }
}

function wireSlot(item: SlateItem): Decision["slate"][number] {
  return {
    item: item.id,
    rank: item.rank,
    explored: item.explored,
    conditional: item.propensity,
    marginal: item.marginal,
    newcomer: item.newcomer || undefined,
    pinned: item.pinned || undefined,
  };
}

/** Returns the base64 of float32 numbers, little-endian as in memory. */
function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): string {
  return base64(new Uint8Array(buffer, byteOffset, byteLength));
}
