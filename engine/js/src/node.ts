/** `@sanderling/engine/node`: the parts that need Node's own modules. */

export { FolderSource } from "./bundle/folderSource.js";
export * from "./index.js";
export { FileStorage } from "./outbox/fileStorage.js";
export { FolderBundleStore } from "./releases/folderBundleStore.js";
