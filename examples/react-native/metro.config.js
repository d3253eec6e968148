const { getDefaultConfig, mergeConfig } = require("@react-native/metro-config");
const path = require("node:path");

// The engine is linked from this repository; an app that installs it needs none of this.
module.exports = mergeConfig(getDefaultConfig(__dirname), {
  watchFolders: [path.join(__dirname, "../../engine/js")],
  resolver: { nodeModulesPaths: [path.join(__dirname, "node_modules")] },
});
