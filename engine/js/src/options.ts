/** The options of an engine, checked before anything is opened. */

import { checkFlags, checkNames, checkNumber } from "./arguments.js";
import { isPromise, shown, typeName } from "./errors.js";
import type { KernelSet } from "./kernels/kernelSet.js";
import type { OutboxStorage } from "./outbox/storage.js";
import type { EncoderRuntime } from "./ranking/textEncoder.js";
import type { BundleStore } from "./releases/bundleStore.js";
import { type ReleaseOptions, releaseOptions } from "./releases/releaseOptions.js";
import type { ReleaseSource } from "./releases/releaseSource.js";
import type { Clock, Entropy } from "./runtime/clock.js";
import { FetchTransport, type Transport } from "./upload/transport.js";

/** Bits are flipped with probability 0.475 at the first, 2e-9 at the last. */
const PRIVACY_EPSILON = [0.1, 20] as const;

/** More than 0, at most a year. */
const WINDOW_S = [1e-3, 366 * 86_400] as const;

/** An hour to ten years. */
const PSEUDONYM_DAYS = [1 / 24, 3660] as const;

/** 64 KiB to 1 GiB: the outbox is held in memory. */
const OUTBOX_BYTES = [2 ** 16, 2 ** 30] as const;

const DEFAULT_OUTBOX_BYTES = 8 * 2 ** 20;

/** How an engine computes, stores, uploads and explores. */
export interface EngineOptions {
  /** What searches and draws, such as of `loadKernels`, which is called unless one is given. */
  readonly kernels?: KernelSet;

  /** Loads the encoder of texts; onnxruntime-web unless given. */
  readonly encoder?: EncoderRuntime;

  /**
   * Read all files of the bundle when opening it, check all values, and compute the golden
   * results. Without it a file is checked against its hash when it is read.
   */
  readonly verify?: boolean;

  /**
   * Where users' states and events are stored: the name of a database of this page's origin, or a
   * storage such as `FileStorage` of `@sanderling/engine/node`. Without it users live as long as
   * the engine, and no reward is accepted.
   */
  readonly state?: string | OutboxStorage | null;

  /** URL of the collector to which events are posted, such as `https://rewards.example/v1`. */
  readonly collector?: string | null;

  /** The bearer token of this device for the collector. */
  readonly token?: string | null;

  /** Carries batches instead of HTTP to `collector`. */
  readonly transport?: Transport | null;

  /** Called before each batch; return false to wait. One that throws counts as false. */
  readonly mayUpload?: () => boolean;

  /** The size of the outbox, 64 KiB to 1 GiB. Beyond it whole decisions are shed. */
  readonly outboxBytes?: number;

  /** Whether context vectors may leave the device with decisions. */
  readonly shareContext?: boolean;

  /**
   * The ε of randomized response, 0.1 to 20. Each reward is reduced to a click or none and flipped
   * with probability 1 / (1 + e^ε); training corrects the mean. Such rewards do not update the
   * user's state, which would reveal them. For the same reason it excludes `windowS`.
   */
  readonly privacy?: number | null;

  /**
   * How many seconds after a decision its rewards are awaited, at most 366 days. An item that was
   * passed to `seen` and has no reward by then counts as not clicked.
   */
  readonly windowS?: number | null;

  /**
   * After how many days this install takes a new id and its users new pseudonyms: 1/24 to 3660. It
   * happens as soon as everything is uploaded. Nothing links old and new.
   */
  readonly pseudonymDays?: number | null;

  /** The signed release repository that `update` reads: its URL, or a transport of the app. */
  readonly releases?: string | ReleaseSource | null;

  /** The repository's trusted root metadata, which the app ships: the content of root.json. */
  readonly root?: string | Uint8Array | null;

  /**
   * Where installed bundles are kept; a database beside that of `state` unless given. A folder in
   * Node: `FolderBundleStore` of `@sanderling/engine/node`.
   */
  readonly bundles?: BundleStore | null;

  /** Wall and monotonic time; the system's clocks unless given. */
  readonly clock?: Clock;

  /** Source of random bytes for ids, secrets and exploration; the system's unless given. */
  readonly entropy?: Entropy;
}

