/**
 * What a request says of the user's situation, as one vector: the text's, then the features of
 * declared names such as hour, weekday, place or device.
 *
 * In bundles without context features it is the text's vector alone.
 */

import { type Feature, isCategory } from "../bundle/features.js";
import { shown } from "../errors.js";
import { isList, valueOf } from "../json.js";
import { joined } from "../kernels/userWeights.js";
import { elementsOf, scalarFault, type ScalarKind } from "../rules/attributes.js";
import type { Attributes } from "../slate.js";
import { cut } from "../unicode.js";
import type { FeatureMap } from "./features.js";

/** The context of a request, as the app gave it. */
export interface Context {
  readonly text: string | null;

  /** By name of a feature its value; null for a missing one. */
  readonly values: Attributes;
}

export const NO_CONTEXT: Context = { text: null, values: {} };

/**
 * Returns the vector [t + F] of a context, given what encodes its text, [t]; null where it says
 * nothing that the release knows.
 */
export async function contextVector(
  { text, values }: Context,
  features: FeatureMap | null,
  encode: (text: string) => Promise<Float32Array | null>,
  t: number,
): Promise<Float32Array | null> {
  const ofText = text ? await encode(text) : null;
  if (features === null) {
    return ofText;
  }
  const ofFeatures = features.of(values);
  const isKnown = ofText !== null || ofFeatures.some((feature) => feature !== 0);
  return isKnown ? joined(ofText ?? new Float32Array(t), ofFeatures) : null;
}

/** Returns a context's vector with another text's vector [t], null for no text. */
export function withText(
  context: Float32Array,
  text: Float32Array | null,
  t: number,
): Float32Array {
  return joined(text ?? new Float32Array(t), context.subarray(t));
}

/**
 * Throws `TypeError` for a value of another type than its declared feature's.
 *
 * Names that the release does not know are ignored: an app and its releases change apart.
 */
export function checkContextValues({ values }: Context, features: FeatureMap | null): void {
  for (const feature of features?.tensors.schema.features ?? []) {
    const value = valueOf(values, feature.name) ?? null;
    const expected = value === null ? null : faultOf(feature, value);
    if (expected !== null) {
      throw new TypeError(
        `context: ${cut(feature.name, 80)}: expected ${expected}, found ${shown(value)}`,
      );
    }
  }
}

function faultOf(feature: Feature, value: unknown): string | null {
  if (!isCategory(feature)) {
    return scalarFault(value, feature.type as ScalarKind);
  }
  if (feature.type === "category" && isList(value)) {
    return "one text, number or boolean";
  }
  const given = isList(value) ? value : [value];
  return elementsOf(value).length === given.length ? null : "texts, numbers or booleans";
}
