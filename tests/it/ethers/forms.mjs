// The forms of a contract's events, as ethers reads them: the first event of a signature and a number of topics, with an interface of its own.
// An interface of several forms would keep only one of a signature.
import { readFileSync } from "node:fs";
import { AbiCoder, EventFragment, Indexed, Interface, concat, dataSlice, getAddress, id, keccak256 } from "ethers";

const input = JSON.parse(readFileSync(0, "utf8"));

function forms(abi) {
  const forms = new Map();
  for (const item of abi.filter(({ type }) => type === "event")) {
    const fragment = EventFragment.from(item);
    const key = `${fragment.topicHash} ${1 + fragment.inputs.filter(({ indexed }) => indexed).length}`;
    if (!forms.has(key)) forms.set(key, new Interface([fragment]));
  }
  return forms;
}

const contracts = Object.fromEntries(Object.entries(input.contracts).map(([address, abi]) => [address, forms(abi)]));
