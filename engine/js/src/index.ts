/** `@sanderling/engine`: recommendations in a browser, in Node and in app shells. */

export {
  BatchSizeError,
  BundleError,
  EventError,
  SanderlingError,
  StorageError,
  UpdateError,
} from "./errors.js";
export { VERSION } from "./version.js";
