/** The recurrence and the output network of a policy, in plain JavaScript. */

import { rounded } from "./int8Table.js";
import type { UserModel } from "./kernelSet.js";
import { EPSILON } from "./layout.js";
import { checkKind, ofLength, type UserWeights } from "./userWeights.js";

/** The user model in plain JavaScript: the operations of `sanderling.kernels.user_model`. */
export class PlainUserModel implements UserModel {
  constructor(private readonly weights: UserWeights) {}

  initialState(): Float32Array {
    return new Float32Array(this.weights.channels);
  }

  step(state: Float32Array, item: Float32Array, kind: number): Float32Array {
    const { channels, decay } = this.weights;
    ofLength(channels, state);
    return this.input(item, kind).map(
      (entry, i) => Math.fround(decay[i]! * state[i]!) + entry, // the array rounds the sum
    );
  }

  input(item: Float32Array, kind: number): Float32Array {
    const { channels, d, input, gain, kinds } = this.weights;
    checkKind(this.weights, kind);
    const sums = new Float64Array(channels);
    addProducts(sums, input, ofLength(d, item));
    return Float32Array.from(sums, (sum, i) => gain[i]! * kinds[kind * channels + i]! * sum);
  }

  userVector(state: Float32Array, context?: Float32Array): Float32Array {
    const { channels, hidden, text, w1, b1, w2, b2 } = this.weights;
    let total = 0;
    for (const value of ofLength(channels, state)) total += value;
    const mean = total / channels;
    const centred = state.map((value) => value - mean);
    let energy = 0;
    for (const value of centred) energy += value * value;
    const perSpread = 1 / Math.sqrt(energy / channels + EPSILON);

    const sums = new Float64Array(hidden);
    addProducts(sums, w1, centred);
    const units = Float32Array.from(sums, (sum, i) => {
      const x = sum * perSpread + b1[i]!;
      return x / (1 + exp(-x));
    });

    const user = Float64Array.from(b2);
    addProducts(user, w2, units);
    if (context !== undefined) {
      addProducts(user, this.weights.context, ofLength(text, context));
    }
    return Float32Array.from(user);
  }

  release(): void {
    // The arrays are the collector's.
  }
}

/** Adds the products of weights [inputs, outputs] and factors [inputs] to the sums [outputs]. */
function addProducts(sums: Float64Array, weights: Float32Array, factors: Float32Array): void {
  const outputs = sums.length;
  for (let j = 0; j < factors.length; j++) {
    const factor = factors[j]!;
    const start = j * outputs;
    for (let i = 0; i < outputs; i++) sums[i]! += weights[start + i]! * factor;
  }
}

// exp(x) = 2^k exp(r) with |r| <= ln(2) / 2, and exp(r) by its series up to r^10 / 10!
const LIMIT = 708; // of |x|, so that 2^k is a normal number
const PER_LN2 = 1.4426950408889634;
const LN2_HIGH = 0.6931471803691238; // 32 bits, so that k times it is exact
const LN2_LOW = 1.9082149292705877e-10;
const FACTORIALS = [3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1];
const SERIES = Float64Array.from(FACTORIALS, (factorial) => 1 / factorial);
const LEAST_POWER = -1022;

// `2 ** k` need not be exact; products of powers of two are.
const POWERS = new Float64Array(2046);
POWERS[-LEAST_POWER] = 1;
for (let k = 1; k <= 1023; k++) POWERS[k - LEAST_POWER] = POWERS[k - 1 - LEAST_POWER]! * 2;
for (let k = -1; k >= LEAST_POWER; k--) POWERS[k - LEAST_POWER] = POWERS[k + 1 - LEAST_POWER]! / 2;

/**
 * Returns exp(x) within 1e-11 of it, for x limited to -708 … 708. `Math.exp` differs between
 * browsers.
 */
export function exp(x: number): number {
  const limited = Math.min(Math.max(x, -LIMIT), LIMIT);
  const k = rounded(limited * PER_LN2);
  const r = limited - k * LN2_HIGH - k * LN2_LOW;
  let series = SERIES[0]!;
  for (let power = 1; power < SERIES.length; power++) series = series * r + SERIES[power]!;
  return series * POWERS[k - LEAST_POWER]!;
}
