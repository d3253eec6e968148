/** `@sanderling/engine/node`: the parts that need Node's own modules. */

export * from "./index.js";
