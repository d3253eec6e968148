/** The part of the optional package @noble/curves that is used here. */
declare module "@noble/curves/ed25519.js" {
  export const ed25519: {
    verify(
      signature: Uint8Array,
      data: Uint8Array,
      key: Uint8Array,
      options: { readonly zip215: boolean },
    ): boolean;
  };
}
