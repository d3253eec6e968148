/** The version of the engine, which bundles compare with their `min_engine`. */
export const VERSION = "0.1.0";
