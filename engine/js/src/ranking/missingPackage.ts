/** An optional package that encodes texts is not installed. */
export class MissingPackageError extends Error {
  override readonly name = "MissingPackageError";

  /** `error` is what importing the package threw. */
  constructor(packageName: string, error: unknown) {
    super(
      `encoding text needs the package ${packageName}: npm install ${packageName}, or give` +
        ` \`encoder\` to \`Engine.open\` (${error})`,
    );
  }
}
