/** The catalogs of the conformance set: bundles, and what an app did to them. */

import type { KernelSet } from "../../src/kernels/kernelSet.js";
import { addition, removal } from "../../src/ranking/catalogOverlay.js";
import { Scorer } from "../../src/ranking/scorer.js";
import { checkedChanges } from "../../src/rules/attributeChanges.js";
import { type CaseFile, openBundle } from "./conformance.js";

/**
 * Returns the scorer of a catalog that cases name.
 *
 * Added items have any vectors: their scores are not compared.
 */
export async function catalogScorer(
  file: CaseFile,
  name: string,
  kernels: KernelSet,
): Promise<Scorer> {
  const calls = file.catalogs[name];
  const bundle = await openBundle(file.bundles[calls?.["bundle"] ?? name]!);
  const { text } = bundle.manifest.sizes;
  const encode = () => Promise.resolve(new Float32Array(text).fill(text ** -0.5));
  const scorer = Scorer.of(bundle, kernels, () => Promise.resolve(encode));
  if (calls === undefined) {
    return scorer;
  }
  const { upsert, remove, set_attributes: changes, now_ms: nowMs } = calls;
  const added = await scorer.withOverlay(upsert.map((item: unknown) => addition(item, nowMs)));
  const left = await added.withOverlay(remove.map((item: string) => removal(item, nowMs)));
  return left.withChanges(checkedChanges(changes));
}
