/**
 * Checks that a bundle computes here what it computed in the lab, and that requests can meet its
 * rules.
 *
 * Hashes show that a bundle was not altered; its golden inputs and outputs show that encoder,
 * policy and items work together here.
 */

import { decodeJson } from "../bundle/decodeJson.js";
import { BundleError } from "../errors.js";
import { faultInRules } from "../rules/bundleRules.js";
import { checked, field, float, list, struct, text, tuple } from "../runtime/structs.js";
import { MissingPackageError } from "./missingPackage.js";
import type { Scorer } from "./scorer.js";

// Not equality, because int8 arithmetic differs between processors.
const MIN_COSINE = 0.999;
const MIN_OVERLAP = 0.8;
const FILE = "golden.json";

interface GoldenText {
  readonly text: string;
  readonly vector: readonly number[];
}

interface GoldenState {
  readonly events: readonly (readonly [string, string])[];
  readonly top: readonly string[];
}

interface Golden {
  readonly texts: readonly GoldenText[];
  readonly states: readonly GoldenState[];
}

const GOLDEN = struct("Golden", [
  field(
    "texts",
    list(struct("GoldenText", [field("text", text()), field("vector", list(float()))])),
  ),
  field(
    "states",
    list(
      struct("GoldenState", [
        field("events", list(tuple(text(), text()))),
        field("top", list(text())),
      ]),
    ),
  ),
]);

/**
 * Throws `BundleError` unless the bundle's results here are those of the lab, and its rules fit its
 * catalog.
 *
 * Texts are left out where the encoder's packages are not installed.
 */
export async function checkGolden(scorer: Scorer): Promise<void> {
  const faults = await goldenFaults(scorer);
  if (faults.length > 0) {
    throw new BundleError(`${scorer.bundle.source.name}: ${faults.join("; ")}`);
  }
}

/** Returns where the bundle's results differ from the lab's, and what is wrong with its rules. */
async function goldenFaults(scorer: Scorer): Promise<string[]> {
  const golden = readGolden(await scorer.bundle.read(FILE));
  if (golden.texts.length === 0 || golden.states.length === 0) {
    return [`${FILE}: expected texts and states, found none`];
  }
  const ofRules = faultInRules(scorer);
  const faults = golden.states.map((state, i) => stateFault(scorer, i, state));
  faults.push(ofRules === null ? null : `manifest.json: rules: ${ofRules}`);
  try {
    for (const each of golden.texts) {
      faults.push(await textFault(scorer, each));
    }
  } catch (error) {
    if (!(error instanceof MissingPackageError)) {
      throw error;
    }
  }
  return faults.filter((fault) => fault !== null);
}

function readGolden(data: Uint8Array): Golden {
  try {
    return checked(GOLDEN, decodeJson(FILE, data)) as Golden;
  } catch (error) {
    throw error instanceof BundleError
      ? error
      : new BundleError(`${FILE}: ${(error as Error).message}`);
  }
}

async function textFault(scorer: Scorer, golden: GoldenText): Promise<string | null> {
  const vector = await scorer.encoder.encode(golden.text);
  const name = `golden text ${JSON.stringify(golden.text)}`;
  if (vector.length !== golden.vector.length) {
    return `${name}: expected ${golden.vector.length} numbers, found ${vector.length}`;
  }
  const found = Array.from(vector);
  const dot = (some: readonly number[], others: readonly number[]) =>
    some.reduce((sum, value, i) => sum + value * others[i]!, 0);
  // The addend lets a zero vector fail instead of dividing by zero.
  const norms = Math.sqrt(dot(found, found) * dot(golden.vector, golden.vector)) + 1e-12;
  const cosine = dot(found, golden.vector) / norms;
  return cosine >= MIN_COSINE
    ? null
    : `${name}: expected a cosine of at least ${MIN_COSINE}, found ${cosine.toFixed(4)}`;
}

function stateFault(scorer: Scorer, index: number, golden: GoldenState): string | null {
  const top = new Set(topAfter(scorer, golden.events, golden.top.length));
  const common = golden.top.filter((item) => top.has(item)).length;
  const overlap = common / Math.max(golden.top.length, 1);
  return golden.top.length > 0 && overlap >= MIN_OVERLAP
    ? null
    : `golden state ${index}: expected a top-10 overlap of at least ${MIN_OVERLAP},` +
        ` found ${overlap.toFixed(2)}`;
}

/** Returns the ids of the k best items after events (item id, kind), seen items included. */
function topAfter(
  scorer: Scorer,
  events: readonly (readonly [string, string])[],
  k: number,
): string[] {
  let state = scorer.userModel.initialState();
  for (const [item, kind] of events) {
    const row = scorer.find(item);
    if (row !== null) {
      state = scorer.userModel.step(state, scorer.vector(row), kind);
    }
  }
  const ranking = scorer.rank(scorer.userModel.userVector(state), k);
  return Array.from(ranking.rows, (row) => scorer.item(row).id);
}
