// Decodes logs: { contracts: { ADDRESS: ABI }, logs: [LOG] } becomes a list of { event, columns: [{ name, type, indexed, value }] }.
// It stands behind forms.mjs.

/** Numbers as decimal texts, lists as lists, and of a value that is only hashed, its hash. */
function plain(value) {
  if (Indexed.isIndexed(value)) return value.hash;
  if (typeof value === "bigint") return value.toString();
  return typeof value === "object" ? value.toArray().map(plain) : value;
}

const decoded = input.logs.map((log) => {
  const { fragment, args } = contracts[log.address].get(`${log.topics[0]} ${log.topics.length}`).parseLog(log);
  // By place: a list of ethers has methods such as `values`, which hide parameters of that name.
  const values = args.toArray().map(plain);
  const columns = fragment.inputs.map(({ name, type, indexed }, at) => ({ name, type, indexed, value: values[at] }));
  return { event: fragment.format("sighash"), columns };
});
process.stdout.write(JSON.stringify(decoded));
