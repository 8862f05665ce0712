// The live stream: follows the house second by second, and comes back by itself whenever the api was away.

import { get, KeyNeeded, Refused } from "./ask.js";

// The api says something at least every ten seconds: whoever is silent for longer than this is gone.
const SILENT_AFTER_MS = 25_000;
// A connection that was cut again at once was none: whoever is cut off again and again waits longer and longer.
const LASTING_MS = 5_000;
const PAUSES_MS = [300, 700, 1_000, 2_000, 3_000, 5_000];

/**
 * Follow the stream for ever. `told(event, data)` gets each message, `state` is told "connected" or "lost" and why,
 * and `needKey()` is waited for when the api wants a key.
 */
export async function follow({ told, state, needKey }) {
  const wakeUp = new WakeUp();
  for (let failures = 0; ;) {
    const reading = new AbortController();
    let why = "";
    const alarm = new Alarm(() => reading.abort());
    const begun_ms = performance.now();
    try {
      alarm.set(SILENT_AFTER_MS);
      const answer = await get("/api/v1/live/stream", { signal: reading.signal });
      for await (const { event, data } of messages(answer.body)) {
        alarm.set(SILENT_AFTER_MS);
        state("connected");
        told(event, JSON.parse(data));
      }
    } catch (error) {
      if (error instanceof KeyNeeded) {
        await needKey();
        failures = 0;
        continue;
      }
      why = error instanceof Refused ? error.message : "";
    } finally {
      alarm.clear();
      reading.abort();
    }
    state("lost", why);
    if (performance.now() - begun_ms > LASTING_MS) failures = 0;
    await wakeUp.pause(PAUSES_MS[Math.min(failures++, PAUSES_MS.length - 1)]);
  }
}

/** Cut a stream of bytes into its Server-Sent Events. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text = (text + value).replaceAll("\r\n", "\n");
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const message = { event: "message", data: "" };
      for (const line of part.split("\n")) {
        const [, field, content] = /^(event|data): ?(.*)$/.exec(line) ?? [];
        if (field === "event") message.event = content;
        else if (field === "data") message.data += content;
      }
      if (message.data) yield message;
    }
  }
}

class Alarm {
  constructor(ring) {
    this.ring = ring;
  }

  set(delay_ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.ring, delay_ms);
  }

  clear() {
    clearTimeout(this.timer);
  }
}

/** A pause that ends early when the reader comes back to the page, or the network to the device. */
class WakeUp {
  constructor() {
    addEventListener("online", () => this.end?.());
    document.addEventListener("visibilitychange", () => document.hidden || this.end?.());
  }

  async pause(length_ms) {
    await new Promise((resolve) => {
      this.end = resolve;
      setTimeout(resolve, length_ms);
    });
  }
}
