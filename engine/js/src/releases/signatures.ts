/** Signatures of release metadata, verified by WebCrypto, or by @noble/curves where that lacks. */

import { UpdateError } from "../errors.js";
import { unbase64, unhex } from "../runtime/text.js";

type Bytes = Uint8Array<ArrayBuffer>;

/** A public key, as root metadata has it. */
export interface PublicKey {
  readonly keytype: string;
  readonly scheme: string;

  /** Ed25519: 64 hex digits under `public`; other keys: PEM. */
  readonly keyval: ReadonlyMap<string, string>;
}

interface Scheme {
  readonly key: EcKeyImportParams | RsaHashedImportParams;
  readonly verify: EcdsaParams | RsaPssParams;

  /** Bytes of each of the two numbers of an ECDSA signature; 0 for RSA. */
  readonly numberBytes: number;
}

/** The schemes of keys that are kept in a KMS, beside Ed25519. */
const SCHEMES: Readonly<Record<string, Scheme>> = {
  "ecdsa-sha2-nistp256": ecdsa("P-256", "SHA-256", 32),
  "ecdsa-sha2-nistp384": ecdsa("P-384", "SHA-384", 48),
  "rsassa-pss-sha256": {
    key: { name: "RSA-PSS", hash: "SHA-256" },
    verify: { name: "RSA-PSS", saltLength: 32 },
    numberBytes: 0,
  },
};

function ecdsa(namedCurve: string, hash: string, numberBytes: number): Scheme {
  const name = "ECDSA";
  return { key: { name, namedCurve }, verify: { name, hash }, numberBytes };
}

/**
 * Returns whether a signature of hex digits is that of a key for these bytes; false for what is no
 * signature and for keys of unknown schemes.
 *
 * Throws `UpdateError` where nothing here can verify such keys.
 */
export async function isSignedBy(
  key: PublicKey,
  signature: string,
  data: Uint8Array,
): Promise<boolean> {
  if (!/^([0-9a-f]{2})+$/i.test(signature)) {
    return false;
  }
  const value = key.keyval.get("public") ?? "";
  const bytes = unhex(signature) as Bytes;
  if (key.scheme === "ed25519" && key.keytype === "ed25519") {
    return /^[0-9a-f]{64}$/i.test(value) && verifyEd25519(unhex(value) as Bytes, bytes, data);
  }
  const scheme = Object.hasOwn(SCHEMES, key.scheme) ? SCHEMES[key.scheme]! : null;
  return scheme !== null && verifyPem(scheme, value, bytes, data);
}

async function verifyEd25519(key: Bytes, signature: Bytes, data: Uint8Array): Promise<boolean> {
  const subtle = globalThis.crypto?.subtle;
  let imported: CryptoKey | null = null;
  try {
    imported = (await subtle?.importKey("raw", key, "Ed25519", false, ["verify"])) ?? null;
  } catch {
    // An older browser: Chromium has Ed25519 since 137, Firefox since 129, Safari since 17.
  }
  if (imported !== null) {
    return subtle.verify("Ed25519", imported, signature, data as Bytes);
  }
  const ed25519 = await importNoble();
  try {
    return ed25519.verify(signature, data, key, { zip215: false });
  } catch {
    return false; // no signature, or no point of the curve
  }
}

async function importNoble(): Promise<typeof import("@noble/curves/ed25519.js").ed25519> {
  try {
    return (await import("@noble/curves/ed25519.js")).ed25519;
  } catch (error) {
    throw new UpdateError(
      "verifying a release needs Ed25519, which WebCrypto has here neither for this browser nor" +
        ` outside of HTTPS: npm install @noble/curves (${error})`,
    );
  }
}

async function verifyPem(
  scheme: Scheme,
  pem: string,
  signature: Bytes,
  data: Uint8Array,
): Promise<boolean> {
  const subtle = globalThis.crypto?.subtle;
  if (subtle === undefined) {
    throw new UpdateError(
      "verifying a release signed by ECDSA or RSA needs WebCrypto, which pages have over HTTPS" +
        " only; load the page by HTTPS",
    );
  }
  try {
    const body = pem.replace(/-----[^-]+-----|\s/g, "");
    const key = await subtle.importKey(
      "spki", unbase64(body) as Bytes, scheme.key, false, ["verify"],
    );
    const { numberBytes } = scheme;
    const plain = numberBytes === 0 ? signature : fromDer(signature, numberBytes);
    return await subtle.verify(scheme.verify, key, plain, data as Bytes);
  } catch {
    return false; // no key, or no signature
  }
}

/** Returns the two numbers of an ECDSA signature in DER, each in so many bytes. */
function fromDer(der: Bytes, numberBytes: number): Bytes {
  const plain = new Uint8Array(2 * numberBytes);
  let at = 2; // behind the head of the sequence, which is shorter than 128 bytes
  for (const end of [numberBytes, 2 * numberBytes]) {
    const length = der[at + 1]!;
    // A leading zero keeps the number positive, and small numbers are shorter.
    const number = der.subarray(at + 2, at + 2 + length);
    const digits = number[0] === 0 ? number.subarray(1) : number;
    plain.set(digits, end - digits.length);
    at += 2 + length;
  }
  return plain;
}
