/** Calls of the kernels for the Python tests; arrays come and go as base64 of their bytes. */

import type { KernelSet, UserModelTensors } from "../../src/kernels/kernelSet.js";
import { loadKernels } from "../../src/kernels/loadKernels.js";
import { plainKernels } from "../../src/kernels/plainKernels.js";
import { exp } from "../../src/kernels/plainUserModel.js";
import { RowMask } from "../../src/kernels/rowMask.js";

interface Search {
  readonly query: string;
  readonly k: number;
  readonly excluded: string;
  readonly hidden: string | null;
  readonly raised: string;
  readonly by: string;
}

interface Step {
  readonly item: string;
  readonly kind: number;
  readonly context: string | null;
}

const sets: Record<string, KernelSet> = { wasm: await loadKernels(), plain: plainKernels };

function bytes(text: string): ArrayBuffer {
  return Uint8Array.from(Buffer.from(text, "base64")).buffer;
}

function text(array: Int32Array | Float32Array | Float64Array): string {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
}

const floats = (encoded: string) => new Float32Array(bytes(encoded));
const ints = (encoded: string) => new Int32Array(bytes(encoded));

/** Returns what each search finds, and the scores of the found rows asked for by themselves. */
function searches(
  source: string,
  d: number,
  rows: string,
  scale: string,
  bias: string,
  wanted: Search[],
): unknown[] {
  const table = { rows: new Int8Array(bytes(rows)), scale: floats(scale), bias: floats(bias), d };
  const index = sets[source]!.makeIndex(table);
  const found = wanted.map((search) => {
    const query = floats(search.query);
    const mask =
      search.hidden === null ? undefined : new RowMask(new Uint8Array(bytes(search.hidden)));
    const undo = index.raiseBiases(ints(search.raised), floats(search.by));
    const best = index.top(query, search.k, ints(search.excluded), mask);
    const again = index.scores(query, best.rows);
    undo();
    return [text(best.rows), text(best.scores), best.eligible, text(again)];
  });
  index.release();
  return found;
}

/** Returns the input, the state and the user vector after each event. */
function states(source: string, policy: Record<string, string>, steps: Step[]): unknown[] {
  const tensors = Object.fromEntries(
    Object.entries(policy).map(([name, tensor]) => [name, floats(tensor)]),
  );
  const model = sets[source]!.makeUserModel(tensors as unknown as UserModelTensors);
  let state = model.initialState();
  const after = steps.map(({ item, kind, context }) => {
    const added = model.input(floats(item), kind);
    state = model.step(state, floats(item), kind);
    const user = model.userVector(state, context === null ? undefined : floats(context));
    return [text(added), text(state), text(user)];
  });
  model.release();
  return after;
}

export const kernelCalls = {
  source: (source: string) => sets[source]!.source,
  searches,
  states,
  uniforms: (source: string, decision: string, blocks: number) =>
    text(sets[source]!.uniforms(decision, blocks)),
  exp: (x: string) => text(new Float64Array(bytes(x)).map(exp)),
};
