/**
 * One device that updates, driven by Python's tests: a call a line on standard input, as in
 * `answer.ts`, one after the other.
 */

import { createInterface } from "node:readline";

import { Engine, FileStorage, FolderBundleStore, FolderSource } from "../../src/node.js";
import { onnxRuntimeWeb } from "../../src/ranking/onnxRuntimeWeb.js";
import { canonicalJson } from "../../src/releases/canonicalJson.js";
import { inRollout } from "../../src/releases/release.js";
import { SYSTEM_CLOCK } from "../../src/runtime/clock.js";
import { noRuntime } from "./signedRepository.js";

let engine: Engine;

const CALLS: Record<string, (...parameters: any[]) => unknown> = {
  canonicalJson: (text: string) => canonicalJson(JSON.parse(text)),
  inRollout,
  open: async (
    bundle: string,
    folder: string,
    releases: string,
    root: string,
    { days = 0, hasEncoder = false },
  ) => {
    const wallMs = (): number => SYSTEM_CLOCK.wallMs() + days * 86_400_000;
    engine = await Engine.open(new FolderSource(bundle), {
      state: await FileStorage.open(folder),
      bundles: new FolderBundleStore(`${folder}/bundles`),
      releases,
      root,
      encoder: hasEncoder ? onnxRuntimeWeb : noRuntime,
      clock: { ...SYSTEM_CLOCK, wallMs },
    });
    return engine.release;
  },
  update: (timeoutS?: number) => engine.update(timeoutS),
  recommend: async () => (await engine.recommend({ user: "anna", k: 3 })).release,
  rollback: () => engine.rollback(),
  counters: () => engine.counters().updates,
  close: () => engine.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...parameters] = JSON.parse(line);
  let answer: unknown;
  try {
    answer = { value: (await CALLS[name]!(...parameters)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
