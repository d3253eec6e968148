/** The recurrence and the output network of a policy, in WebAssembly. */

import type { UserModel } from "./kernelSet.js";
import * as layout from "./layout.js";
import { checkKind, ofLength, type UserWeights } from "./userWeights.js";
import type { WasmModule } from "./wasmModule.js";

/** The user model in WebAssembly. */
export class WasmUserModel implements UserModel {
  private readonly model: number;
  private readonly width: number;
  private readonly blocks: number[];

  constructor(
    private readonly module: WasmModule,
    private readonly weights: UserWeights,
  ) {
    const { memory } = module;
    const { channels, d, hidden, text } = weights;
    this.width = wholeVectors(Math.max(channels, d, hidden));
    const values = new Array<number>(layout.MODEL_SIZE).fill(0);
    values[layout.MODEL_CHANNELS] = channels;
    values[layout.MODEL_ITEMS] = d;
    values[layout.MODEL_HIDDEN] = hidden;
    values[layout.MODEL_TEXT] = text;
    values[layout.MODEL_WIDTH] = this.width;
    values[layout.MODEL_INPUT] = memory.copy(filledUp(weights.input, channels));
    values[layout.MODEL_KINDS] = memory.copy(weights.kinds);
    values[layout.MODEL_DECAY] = memory.copy(weights.decay);
    values[layout.MODEL_GAIN] = memory.copy(weights.gain);
    values[layout.MODEL_W1] = memory.copy(filledUp(weights.w1, hidden));
    values[layout.MODEL_B1] = memory.copy(weights.b1);
    values[layout.MODEL_W2] = memory.copy(filledUp(weights.w2, d));
    values[layout.MODEL_B2] = memory.copy(weights.b2);
    values[layout.MODEL_CONTEXT] = memory.copy(filledUp(weights.context, d));
    this.model = memory.allocate(8 * layout.MODEL_SIZE);
    memory.writeLongs(this.model, values);
    this.blocks = [...values.slice(layout.MODEL_INPUT), this.model];
  }

  initialState(): Float32Array {
    return new Float32Array(this.weights.channels);
  }

  step(state: Float32Array, item: Float32Array, kind: number): Float32Array {
    return this.changed(state, item, kind);
  }

  input(item: Float32Array, kind: number): Float32Array {
    return this.changed(undefined, item, kind);
  }

  userVector(state: Float32Array, context?: Float32Array): Float32Array {
    const { channels, d, text } = this.weights;
    const [stateAt, contextAt, out, scratch] = this.module.room([
      4 * channels, 4 * text, 4 * d, 12 * this.width,
    ]);
    const { floats } = this.module.memory;
    floats.set(ofLength(channels, state), stateAt / 4);
    if (context !== undefined) floats.set(ofLength(text, context), contextAt / 4);
    const given = context === undefined ? 0 : contextAt;
    this.module.userVector(this.model, stateAt, given, out, scratch);
    return floats.slice(out / 4, out / 4 + d);
  }

  release(): void {
    for (const start of this.blocks) this.module.memory.release(start);
  }

  private changed(state: Float32Array | undefined, item: Float32Array, kind: number): Float32Array {
    const { channels, d } = this.weights;
    checkKind(this.weights, kind);
    const [stateAt, itemAt, out, scratch] = this.module.room([
      4 * channels, 4 * d, 4 * channels, 12 * this.width,
    ]);
    const { floats } = this.module.memory;
    if (state !== undefined) floats.set(ofLength(channels, state), stateAt / 4);
    floats.set(ofLength(d, item), itemAt / 4);
    this.module.step(this.model, state === undefined ? 0 : stateAt, itemAt, kind, out, scratch);
    return floats.slice(out / 4, out / 4 + channels);
  }
}

function wholeVectors(count: number): number {
  return layout.ceilDiv(count, layout.LANES) * layout.LANES;
}

/** Returns weights with rows of `outputs` filled up with zeros to whole vectors. */
function filledUp(weights: Float32Array, outputs: number): Float32Array {
  const inputs = weights.length / outputs;
  const whole = new Float32Array(inputs * wholeVectors(outputs));
  for (let i = 0; i < inputs; i++) {
    const row = weights.subarray(i * outputs, (i + 1) * outputs);
    whole.set(row, i * wholeVectors(outputs));
  }
  return whole;
}
