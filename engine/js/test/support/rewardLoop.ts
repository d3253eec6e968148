/**
 * A process of the Python tests that is killed: it recommends, observes and rewards, and names each
 * decision once the promise of its rewards has said that they are stored.
 *
 *     node rewardLoop.js FOLDER COLLECTOR TOKEN ROUNDS
 *
 * After ROUNDS decisions it uploads everything and says "flushed".
 */

import { writeSync } from "node:fs";

import { Engine, FileStorage } from "../../src/node.js";
import { TINY } from "./bundles.js";
import { NAIVE_KERNELS } from "./naiveKernels.js";

const [folder, collector, token, rounds] = process.argv.slice(2);

const engine = await Engine.open(TINY, {
  kernels: NAIVE_KERNELS,
  state: await FileStorage.open(folder!),
  collector: collector!,
  token: token!,
  shareContext: true,
});

/** Written at once: what is in a buffer would be gone with the process. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

say("open");
for (let i = 0; i < Number(rounds); i++) {
  if (i % 3 === 0) {
    void engine.flush(1); // in the background an upload begins only after a random delay
  }
  const user = `user-${i % 3}`;
  const slate = await engine.recommend({ user, k: 4 });
  const [first, second, third] = slate.items;
  const receipts = await Promise.all([
    engine.reward(slate, first!, 1),
    engine.rewardAll(slate, [[second!, -1], [third!, 0.5]]),
    engine.observe(user, slate.items[3]!.id, "like"),
  ]);
  if (receipts[0].stored && receipts[1].stored) {
    say(slate.decision);
  }
}
while (!(await engine.flush(60))) {
  await new Promise((resolve) => setTimeout(resolve, 100)); // the collector may have asked to wait
}
await engine.close();
say("flushed");
