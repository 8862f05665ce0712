// Runs scripts under a real MicroPython, with the files of deploy/esp32 and a fake board: a JSON request a line, an
// answer a line. Each request has an interpreter of its own. A script that has a function `is_over` is called again and
// again, and its memory is tidied between the calls, which this MicroPython cannot do within one. A "live" one has the
// real time and real TCP connections.
import { readdirSync, readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript";

const here = fileURLToPath(new URL(".", import.meta.url));
const firmware = path.join(here, "..", "..", "..", "deploy", "esp32");

class Wire {
  // What the fake socket of a live script holds: bytes as hex, because strings end at a zero byte on their way.
  constructor(host, port) {
    this.state = "opening";
    this.came = [];
    this.socket = net.connect(port, host);
    this.socket.on("connect", () => (this.state = "open"));
    this.socket.on("data", (data) => this.came.push(data));
    this.socket.on("end", () => (this.state = "ended"));
    this.socket.on("error", () => (this.state = "broken"));
  }
  write(hex) {
    this.socket.write(Buffer.from(hex, "hex"));
  }
  read() {
    return this.came.length ? this.came.shift().toString("hex") : "";
  }
  close() {
    this.socket.destroy();
  }
}

// When an object of an interpreter that is gone is tidied away, MicroPython would free its number in the one that is
// there now. No interpreter lives long enough here to need that.
globalThis.FinalizationRegistry = class {
  register() {}
};

const open = new Set();
globalThis.wires = {
  open(host, port) {
    const wire = new Wire(host, port);
    open.add(wire);
    return wire;
  },
  now_ms: () => Math.floor(performance.now()),
};

async function run({ script, live, heap_bytes }) {
  const lines = [];
  const answer = {};
  try {
    const micropython = await loadMicroPython({ stdout: (line) => lines.push(line), heapsize: heap_bytes ?? 4 << 20 });
    for (const folder of [firmware, path.join(here, "board")])
      for (const name of readdirSync(folder).filter((name) => name.endsWith(".py")))
        micropython.FS.writeFile("/" + name, readFileSync(path.join(folder, name)));
    micropython.FS.writeFile("/secrets.py", readFileSync(path.join(firmware, "secrets.py.example")));
    micropython.runPython("import board, json\nresult = None");
    if (live) micropython.runPython("board.go_live()");
    micropython.runPython(script);
    const until = performance.now() + 60_000;
    const isOver = micropython.globals.get("is_over");
    while (isOver && !isOver()) {
      if (performance.now() > until) throw new Error("the script was not over in 60 s");
      if (live) await new Promise((resolve) => setTimeout(resolve, 2));
    }
    micropython.runPython("said = json.dumps(result)");
    answer.result = JSON.parse(micropython.globals.get("said"));
  } catch (error) {
    answer.error = String(error.message);
  }
  for (const wire of open) wire.close();
  open.clear();
  process.stdout.write(JSON.stringify({ ...answer, console: lines }) + "\n");
}

for await (const line of readline.createInterface({ input: process.stdin })) await run(JSON.parse(line));
