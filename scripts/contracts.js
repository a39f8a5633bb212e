// Compiles openpool/demo/contracts/*.sol into contracts.json beside them (abi and bytecode).
// With --check compares instead, and fails where the committed file is not what the sources give.
"use strict";
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const folder = path.join(__dirname, "..", "openpool", "demo", "contracts");
const names = fs.readdirSync(folder).filter((name) => name.endsWith(".sol")).sort();
const read = (name) => fs.readFileSync(path.join(folder, name), "utf8");
const input = {
  language: "Solidity",
  sources: Object.fromEntries(names.map((name) => [name, { content: read(name) }])),
  settings: {
    evmVersion: "paris",
    metadata: { bytecodeHash: "none", appendCBOR: false },
    optimizer: { enabled: true, runs: 200 },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
for (const each of output.errors || []) console.error(each.formattedMessage);
if ((output.errors || []).some((each) => each.severity === "error")) process.exit(1);

const found = {};
for (const file of names) {
  for (const [name, made] of Object.entries(output.contracts[file] || {})) {
    if (made.evm.bytecode.object) found[name] = { abi: made.abi, bytecode: "0x" + made.evm.bytecode.object };
  }
}
const lines = Object.keys(found).sort().map((name) => JSON.stringify(name) + ": " + JSON.stringify(found[name]));
const text = "{\n" + lines.join(",\n") + "\n}\n";
const target = path.join(folder, "contracts.json");
if (!process.argv.includes("--check")) {
  fs.writeFileSync(target, text);
} else if (fs.readFileSync(target, "utf8") !== text) {
  console.error("contracts.json is not what the sources give; run: node scripts/contracts.js");
  process.exit(1);
}
