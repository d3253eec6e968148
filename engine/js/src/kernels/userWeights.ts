/** What a policy's user model multiplies with, in the order of arithmetic of docs/MATH.md. */

import type { UserModelTensors } from "./kernelSet.js";

/** The weights, all float32; c channels, m hidden units; a row for each input. */
export interface UserWeights {
  readonly channels: number;
  readonly d: number;
  readonly hidden: number;

  /** The length of a context: that of its text's vector, and its features behind that. */
  readonly text: number;

  /** The number of kinds of event. */
  readonly kindCount: number;

  /** [d, c] */
  readonly input: Float32Array;
  /** [kinds, c] */
  readonly kinds: Float32Array;
  /** [c] */
  readonly decay: Float32Array;
  /** [c]: sqrt(1 - decay²) */
  readonly gain: Float32Array;
  /** [c, m], with the gain of the normalization in it */
  readonly w1: Float32Array;
  /** [m], with the shift of the normalization in it */
  readonly b1: Float32Array;
  /** [m, d] */
  readonly w2: Float32Array;
  /** [d] */
  readonly b2: Float32Array;
  /** [t + F, d], with F features of contexts */
  readonly context: Float32Array;
}

/** Returns the weights of a policy's tensors; throws `RangeError` for sizes that do not fit. */
export function userWeights(policy: UserModelTensors): UserWeights {
  const decay = policy["state.decay"];
  const channels = decay.length;
  const d = policy["output.b2"].length;
  const hidden = policy["output.b1"].length;
  const text = policy["context.project"].length / d;
  const ofFeatures = policy["context.feature_project"] ?? new Float32Array(0);
  const features = ofFeatures.length / d;
  const kindCount = policy["state.kind"].length / channels;
  expectSize(policy, "state.input", channels * d);
  expectSize(policy, "output.gain", channels);
  expectSize(policy, "output.shift", channels);
  expectSize(policy, "output.w1", hidden * channels);
  expectSize(policy, "output.w2", d * hidden);
  expectSize(policy, "context.project", d * Math.floor(text));
  expectSize(policy, "context.feature_project", d * Math.floor(features));
  expectSize(policy, "state.kind", channels * Math.max(Math.floor(kindCount), 1));

  const w1 = policy["output.w1"];
  const scaled = w1.map((weight, i) => weight * policy["output.gain"][i % channels]!);
  const b1 = policy["output.b1"].map((bias, unit) => {
    let sum = bias;
    for (let j = 0; j < channels; j++) {
      sum += w1[unit * channels + j]! * policy["output.shift"][j]!;
    }
    return sum;
  });
  return {
    channels,
    d,
    hidden,
    text: text + features,
    kindCount,
    input: transposed(policy["state.input"], channels, d),
    kinds: policy["state.kind"].slice(),
    decay: decay.slice(),
    gain: decay.map((left) => Math.sqrt(1 - left * left)),
    w1: transposed(scaled, hidden, channels),
    b1,
    w2: transposed(policy["output.w2"], d, hidden),
    b2: policy["output.b2"].slice(),
    context: joined(
      transposed(policy["context.project"], d, text),
      transposed(ofFeatures, d, features),
    ),
  };
}

/** Throws `RangeError` for a kind that the model does not have. */
export function checkKind(weights: UserWeights, kind: number): void {
  if (!(Number.isInteger(kind) && kind >= 0 && kind < weights.kindCount)) {
    throw new RangeError(`kind: expected a number below ${weights.kindCount}, found ${kind}`);
  }
}

/** Returns a vector; throws `RangeError` if it has another length. */
export function ofLength(length: number, vector: Float32Array): Float32Array {
  if (vector.length !== length) {
    throw new RangeError(`expected a vector of ${length} numbers, found ${vector.length}`);
  }
  return vector;
}

function expectSize(policy: UserModelTensors, name: keyof UserModelTensors, size: number): void {
  const found = policy[name]?.length ?? 0;
  if (found !== size) {
    throw new RangeError(`${name}: expected ${size} numbers, found ${found}`);
  }
}

function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = matrix[row * columns + column]!;
    }
  }
  return result;
}

/** Returns some numbers, then others. */
export function joined(first: Float32Array, second: Float32Array): Float32Array {
  const both = new Float32Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
