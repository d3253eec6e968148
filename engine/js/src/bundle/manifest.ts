/** The manifest of a bundle: which files it has, what they are, and how the device uses them. */

export type * from "./manifestTypes.js";
