/** Texts -> vectors by a package of ONNX Runtime, after @huggingface/tokenizers. */

import { BundleError } from "../errors.js";
import type { EncoderRuntime } from "./textEncoder.js";
import { loadTokenizer } from "./tokenizer.js";

/** The part of onnxruntime-web, onnxruntime-react-native and their like that is used here. */
export interface Ort {
  readonly Tensor: new (type: "int64", data: BigInt64Array, dims: number[]) => unknown;
  readonly InferenceSession: {
    create(network: Uint8Array, options: object): Promise<Session>;
  };
}

interface Session {
  readonly outputNames: readonly string[];
  run(feed: never): Promise<object>;
}

/**
 * Returns what loads encoders by a package of ONNX Runtime, such as onnxruntime-react-native.
 *
 * It throws `MissingPackageError` where the tokenizer's package is not installed, `BundleError`
 * where the encoder does not load.
 */
export function onnxEncoder(ort: Ort, provider = "cpu"): EncoderRuntime {
  return async (files) => {
    const tokenize = await loadTokenizer(files.tokenizer, files.maxTokens);
    let session: Session;
    try {
      session = await ort.InferenceSession.create(files.network, {
        executionProviders: [provider],
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
      const output = (await session.run(feed as never)) as Record<string, { data: Float32Array }>;
      return output[session.outputNames[0]!]!.data;
    };
  };
}