/** What storing and uploading need, with defaults in place of what is absent. */
export interface StateOptions {
  readonly state: string | OutboxStorage | null;
  readonly transport: Transport | null;
  readonly mayUpload: () => boolean;
  readonly outboxBytes: number;
  readonly shareContext: boolean;
  readonly privacy: number | null;
  readonly windowS: number | null;
  readonly pseudonymDays: number | null;
  readonly releases: ReleaseOptions;
}

const NAMES = [
  "kernels", "encoder", "verify", "state", "collector", "token", "transport", "mayUpload",
  "outboxBytes", "shareContext", "privacy", "windowS", "pseudonymDays", "releases", "root",
  "bundles", "clock", "entropy",
];

/**
 * Returns the options with defaults.
 *
 * Throws `TypeError` for an option of a wrong type or name, `RangeError` for one out of range and
 * for options that exclude or need each other.
 */
export function stateOptions(options: EngineOptions): StateOptions {
  checkNames("Engine.open", options, NAMES);
  checkFlags({ verify: options.verify, shareContext: options.shareContext });
  const { state = null, privacy = null, windowS = null, pseudonymDays = null } = options;
  const { mayUpload = () => true, outboxBytes = DEFAULT_OUTBOX_BYTES } = options;
  checkParts(options);
  if (state !== null && typeof state !== "string" && typeof state.commit !== "function") {
    throw new TypeError(`state: expected a name or a storage, found ${typeName(state)}`);
  }
  if (typeof mayUpload !== "function") {
    throw new TypeError(`mayUpload: expected a function, found ${typeName(mayUpload)}`);
  }
  checkNumber("outboxBytes", outboxBytes, ...OUTBOX_BYTES);
  checkOptional("privacy", privacy, PRIVACY_EPSILON);
  checkOptional("windowS", windowS, WINDOW_S);
  checkOptional("pseudonymDays", pseudonymDays, PSEUDONYM_DAYS);
  if (privacy !== null && windowS !== null) {
    throw new RangeError(
      "privacy: expected no `windowS` with it, found one: the times of outcomes would reveal the" +
        " rewards that it hides",
    );
  }
  const transport = transportOf(options, state !== null);
  if (pseudonymDays !== null && transport === null) {
    throw new RangeError(
      "pseudonymDays: expected `collector` or `transport` with it, found neither: otherwise no" +
        " pseudonym leaves the device",
    );
  }
  const { shareContext = false } = options;
  const numbers = { outboxBytes, privacy, windowS, pseudonymDays };
  const releases = releaseOptions(options);
  return { state, transport, mayUpload, shareContext, releases, ...numbers };
}

function checkParts({ kernels, encoder }: EngineOptions): void {
  // A promise of kernels is waited for, as `loadKernels` returns one.
  if (kernels !== undefined && !isPromise(kernels) && typeof kernels?.makeIndex !== "function") {
    throw new TypeError(
      `kernels: expected what \`loadKernels\` returned, found ${shown(kernels)};` +
        " without WebAssembly: await loadKernels(\"plain\")",
    );
  }
  if (encoder !== undefined && typeof encoder !== "function") {
    throw new TypeError(`encoder: expected a function, found ${typeName(encoder)}`);
  }
}

function transportOf(options: EngineOptions, hasState: boolean): Transport | null {
  const { collector = null, token = null, transport = null } = options;
  if (collector !== null && transport !== null) {
    throw new RangeError(
      "transport: expected either `collector` or `transport`, found both: leave one out",
    );
  }
  if (!hasState && (collector ?? transport) !== null) {
    throw new RangeError(
      `${collector === null ? "transport" : "collector"}: expected \`state\` with it, found none:` +
        " without it nothing is stored, so nothing could be sent; pass state: \"shop\"",
    );
  }
  if (transport !== null && typeof transport.post !== "function") {
    throw new TypeError(`transport: expected an object with \`post\`, found ${shown(transport)}`);
  }
  if (collector === null) {
    return transport;
  }
  if (typeof collector !== "string" || (token !== null && typeof token !== "string")) {
    throw new TypeError("collector, token: expected strings, found something else");
  }
  return new FetchTransport(collector, token);
}

function checkOptional(
  name: string,
  value: unknown,
  [atLeast, atMost]: readonly [number, number],
): void {
  if (value !== null) {
    checkNumber(name, value, atLeast, atMost);
  }
}
