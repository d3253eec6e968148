/** Text -> the ids of tokens, by @huggingface/tokenizers. */

import { decodeJson } from "../bundle/decodeJson.js";
import { BundleError } from "../errors.js";
import { MissingPackageError } from "./missingPackage.js";

/** The part of @huggingface/tokenizers that is used here. */
interface Tokenizer {
  encode(
    text: string,
    options?: { readonly add_special_tokens: boolean },
  ): { readonly ids: readonly number[] };
}

interface Tokenizers {
  readonly Tokenizer: new (tokenizer: object, config: object) => Tokenizer;
}

// Chinese characters beyond U+FFFF, each a word of its own for tokenizers of BERT. The package
// looks at halves of pairs, and finds none of them.
const RARE_CHINESE =
  /[\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{2F800}-\u{2FA1F}]/gu;

/** Returns the ids of a text's tokens, special ones included. */
export type Tokenize = (text: string) => readonly number[];

/**
 * Returns what splits texts as tokenizer.json says, into at most so many tokens.
 *
 * Throws `MissingPackageError` where the package is not installed, `BundleError` where the file
 * does not load.
 */
export async function loadTokenizer(file: Uint8Array, maxTokens: number): Promise<Tokenize> {
  const { Tokenizer } = await importTokenizers();
  const description = decodeJson("tokenizer.json", file);
  let tokenizer: Tokenizer;
  let behind: readonly number[];
  try {
    tokenizer = new Tokenizer({ ...description, truncation: null, padding: null }, {});
    behind = tokensBehind(tokenizer);
  } catch (error) {
    throw new BundleError(`tokenizer.json: expected a tokenizer that loads: ${error}`);
  }
  const splitsChinese = JSON.stringify(description["normalizer"] ?? null).includes(
    '"handle_chinese_chars":true',
  );
  return (text) => {
    const words = splitsChinese ? text.replace(RARE_CHINESE, " $& ") : text;
    return cut(tokenizer.encode(words).ids, behind, maxTokens);
  };
}

/** Returns the special tokens that a tokenizer puts behind each text. */
function tokensBehind(tokenizer: Tokenizer): readonly number[] {
  const around = tokenizer.encode("").ids;
  const bare = tokenizer.encode("a", { add_special_tokens: false }).ids;
  const whole = String(tokenizer.encode("a").ids);
  const front = around.findIndex(
    (_, i) => String([...around.slice(0, i), ...bare, ...around.slice(i)]) === whole,
  );
  return front < 0 ? [] : around.slice(front);
}

/** Returns at most so many tokens, with the special ones behind them. */
function cut(
  ids: readonly number[],
  behind: readonly number[],
  maxTokens: number,
): readonly number[] {
  const isShort = ids.length <= maxTokens;
  return isShort ? ids : [...ids.slice(0, maxTokens - behind.length), ...behind];
}

async function importTokenizers(): Promise<Tokenizers> {
  // Inside of `try`, bundlers know that the package may be missing.
  try {
    return (await import("@huggingface/tokenizers")) as unknown as Tokenizers;
  } catch (error) {
    throw new MissingPackageError("@huggingface/tokenizers", error);
  }
}
