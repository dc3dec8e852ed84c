#!/bin/bash
# The receipts root of a block with a failed transaction, on Ganache.
#
# Guess before it was run: the root commits to the receipts as EIP-658 encodes them, where a status of 0 is the empty string (0x80). Whoever
# recomputes it from eth_getTransactionReceipt gets the header's root.
#
# Seen on Ganache 7.9.2: of a transaction that succeeds, so it is. Of one that reverts, it is not: the header's root is that of a receipt whose
# status is one zero byte (0x00), so a check of the root refuses each block in which something reverted.
#
# What follows for whoever verifies receipts: where a status is 0, try the zero byte before the node is called a liar. The root then proves
# the same receipt.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit ganache@7.9.2 @ethereumjs/rlp@5.0.2 ethereum-cryptography@3.1.0 >/dev/null
cat >root.js <<'JS'
const { RLP } = require("@ethereumjs/rlp");
const { keccak256 } = require("ethereum-cryptography/keccak");
const node = require("ganache").provider({ logging: { quiet: true }, chain: { vmErrorsOnRPCResponse: false } });
const ask = (method, ...params) => node.request({ method, params });
const hex = (bytes) => "0x" + Buffer.from(bytes).toString("hex");

// The root of a trie with one receipt without logs: a leaf at the path of RLP(0), which is 0x80. `status` is encoded already.
function root(receipt, status) {
  const gas = RLP.encode(BigInt(receipt.cumulativeGasUsed));
  const bloom = RLP.encode(new Uint8Array(256));
  const payload = Buffer.concat([status, gas, bloom, RLP.encode([])]);
  const list = Buffer.concat([Buffer.from([0xf9, payload.length >> 8, payload.length & 255]), payload]);
  const typed = Buffer.concat([Buffer.from([Number(receipt.type)]), list]);
  return hex(keccak256(RLP.encode([Buffer.from([0x20, 0x80]), typed])));
}

async function look(data) {
  const [from] = await ask("eth_accounts");
  const hash = await ask("eth_sendTransaction", { from, data, gas: "0x30000" });
  const receipt = await ask("eth_getTransactionReceipt", hash);
  const block = await ask("eth_getBlockByNumber", receipt.blockNumber, false);
  const by = { "as in EIP-658": Buffer.from([Number(receipt.status) || 0x80]), "a zero byte": Buffer.from([0]) };
  const fits = Object.keys(by).filter((how) => root(receipt, by[how]) === block.receiptsRoot);
  console.log(`status ${receipt.status}: the header's root fits a status that is ${fits.join(" and ") || "neither"}`);
  return fits.join();
}

(async () => {
  // The creation of an empty contract, and one that reverts.
  const expected = (await look("0x00")) === "as in EIP-658" && (await look("0x60006000fd")) === "a zero byte";
  process.exit(expected ? 0 : 1);
})().catch((error) => { console.error(error); process.exit(1); });
JS
node root.js
