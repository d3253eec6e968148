/** A shelf of books that learns from taps, offline; rewards go to a collector when there is one. */

import { createAsyncStorage } from "@react-native-async-storage/async-storage";
import { Engine, KeyValueStorage, MemorySource, type Slate } from "@sanderling/engine";
import { useEffect, useState } from "react";
import { AppState, FlatList, Pressable, Text, View } from "react-native";

import files from "./build/bundle.json";

const COLLECTOR: string | null = null; // "https://rewards.example/v1"

function openEngine(): Promise<Engine> {
  const bytes = Object.entries(files).map(
    ([name, code]) => [name, Uint8Array.from(atob(code), (c) => c.charCodeAt(0))] as const,
  );
  const state = new KeyValueStorage(createAsyncStorage("sanderling"));
  return Engine.open(new MemorySource(new Map(bytes)), { state, collector: COLLECTOR });
}

const opening = openEngine();

export function App() {
  const [slate, setSlate] = useState<Slate | null>(null);
  const [fault, setFault] = useState("");

  const fail = (error: unknown) => setFault(String(error));

  async function show(item?: string): Promise<void> {
    const engine = await opening;
    if (slate !== null && item !== undefined) {
      const receipt = await engine.reward(slate, item, 1);
      setFault(receipt.stored ? "" : receipt.reason);
    }
    setSlate(await engine.recommend({ user: "me", k: 10 }));
  }

  useEffect(() => {
    show().catch(fail);
    // The system may end a hidden app without another word, so this is the moment to upload.
    const watched = AppState.addEventListener("change", (state) => {
      if (state !== "active") {
        opening.then((engine) => engine.flush(5)).catch(() => undefined);
      }
    });
    return () => watched.remove();
  }, []);

  return (
    <View style={{ flex: 1, paddingTop: 64, paddingHorizontal: 16 }}>
      <Text accessibilityRole="header">Tap what you like</Text>
      <Text accessibilityLiveRegion="polite">{fault}</Text>
      <FlatList
        data={slate?.items ?? []}
        keyExtractor={(item) => item.id}
        renderItem={({ item }) => (
          <Pressable accessibilityRole="button" onPress={() => show(item.id).catch(fail)}>
            <Text style={{ paddingVertical: 12 }}>
              {item.title} {item.explored ? "· explored" : ""} {item.propensity.toFixed(3)}
            </Text>
          </Pressable>
        )}
      />
    </View>
  );
}
