#!/bin/bash
# Words of a log that are not as a compiler of today writes them, in four decoders for JavaScript. A chain stores such logs like any other.
#
# Guess before it was run: a uint8 of 261, an int8 of 128 (not sign-extended) and an address with bytes above its twenty are refused by each
# decoder, or cut by each.
#
# Seen on ethers 6.17.0, viem 2.57.20, ox 1.8.3, web3-eth-abi 4.4.1:
#   - uint8, word 261: ethers says 5, viem and ox 261 (no uint8), web3 refuses. int8, word 128: ethers says -128, viem and ox 128, web3 refuses.
#     uint128, word 2^128: ethers says 0, viem and ox 2^128.
#   - an address with other bytes above: ethers, which cuts integers, refuses; the other three cut, though none of them cuts integers.
#   - bool, word 2: ethers says true, viem and web3 refuse, ox refuses in data and says false of an indexed one.
#   - web3's decodeLog: indexed bytes4 comes as 32 bytes, though bytes4 in data comes as 4; of an indexed address[1], whose topic is a hash,
#     the hash's last 20 bytes come as an address; an indexed uint256[2] throws. With one topic more than the event has, each indexed argument
#     is taken from the next topic.
#
# What follows: rows decoded by two of them cannot be compared; a column of the type's own width may not hold what viem and ox give. Keep topics
# and data as bytes, decide in one place, and count topics before an ABI is applied.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit ethers@6.17.0 viem@2.57.20 ox@1.8.3 web3-eth-abi@4.4.1 >/dev/null
cat >decode.js <<'JS'
const { AbiCoder } = require("ethers");
const { decodeAbiParameters } = require("viem");
const { AbiEvent, AbiParameters } = require("ox");
const web3 = require("web3-eth-abi");

const word = (digits) => "0x" + digits.padStart(64, "0");
const decoders = {
  ethers: (type, data) => AbiCoder.defaultAbiCoder().decode([type], data).toArray()[0],
  viem: (type, data) => decodeAbiParameters([{ type }], data)[0],
  ox: (type, data) => AbiParameters.decode([{ type }], data)[0],
  web3: (type, data) => web3.decodeParameter(type, data),
};
const low = "0x" + "11".repeat(20);
const words = [
  ["uint8", word("105"), ["5", "261", "261", "refused"]],
  ["int8", word("80"), ["-128", "128", "128", "refused"]],
  ["uint128", word("1" + "0".repeat(32)), ["0", String(2n ** 128n), String(2n ** 128n), "refused"]],
  ["address", "0x" + "ff".repeat(12) + "11".repeat(20), ["refused", low, low, low]],
  ["bool", word("2"), ["true", "refused", "refused", "refused"]],
];

let changed = false;
function check(what, ask, expected) {
  let answer;
  try { answer = String(ask()); } catch { answer = "refused"; }
  const note = answer === expected ? "" : `   CHANGED, was ${expected}`;
  changed ||= note !== "";
  console.log(`${what}: ${answer}${note}`);
}
for (const [type, data, expected] of words) {
  Object.entries(decoders).forEach(([name, decode], i) => check(`${type} ${data}, ${name}`, () => decode(type, data), expected[i]));
}
const flag = AbiEvent.from("event Set(bool indexed flag)");
check("ox, indexed bool 2", () => AbiEvent.decode(flag, { data: "0x", topics: [AbiEvent.getSelector(flag), word("2")] }).flag, "false");

const hash = "0x" + "ab".repeat(32);
const four = "0xaabbccdd" + "0".repeat(56);
const one = (type, indexed, data, topics) => web3.decodeLog([{ type, name: "value", indexed }], data, topics).value;
check("web3, indexed bytes4", () => one("bytes4", true, "0x", [four]), four);
check("web3, bytes4 in data", () => one("bytes4", false, four, []), "0xaabbccdd");
check("web3, indexed address[1]", () => String(one("address[1]", true, "0x", [hash])).toLowerCase(), "0x" + "ab".repeat(20));
check("web3, indexed uint256[2]", () => one("uint256[2]", true, "0x", [hash]), "refused");
const transfer = ["from", "to"].map((name) => ({ type: "address", name, indexed: true }));
const topics = ["11", "22", "33"].map((byte) => word(byte.repeat(20)));
check("web3, from of a log with a topic more", () => web3.decodeLog(transfer, "0x", topics).from, "0x" + "22".repeat(20));
process.exit(changed ? 1 : 0);
JS
node decode.js
