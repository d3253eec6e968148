import assert from "node:assert/strict";
import { generateKeyPairSync, type KeyObject, sign, constants } from "node:crypto";
import { test } from "node:test";

import { isSignedBy, type PublicKey } from "../../src/releases/signatures.js";

const DATA = Buffer.from('{"_type":"root"}');

function pemKey(keytype: string, scheme: string, key: KeyObject): PublicKey {
  const pem = key.export({ type: "spki", format: "pem" }) as string;
  return { keytype, scheme, keyval: new Map([["public", pem]]) };
}

function flipped(signature: Buffer): string {
  const other = Buffer.from(signature);
  other[other.length - 1]! ^= 1;
  return other.toString("hex");
}

async function checkKey(key: PublicKey, signature: Buffer): Promise<void> {
  assert.equal(await isSignedBy(key, signature.toString("hex"), DATA), true);
  assert.equal(await isSignedBy(key, flipped(signature), DATA), false);
  assert.equal(await isSignedBy(key, signature.toString("hex"), Buffer.from("other")), false);
  for (const wrong of ["", "zz", "00", signature.toString("hex").slice(2)]) {
    assert.equal(await isSignedBy(key, wrong, DATA), false, wrong);
  }
}

const ed25519 = generateKeyPairSync("ed25519");
const RAW = ed25519.publicKey.export({ type: "spki", format: "der" }).subarray(-32);
const ED25519 = {
  keytype: "ed25519",
  scheme: "ed25519",
  keyval: new Map([["public", RAW.toString("hex")]]),
};
const SIGNATURE = sign(null, DATA, ed25519.privateKey);

test("Ed25519 signatures are verified by WebCrypto.", async () => {
  await checkKey(ED25519, SIGNATURE);
});

test("Ed25519 signatures are verified by @noble/curves where WebCrypto has none.", async (t) => {
  t.mock.method(crypto.subtle, "importKey", () => {
    throw new DOMException("Unrecognized name.", "NotSupportedError");
  });
  await checkKey(ED25519, SIGNATURE);
});

test("Ed25519 signatures are verified on a page without WebCrypto.", async (t) => {
  t.mock.getter(globalThis, "crypto", () => undefined);
  await checkKey(ED25519, SIGNATURE);
});

test("ECDSA signatures of both curves, as a KMS makes them, are verified.", async () => {
  const curves = [["prime256v1", "256", "sha256"], ["secp384r1", "384", "sha384"]] as const;
  for (const [namedCurve, bits, hash] of curves) {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve });
    const key = pemKey("ecdsa", `ecdsa-sha2-nistp${bits}`, publicKey);
    for (let i = 0; i < 64; i++) {
      // The numbers of a signature have a byte less in one of 128, and a zero in front in one of 2.
      const signature = sign(hash, DATA, privateKey);
      assert.equal(await isSignedBy(key, signature.toString("hex"), DATA), true);
    }
    await checkKey(key, sign(hash, DATA, privateKey));
  }
});

test("RSA signatures with PSS are verified.", async () => {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const padding = constants.RSA_PKCS1_PSS_PADDING;
  const signature = sign("sha256", DATA, { key: privateKey, padding, saltLength: 32 });
  await checkKey(pemKey("rsa", "rsassa-pss-sha256", publicKey), signature);
});

test("A key that is none, or of an unknown scheme, has signed nothing.", async () => {
  const signature = SIGNATURE.toString("hex");
  const keyval = new Map([["public", "no key"]]);
  for (const scheme of ["ed25519", "ecdsa-sha2-nistp256", "rsassa-pss-sha256", "constructor"]) {
    for (const keytype of ["ed25519", "ecdsa", "ml-dsa"]) {
      assert.equal(await isSignedBy({ keytype, scheme, keyval }, signature, DATA), false);
    }
  }
});
