/** Memory that JavaScript does not collect by itself, freed with what uses it. */

interface Releasable {
  release(): void;
}

// Missing in old app shells: there the memory is freed with the page.
const registry =
  typeof FinalizationRegistry === "undefined"
    ? null
    : new FinalizationRegistry<Releasable>((resource) => resource.release());

/** Releases a resource some time after its owner, to which it must not refer, is gone. */
export function releaseWith(owner: object, resource: Releasable): void {
  registry?.register(owner, resource);
}
