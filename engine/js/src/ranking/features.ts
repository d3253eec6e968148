/**
 * Typed attributes as features, which a policy projects into the space of item and user vectors.
 *
 * With ψ the features of an item or a context, F of them, a policy adds B ψ to its vector. A
 * missing or unknown value has the feature 0. docs/MATH.md, "Features".
 */

import { columnsOf, type Feature, type FeatureTensors, isCategory } from "../bundle/features.js";
import { valueOf } from "../json.js";
import { asNumber, elementsOf, type ScalarKind, vectorFault } from "../rules/attributes.js";
import type { Scalar } from "../rules/types.js";
import type { Attributes } from "../slate.js";

/** The largest feature of a number: a wrong one must not decide alone. */
const LIMIT = 5;

/** The features of a policy's schema. */
export class FeatureMap {
  /** F */
  readonly columns: number;

  readonly #codes: ReadonlyMap<Feature, ReadonlyMap<Scalar, number>>;

  constructor(readonly tensors: FeatureTensors) {
    const { features } = tensors.schema;
    this.columns = features.reduce((sum, feature) => sum + columnsOf(feature), 0);
    this.#codes = new Map(
      features.map((feature) => [feature, new Map(feature.values.map((value, i) => [value, i]))]),
    );
  }

  /** Returns the features [F] of a record, given its values by name. */
  of(record: Attributes): Float32Array {
    const found = new Float32Array(this.columns);
    let start = 0;
    let ofVectors = 0;
    for (const feature of this.tensors.schema.features) {
      const { name, type, width } = feature;
      const value = valueOf(record, name) ?? null;
      const stop = start + columnsOf(feature);
      if (isCategory(feature)) {
        const codes = this.#known(feature, value);
        codes.forEach((code) => {
          found[start + code] = 1 / Math.sqrt(codes.length);
        });
      } else if (type === "vector") {
        const mean = this.tensors.mean.subarray(ofVectors, ofVectors + width);
        found.set(vectorFeatures(value, mean, feature.scale), start);
        ofVectors += width;
      } else {
        found[start] = numberFeature(value, feature);
      }
      start = stop;
    }
    return found;
  }

  /** Returns the codes of a value's elements that have a column, each once. */
  #known(feature: Feature, value: unknown): number[] {
    const codes = this.#codes.get(feature)!;
    return [...new Set(elementsOf(value))].flatMap((element) => codes.get(element) ?? []);
  }
}

/** Returns the feature of a number, time or boolean, 0 where it is missing. */
function numberFeature(value: unknown, { type, centre, scale, is_heavy_tailed }: Feature): number {
  const units = (asNumber(value, type as ScalarKind) - centre) / scale;
  const compressed = is_heavy_tailed ? Math.asinh(units) : units;
  return Number.isNaN(compressed) ? 0 : Math.min(Math.max(compressed, -LIMIT), LIMIT);
}

/**
 * Returns the features of a vector: its unit vector less the mean [w], divided by a scale; none
 * where it is missing, of another width, not finite or 0.
 */
function vectorFeatures(value: unknown, mean: Float32Array, scale: number): number[] {
  if (vectorFault(value, mean.length) !== null) {
    return [];
  }
  const given = Float64Array.from(Float32Array.from(value as number[]));
  // Divided twice, since the squares of large numbers overflow.
  const peak = given.reduce((largest, each) => Math.max(largest, Math.abs(each)), 0);
  const scaled = given.map((each) => each / peak);
  const length = Math.sqrt(scaled.reduce((sum, each) => sum + each * each, 0));
  const units = Array.from(scaled, (each, i) => (each / length - mean[i]!) / scale);
  return units.every(Number.isFinite) ? units : [];
}
