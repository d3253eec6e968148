/** The default runtime of encoders: onnxruntime-web, after @huggingface/tokenizers. */

import { MissingPackageError } from "./missingPackage.js";
import { onnxEncoder, type Ort } from "./onnxEncoder.js";
import type { EncodeText, EncoderFiles } from "./textEncoder.js";

interface OrtWeb extends Ort {
  readonly env: { readonly wasm: { numThreads?: number } };
}

/**
 * Returns what encodes texts by onnxruntime-web, in one thread.
 *
 * Throws `MissingPackageError` where a package is not installed, `BundleError` where the encoder
 * does not load.
 */
export async function onnxRuntimeWeb(files: EncoderFiles): Promise<EncodeText> {
  const ort = await importOrt();
  ort.env.wasm.numThreads = 1; // an app's own work comes first
  return onnxEncoder(ort, "wasm")(files);
}

async function importOrt(): Promise<OrtWeb> {
  try {
    return (await import("onnxruntime-web/wasm")) as unknown as OrtWeb;
  } catch (error) {
    throw new MissingPackageError("onnxruntime-web", error);
  }
}
