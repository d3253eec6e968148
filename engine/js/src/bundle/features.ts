/**
 * The tensors of policy.safetensors that say how typed attributes become numbers, and what these
 * add to a vector.
 *
 * `item.features` describes attributes of items, `context.features` those of a request's context.
 * docs/BUNDLE.md describes the tensors, docs/MATH.md the features; both are optional.
 */

import { BundleError } from "../errors.js";
import {
  bool, checked, choice, field, float, int, list, scalar, struct, text,
} from "../runtime/structs.js";
import { cut } from "../unicode.js";
import { type AttributeType, MAX_ATTRIBUTES, TYPES } from "./columns.js";
import { decodeText, parseJson } from "./decodeJson.js";
import { expectTensor, type Tensors } from "./tensors.js";

const FILE = "policy.safetensors";

/** How one attribute becomes numbers. */
export interface Feature {
  readonly name: string;
  readonly type: AttributeType;

  /** Of numbers, times and booleans: what counts as 0, and what is one unit away from it. */
  readonly centre: number;
  readonly scale: number;

  /** Whether units are compressed by asinh, as those of prices are. */
  readonly is_heavy_tailed: boolean;

  /** Of categories: the values that have a column of their own; all others count as missing. */
  readonly values: readonly (string | number | boolean)[];

  /** Of vectors: how many numbers they have. */
  readonly width: number;
}

/** The features of a policy, in the order of their columns: those of categories come last. */
export interface FeatureSchema {
  readonly features: readonly Feature[];

  /** The attributes whose words the encoder reads after an item's text, in this order. */
  readonly texts: readonly string[];
}

/** What a policy has of items' attributes or of contexts: F columns, V of them of vectors. */
export interface FeatureTensors {
  readonly schema: FeatureSchema;

  /** [d, F]: what one unit of each feature adds to the vector. */
  readonly project: Float32Array;

  /** [V]: the mean of the unit vectors of each attribute of type `vector`, one after the other. */
  readonly mean: Float32Array;
}

const FEATURE = struct("Feature", [
  field("name", text()),
  field("type", choice(TYPES)),
  field("centre", float(), { fallback: () => 0 }),
  field("scale", float(), { fallback: () => 1 }),
  field("is_heavy_tailed", bool(), { fallback: () => false }),
  field("values", list(scalar()), { fallback: () => [] }),
  field("width", int(), { fallback: () => 0 }),
]);

const SCHEMA = struct("FeatureSchema", [
  field("features", list(FEATURE), { fallback: () => [] }),
  field("texts", list(text()), { fallback: () => [] }),
]);

/** Returns whether a feature has a column for each of its values. */
export function isCategory({ type }: Feature): boolean {
  return type === "category" || type === "categories";
}

/** Returns how many columns a feature has. */
export function columnsOf(feature: Feature): number {
  if (isCategory(feature)) {
    return feature.values.length;
  }
  return feature.type === "vector" ? feature.width : 1;
}

/**
 * Returns the features of items or contexts of a policy with vectors [d], null where it has none.
 *
 * Throws `BundleError` for malformed ones.
 */
export function readFeatures(
  tensors: Tensors,
  of: "item" | "context",
  d: number,
): FeatureTensors | null {
  const tensor = tensors.get(`${of}.features`);
  if (tensor === undefined) {
    return null;
  }
  const place = `${FILE}: ${of}.features`;
  const schema = readSchema(place, tensor.data as Uint8Array);
  checkFeatures(place, schema.features);
  const sum = (features: readonly Feature[]) =>
    features.reduce((columns, feature) => columns + columnsOf(feature), 0);
  const ofVectors = sum(schema.features.filter(({ type }) => type === "vector"));
  if (of === "context" && ofVectors > 0) {
    throw new BundleError(`${place}: expected no vectors, which only items have`);
  }
  const sides = [d, sum(schema.features)];
  const project = expectTensor(tensors, FILE, `${of}.feature_project`, "F32", sides);
  const mean = expectTensor(tensors, FILE, `${of}.feature_mean`, "F32", [ofVectors]);
  return { schema, project, mean };
}

function readSchema(place: string, bytes: Uint8Array): FeatureSchema {
  const value = parseJson(place, decodeText(place, bytes));
  try {
    return checked(SCHEMA, value) as FeatureSchema;
  } catch (error) {
    throw new BundleError(`${place}: ${(error as Error).message}`);
  }
}

function checkFeatures(place: string, features: readonly Feature[]): void {
  const names = new Set(features.map(({ name }) => name));
  if (names.size !== features.length || features.length > MAX_ATTRIBUTES) {
    throw new BundleError(
      `${place}: expected at most ${MAX_ATTRIBUTES} attributes of different names, found` +
        ` ${features.length}`,
    );
  }
  for (const feature of features) {
    const fault = faultOf(feature);
    if (fault !== null) {
      throw new BundleError(`${place}: ${cut(feature.name, 80)}: ${fault}`);
    }
  }
  const first = features.findIndex(isCategory);
  if (first >= 0 && !features.slice(first).every(isCategory)) {
    throw new BundleError(`${place}: expected categories behind all other features`);
  }
}

function faultOf(feature: Feature): string | null {
  const { type, centre, scale } = feature;
  if (type === "text") {
    return "expected a type that has features, found text";
  }
  if (!(Number.isFinite(centre) && Number.isFinite(scale) && scale > 0)) {
    return `expected a finite centre and a positive scale, found ${centre}, ${scale}`;
  }
  const hasColumns = columnsOf(feature) >= 1;
  return hasColumns ? null : "expected at least one value, or a width of at least 1";
}
