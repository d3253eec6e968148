/**
 * In place of `wasmFile` in React Native, as `react-native` in package.json tells its bundler.
 *
 * Hermes has no WebAssembly, and compiles no file with `import.meta`.
 */

/** What `loadKernels` takes unless something else is asked for. */
export const WASM_URL = "plain";

/** Throws: the platform reads no `file:` URL. */
export function readLocalFile(url: URL): Promise<BufferSource> {
  throw new Error(`${url}: expected an address of http or https, found another; pass its bytes`);
}
