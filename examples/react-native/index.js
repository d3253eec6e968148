import "react-native-get-random-values"; // first: the engine's randomness

import { AppRegistry } from "react-native";

import { App } from "./App.tsx";

AppRegistry.registerComponent("Sanderling", () => App);
