// Checks Flux with InfluxData's own parser and type checker: a JSON string a line comes in, a JSON object a line goes out.
import readline from "node:readline";
import flux from "@influxdata/flux-lsp-node";

const server = new flux.Lsp();
const waiting = new Map();
server.onMessage((text) => {
    const message = JSON.parse(text);
    if (message.method !== "textDocument/publishDiagnostics") return;
    const { uri, diagnostics } = message.params;
    waiting.get(uri)?.(diagnostics);
    waiting.delete(uri);
});
server.run();

const send = (message) => server.send(JSON.stringify({ jsonrpc: "2.0", ...message }));
await send({ id: 1, method: "initialize", params: { capabilities: {} } });
await send({ method: "initialized", params: {} });

let count = 0;
for await (const line of readline.createInterface({ input: process.stdin })) {
    const script = JSON.parse(line);
    // Files of one folder are one package to the checker, so each script gets a folder of its own.
    const uri = `file:///${++count}/script.flux`;
    const told = new Promise((resolve) => waiting.set(uri, resolve));
    await send({
        method: "textDocument/didOpen",
        params: { textDocument: { uri, languageId: "flux", version: 1, text: script } },
    });
    const errors = (await told)
        .filter((each) => each.severity === 1)
        .map((each) => `${each.range.start.line + 1}:${each.range.start.character + 1}: ${each.message}`);
    await send({ method: "textDocument/didClose", params: { textDocument: { uri } } });
    if (!errors.length && !new flux.Flux(script).is_valid()) errors.push("it is not valid, the checker does not say why");
    process.stdout.write(`${JSON.stringify({ errors, ast: flux.parse(script) })}\n`);
}
