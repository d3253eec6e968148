/** The tensors of policy.safetensors: the user model, and what makes vectors of texts. */

import type { UserModelTensors } from "../kernels/kernelSet.js";
import type { Manifest } from "./manifest.js";
import type { FeatureTensors } from "./features.js";
import { expectTensor, type Tensors } from "./tensors.js";

const FILE = "policy.safetensors";

/** The policy of a bundle, its tensors by their names in the file. */
export interface Policy extends UserModelTensors {
  /** [d, t]: what makes an item's vector of its text's. */
  readonly "item.project": Float32Array;

  /** [1]: the bias of an item that a device added. */
  readonly "item.bias": Float32Array;
}

/**
 * Returns the tensors of a policy, given its features of contexts; throws `BundleError` for one
 * that is absent or misshapen.
 */
export function readPolicy(
  manifest: Manifest,
  tensors: Tensors,
  contexts: FeatureTensors | null,
): Policy {
  const { dim: d, state: c, text: t } = manifest.sizes;
  // The manifest does not give the hidden width; a missing or misshapen b1 fails below against 0.
  const shape = tensors.get("output.b1")?.shape ?? [];
  const hidden = shape.length === 1 ? shape[0]! : 0;
  const shapes = {
    "state.input": [c, d],
    "state.kind": [manifest.kinds.length, c],
    "state.decay": [c],
    "output.gain": [c],
    "output.shift": [c],
    "output.w1": [hidden, c],
    "output.b1": [hidden],
    "output.w2": [d, hidden],
    "output.b2": [d],
    "context.project": [d, t],
    "item.project": [d, t],
    "item.bias": [1],
  };
  const policy = Object.entries(shapes).map(([name, sides]) => [
    name,
    expectTensor(tensors, FILE, name, "F32", sides),
  ]);
  const added = contexts === null ? [] : [["context.feature_project", contexts.project]];
  return Object.fromEntries([...policy, ...added]) as Policy;
}
