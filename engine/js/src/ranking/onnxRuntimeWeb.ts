/** The default runtime of encoders: onnxruntime-web and @huggingface/tokenizers, where installed. */

import { BundleError } from "../errors.js";
import type { EncodeText, EncoderFiles } from "./textEncoder.js";

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

interface Tokenizers {
  readonly Tokenizer: new (
    tokenizer: object,
    config: object,
  ) => { encode(text: string): { readonly ids: number[] } };
}

/**
 * Returns what encodes texts by onnxruntime-web, in one thread.
 *
 * Throws `Error` where one of the packages is not installed, `BundleError` where the encoder does
 * not load.
 */
export async function onnxRuntimeWeb(files: EncoderFiles): Promise<EncodeText> {
  const [ort, { Tokenizer }] = await Promise.all([
    imported<Ort>(() => import("onnxruntime-web/wasm")),
    imported<Tokenizers>(() => import("@huggingface/tokenizers")),
  ]);
  ort.env.wasm.numThreads = 1; // an app's own work comes first
  const description = JSON.parse(new TextDecoder().decode(files.tokenizer));
  try {
    const tokenizer = new Tokenizer({ ...description, truncation: null, padding: null }, {});
    const session = await ort.InferenceSession.create(files.network, {
      executionProviders: ["wasm"],
      enableCpuMemArena: false,
      logSeverityLevel: 3,
    });
    const ends = tokenizer.encode("").ids; // what the tokenizer puts around each text
    return async (text) => {
      const ids = cut(tokenizer.encode(text).ids, ends, files.maxTokens);
      const shape = [1, ids.length];
      const feed = {
        input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
        attention_mask: new ort.Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
      };
      const output = await session.run(feed);
      return output[session.outputNames[0]!]!.data as Float32Array;
    };
  } catch (error) {
    throw new BundleError(`encoder.onnx: expected an encoder that loads: ${error}`);
  }
}

/** Returns at most so many tokens, with the last special tokens at the end. */
function cut(ids: readonly number[], ends: readonly number[], maxTokens: number): readonly number[] {
  if (ids.length <= maxTokens) {
    return ids;
  }
  const behind = ends.length - countEqual(ids, ends);
  return [...ids.slice(0, maxTokens - behind), ...ends.slice(ends.length - behind)];
}

/** Returns how many first elements of two lists are equal. */
function countEqual(some: readonly number[], others: readonly number[]): number {
  let count = 0;
  while (count < others.length && some[count] === others[count]) {
    count += 1;
  }
  return count;
}

async function imported<Module>(load: () => Promise<unknown>): Promise<Module> {
  try {
    return (await load()) as Module;
  } catch (error) {
    throw new Error(
      "encoding text needs the packages onnxruntime-web and @huggingface/tokenizers:" +
        ` npm install onnxruntime-web @huggingface/tokenizers (${error})`,
    );
  }
}
