#!/bin/bash
# One event signature with two sets of indexed parameters in one ABI, as a proxy's contract has after an upgrade that made a parameter indexed: the
# first topic is the same, the number of topics differs. Eleven events of the asset tokenization kit changed in this way.
#
# Guess before it was run: the decoders of an ABI with both forms choose by the number of topics, or name the clash when the ABI is read.
#
# Seen on ethers 6.17.0 and viem 2.57.20:
#   - both take such an ABI without a word.
#   - ethers' parseLog and viem's decodeEventLog know only the first of the two, in the order of the ABI, and throw at each log of the other; ethers
#     says that the data is too short, and not that another form is in the ABI.
#   - viem's parseEventLogs, of the same package, reads both forms.
#   - of ERC-1155's TransferBatch, whose last parameter is `values`, ethers' args.values is a method of arrays; args.getValue("values") is the value.
#
# What follows: one ABI per version, or viem's parseEventLogs; choose a decoder by topic and number of topics.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit ethers@6.17.0 viem@2.57.20 >/dev/null
cat >decode.js <<'JS'
const { AbiCoder, Interface } = require("ethers");
const { decodeEventLog, parseAbi, parseEventLogs } = require("viem");

const word = (number) => "0x" + number.toString(16).padStart(64, "0");
const form = (amount) => `event TokensFrozen(address indexed sender, address indexed user, uint256${amount} amount)`;
const [later, earlier] = [form(" indexed"), form("")];
const id = new Interface([later]).getEvent("TokensFrozen").topicHash;
const logs = {
  later: { topics: [id, word(1), word(2), word(3)], data: "0x" },
  earlier: { topics: [id, word(1), word(2)], data: word(3) },
};
const tried = (read) => {
  try {
    return String(read());
  } catch (error) {
    return `throws ${error.code ?? error.name}`;
  }
};
const seen = {};
for (const [order, abi] of Object.entries({ "later, earlier": [later, earlier], "earlier, later": [earlier, later] })) {
  for (const [name, log] of Object.entries(logs)) {
    const whole = { ...log, address: "0x0000000000000000000000000000000000000001" };
    seen[`ABI ${order}; a log of the ${name} form`] = [
      tried(() => new Interface(abi).parseLog(log).args.amount),
      tried(() => decodeEventLog({ abi: parseAbi(abi), ...log }).args.amount),
      tried(() => parseEventLogs({ abi: parseAbi(abi), logs: [whole] }).map((read) => read.args.amount)),
    ].join(", ");
  }
}
const batch = new Interface(["event TransferBatch(address indexed operator, address indexed from, address indexed to, uint256[] ids, uint256[] values)"]);
const data = AbiCoder.defaultAbiCoder().encode(["uint256[]", "uint256[]"], [[1], [5]]);
const { args } = batch.parseLog({ topics: [batch.getEvent("TransferBatch").topicHash, word(1), word(2), word(3)], data });
seen["TransferBatch of ethers: args.values, getValue"] = `${typeof args.values}, ${args.getValue("values")}`;
const expected = {
  "ABI later, earlier; a log of the later form": "3, 3, 3",
  "ABI later, earlier; a log of the earlier form": "throws BUFFER_OVERRUN, throws DecodeLogTopicsMismatch, 3",
  "ABI earlier, later; a log of the later form": "throws BUFFER_OVERRUN, throws DecodeLogDataMismatch, 3",
  "ABI earlier, later; a log of the earlier form": "3, 3, 3",
  "TransferBatch of ethers: args.values, getValue": "function, 5",
};
let changed = false;
for (const [name, answer] of Object.entries(seen)) {
  const note = answer === expected[name] ? "" : `   CHANGED, was ${expected[name]}`;
  changed ||= note !== "";
  console.log(`${name}: ${answer}${note}`);
}
process.exit(changed ? 1 : 0);
JS
node decode.js
