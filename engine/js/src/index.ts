/** `@sanderling/engine`: recommendations in a browser, in Node and in app shells. */

export type { ContextFeatures, ItemOrId } from "./arguments.js";
export { Bundle } from "./bundle/bundle.js";
export { type BundleSource, FetchSource, MemorySource } from "./bundle/source.js";
export { Engine, type RecommendArguments, type WarmUpOptions } from "./engine.js";
export type { NewItem } from "./engineCatalog.js";
export type { EngineCounters, RewardArguments } from "./engineRewards.js";
export type { SearchArguments, SimilarArguments } from "./engineSearch.js";
export {
  BatchSizeError,
  BundleError,
  EventError,
  SanderlingError,
  StorageError,
  UpdateError,
} from "./errors.js";
export type { KernelSet } from "./kernels/kernelSet.js";
export { loadKernels } from "./kernels/loadKernels.js";
export type { EngineOptions } from "./options.js";
export { IndexedDbStorage } from "./outbox/indexedDbStorage.js";
export { KeyValueStorage, type KeyValueStore } from "./outbox/keyValueStorage.js";
export { MemoryStorage } from "./outbox/memoryStorage.js";
export {
  ConflictError,
  type EventRow,
  type OutboxHeader,
  type OutboxStorage,
  type StoredChanges,
  type StoredContents,
  StorageFullError,
} from "./outbox/storage.js";
export type * from "./reasons.js";
export { onnxEncoder } from "./ranking/onnxEncoder.js";
export type { UpdateCounters } from "./releases/activeBundle.js";
export { type BundleStore, MemoryBundleStore } from "./releases/bundleStore.js";
export { IndexedDbBundleStore } from "./releases/indexedDbBundleStore.js";
export { FetchReleases, type ReleaseSource } from "./releases/releaseSource.js";
export type { EncoderFiles, EncoderRuntime, EncodeText } from "./ranking/textEncoder.js";
export {
  type Attributes,
  type Explanation,
  type FoundItem,
  FoundItems,
  type Receipt,
  Slate,
  type SlateItem,
} from "./slate.js";
export {
  FetchTransport,
  NoNetworkError,
  type Transport,
  type TransportResponse,
} from "./upload/transport.js";
export { VERSION } from "./version.js";
