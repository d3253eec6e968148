/** The checks of a bundle that read all of its values. */

import { BundleError } from "../errors.js";
import type { Bundle } from "./bundle.js";
import { compareHashes, idHash } from "./idHash.js";

/** Throws `BundleError` for the first value that is wrong. */
export function checkValues(bundle: Bundle): void {
  const { items, policy } = bundle;
  const features = { item: bundle.itemFeatures, context: bundle.contextFeatures };
  const ofFeatures = Object.entries(features).flatMap(([of, found]) =>
    found === null
      ? []
      : [[`${of}.feature_project`, found.project], [`${of}.feature_mean`, found.mean]],
  );
  const tensors = { scale: items.scale, bias: items.bias, ...policy };
  const floats = { ...tensors, ...Object.fromEntries(ofFeatures) };
  for (const [name, tensor] of Object.entries(floats)) {
    expect((tensor as Float32Array).every(Number.isFinite), name, "finite numbers");
  }
  const file = "items.safetensors";
  expect(items.scale.every((scale) => scale > 0), `${file}: scale`, "positive numbers");
  const isDecay = policy["state.decay"].every((decay) => decay >= 0 && decay < 1);
  expect(isDecay, "policy.safetensors: state.decay", "numbers in [0, 1)");
  expect(isAscending(items.offset), `${file}: offset`, "ascending bytes");

  const n = items.idRow.length;
  const isSorted = items.idRow.every(
    (_, i) => i === 0 || compareHashes(items.idHash, i - 1, items.idHash, i) <= 0,
  );
  expect(isSorted, `${file}: id_hash`, "ascending hashes");
  const sorted = items.idRow.slice().sort();
  expect(sorted.every((row, i) => row === i), `${file}: id_row`, "each row once");
  const { newcomers } = items;
  const isInside = newcomers.every((row) => row >= 0 && row < n);
  expect(isAscending(newcomers) && isInside, `${file}: newcomers`, "ascending rows of items");
  bundle.columns?.check();
  const isHashed = items.idRow.every((row, i) => {
    const hash = idHash(bundle.record(row)["id"] as string);
    return compareHashes(hash, 0, items.idHash, i) === 0;
  });
  expect(isHashed, `${file}: id_hash`, "the hashes of the ids in catalog.jsonl");
}

function isAscending(numbers: Float64Array | Int32Array): boolean {
  return numbers.every((number, i) => i === 0 || number > numbers[i - 1]!);
}

function expect(holds: boolean, place: string, what: string): void {
  if (!holds) {
    throw new BundleError(`${place}: expected ${what}`);
  }
}
