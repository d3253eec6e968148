/** The part of `node:assert/strict` that the tests use, for browsers. */

/** A failed assertion. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

type Message = string | Error | undefined;
type Expected = RegExp | Function | object | undefined;

/** Fails unless the value is true in a condition. */
export function assert(value: unknown, message?: Message): asserts value {
  if (!value) {
    fail(message, `expected a true value, found ${shown(value)}`);
  }
}

assert.ok = assert;

assert.equal = (found: unknown, expected: unknown, message?: Message): void => {
  if (!Object.is(found, expected)) {
    fail(message, `expected ${shown(expected)}, found ${shown(found)}`);
  }
};

assert.notEqual = (found: unknown, unexpected: unknown, message?: Message): void => {
  if (Object.is(found, unexpected)) {
    fail(message, `expected anything but ${shown(unexpected)}`);
  }
};

assert.deepEqual = (found: unknown, expected: unknown, message?: Message): void => {
  if (!isDeepEqual(found, expected)) {
    fail(message, `expected ${shown(expected)}, found ${shown(found)}`);
  }
};

assert.notDeepEqual = (found: unknown, unexpected: unknown, message?: Message): void => {
  if (isDeepEqual(found, unexpected)) {
    fail(message, `expected anything but ${shown(unexpected)}`);
  }
};

assert.match = (found: string, pattern: RegExp, message?: Message): void => {
  if (!pattern.test(found)) {
    fail(message, `expected ${pattern}, found ${shown(found)}`);
  }
};

assert.fail = (message?: Message): never => fail(message, "expected not to come here");

assert.throws = (call: () => unknown, expected?: Expected, message?: Message): void => {
  try {
    call();
  } catch (error) {
    checkError(error, expected, message);
    return;
  }
  fail(message, "expected an error, found none");
};

assert.rejects = async (
  call: (() => Promise<unknown>) | Promise<unknown>,
  expected?: Expected,
  message?: Message,
): Promise<void> => {
  try {
    await (typeof call === "function" ? call() : call);
  } catch (error) {
    checkError(error, expected, message);
    return;
  }
  fail(message, "expected a rejection, found none");
};

assert.doesNotThrow = (call: () => unknown): void => void call();

/** Whether two values are equal as `deepStrictEqual` has it. */
export function isDeepEqual(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) {
    return true;
  }
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) {
    return false;
  }
  if (Object.getPrototypeOf(one) !== Object.getPrototypeOf(other)) {
    return false;
  }
  if (one instanceof Map && other instanceof Map) {
    return isDeepEqual([...one], [...other]);
  }
  if (one instanceof Set && other instanceof Set) {
    return one.size === other.size && [...one].every((value) => holds(other, value));
  }
  if (one instanceof Error && one.message !== (other as Error).message) {
    return false;
  }
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every(
      (key) =>
        Object.hasOwn(other, key) &&
        isDeepEqual(Reflect.get(one, key), Reflect.get(other, key)),
    )
  );
}

function holds(set: ReadonlySet<unknown>, value: unknown): boolean {
  return set.has(value) || [...set].some((each) => isDeepEqual(each, value));
}

function checkError(error: unknown, expected: Expected, message: Message): void {
  if (expected instanceof RegExp) {
    assert.match(String(error), expected, message);
  } else if (typeof expected === "function") {
    const isClass = expected.prototype !== undefined && error instanceof expected;
    const { prototype } = expected as { prototype?: unknown };
    if (!isClass && (prototype instanceof Error || expected(error) !== true)) {
      fail(message, `expected another error, found ${error}`);
    }
  } else if (expected !== undefined) {
    checkFields(error as object, expected, message);
  }
}

function checkFields(error: object, expected: object, message: Message): void {
  for (const [name, value] of Object.entries(expected)) {
    const found: unknown = Reflect.get(error, name);
    if (value instanceof RegExp) {
      assert.match(String(found), value, message);
    } else {
      assert.deepEqual(found, value, message);
    }
  }
}

function fail(message: Message, reason: string): never {
  if (message instanceof Error) {
    throw message;
  }
  throw new AssertionError(message === undefined ? reason : `${message}: ${reason}`);
}

function shown(value: unknown): string {
  try {
    const text = JSON.stringify(value, (_, each: unknown) =>
      typeof each === "bigint" ? `${each}n` : each instanceof Map ? [...each] : each,
    );
    return (text ?? String(value)).slice(0, 400);
  } catch {
    return String(value);
  }
}
