// Decodes logs with ethers: { contracts: { ADDRESS: ABI }, logs: [LOG] } becomes a list of { event, columns: [{ name, type, indexed, value }] }.
import { readFileSync } from "node:fs";
import { Indexed, Interface } from "ethers";

const { contracts, logs } = JSON.parse(readFileSync(0, "utf8"));
const interfaces = Object.fromEntries(Object.entries(contracts).map(([address, abi]) => [address, new Interface(abi)]));

/** Numbers as decimal texts, lists as lists, and of a value that is only hashed, its hash. */
function plain(value) {
  if (Indexed.isIndexed(value)) return value.hash;
  if (typeof value === "bigint") return value.toString();
  return typeof value === "object" ? value.toArray().map(plain) : value;
}

const decoded = logs.map((log) => {
  const { fragment, args } = interfaces[log.address].parseLog(log);
  // By place: a list of ethers has methods such as `values`, which hide parameters of that name.
  const values = args.toArray().map(plain);
  const columns = fragment.inputs.map(({ name, type, indexed }, at) => ({ name, type, indexed, value: values[at] }));
  return { event: fragment.format("sighash"), columns };
});
process.stdout.write(JSON.stringify(decoded));
