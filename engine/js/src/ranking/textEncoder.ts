/**
 * Text -> vector by the bundle's int8 encoder.
 *
 * Texts are encoded one by one: dynamic int8 depends on what else is in a batch, and golden vectors
 * were made one by one.
 */

import type { Bundle } from "../bundle/bundle.js";
import { BundleError } from "../errors.js";
import { LruCache } from "../runtime/lruCache.js";
import { cut } from "../unicode.js";

const MAX_CHARACTERS = 8192;
const CACHE_ENTRIES = 1024;

/** The files of an encoder, as a bundle has them. */
export interface EncoderFiles {
  /** The bytes of encoder.onnx. */
  readonly network: Uint8Array;

  /** The bytes of tokenizer.json. */
  readonly tokenizer: Uint8Array;

  /** Tokens of a text beyond which it is cut. */
  readonly maxTokens: number;
}

/** Returns the vector [t] of a text. */
export type EncodeText = (text: string) => Promise<Float32Array>;

/** Loads an encoder: `onnxRuntimeWeb` unless the app gives another. */
export type EncoderRuntime = (files: EncoderFiles) => Promise<EncodeText>;

/**
 * The encoder of a bundle.
 *
 * It loads on the first text, so that an engine which never reads text never pays for it.
 */
export class BundleTextEncoder {
  readonly #bundle: Bundle;
  readonly #runtime: EncoderRuntime;
  readonly #cache = new LruCache<string, Promise<Float32Array>>(CACHE_ENTRIES);
  #loaded: Promise<EncodeText> | null = null;

  constructor(bundle: Bundle, runtime: EncoderRuntime) {
    this.#bundle = bundle;
    this.#runtime = runtime;
  }

  /**
   * Returns the unit vector [t] of a context or a search; any string is allowed, the empty one too.
   *
   * Characters beyond `MAX_CHARACTERS` are ignored. The vector is kept for the next time unless
   * `keep` is false. Throws `BundleError` when the encoder cannot be loaded, fails, or does not
   * return t finite numbers, and what the runtime throws where it is not installed.
   */
  encode(text: string, keep = true): Promise<Float32Array> {
    return this.#encode(this.#bundle.manifest.prefixes.query, text, keep);
  }

  /** Returns the unit vector [t] of an item's text; otherwise as `encode`. */
  encodeItem(text: string, keep = true): Promise<Float32Array> {
    return this.#encode(this.#bundle.manifest.prefixes.item, text, keep);
  }

  /** Loads the encoder, which the first text would wait for. */
  async load(): Promise<void> {
    await this.#load();
  }

  #encode(prefix: string, text: string, keep: boolean): Promise<Float32Array> {
    // Half of a character becomes a question mark, as in Python.
    const clean = `${prefix}${cut(text, MAX_CHARACTERS)}`.replace(/[\uD800-\uDFFF]/gu, "?");
    if (!keep) {
      return this.#cache.peek(clean) ?? this.#encodeUncached(clean);
    }
    return this.#cache.getOrMake(clean, () => {
      const vector = this.#encodeUncached(clean);
      vector.catch(() => this.#cache.delete(clean)); // the next call tries again
      return vector;
    });
  }

  async #encodeUncached(text: string): Promise<Float32Array> {
    const encode = await this.#load();
    const vector = await encode(text);
    const { text: t } = this.#bundle.manifest.sizes;
    if (vector.length !== t || !vector.every(Number.isFinite)) {
      throw new BundleError(
        `encoder.onnx: expected ${t} finite numbers for a text, found ${vector.length}`,
      );
    }
    return vector;
  }

  #load(): Promise<EncodeText> {
    if (this.#loaded === null) {
      this.#loaded = this.#read();
      this.#loaded.catch(() => {
        this.#loaded = null;
      });
    }
    return this.#loaded;
  }

  async #read(): Promise<EncodeText> {
    const [network, tokenizer] = await Promise.all([
      this.#bundle.read("encoder.onnx"),
      this.#bundle.read("tokenizer.json"),
    ]);
    const maxTokens = this.#bundle.manifest.sizes.max_tokens;
    return this.#runtime({ network, tokenizer, maxTokens });
  }
}
