/** The default runtime of encoders: onnxruntime-web, after @huggingface/tokenizers. */

import { BundleError } from "../errors.js";
import { MissingPackageError } from "./missingPackage.js";
import type { EncodeText, EncoderFiles } from "./textEncoder.js";
import { loadTokenizer } from "./tokenizer.js";

/** The part of onnxruntime-web that is used here. */
interface Ort {
  readonly env: { readonly wasm: { numThreads?: number } };
  readonly Tensor: new (type: "int64", data: BigInt64Array, dims: number[]) => unknown;
  readonly InferenceSession: {
    create(network: Uint8Array, options: object): Promise<Session>;
  };
}

interface Session {
  readonly outputNames: readonly string[];
  run(feed: Record<string, unknown>): Promise<Record<string, { readonly data: unknown }>>;
}

/**
 * Returns what encodes texts by onnxruntime-web, in one thread.
 *
 * Throws `MissingPackageError` where a package is not installed, `BundleError` where the encoder
 * does not load.
 */
export async function onnxRuntimeWeb(files: EncoderFiles): Promise<EncodeText> {
  const ort = await importOrt();
  const tokenize = await loadTokenizer(files.tokenizer, files.maxTokens);
  ort.env.wasm.numThreads = 1; // an app's own work comes first
  let session: Session;
  try {
    session = await ort.InferenceSession.create(files.network, {
      executionProviders: ["wasm"],
      enableCpuMemArena: false,
      logSeverityLevel: 3,
    });
  } catch (error) {
    throw new BundleError(`encoder.onnx: expected a network that loads: ${error}`);
  }
  return async (text) => {
    const ids = tokenize(text);
    const shape = [1, ids.length];
    const feed = {
      input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
      attention_mask: new ort.Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
    };
    const output = await session.run(feed);
    return output[session.outputNames[0]!]!.data as Float32Array;
  };
}

async function importOrt(): Promise<Ort> {
  try {
    return (await import("onnxruntime-web/wasm")) as unknown as Ort;
  } catch (error) {
    throw new MissingPackageError("onnxruntime-web", error);
  }
}
