// Encodes random values: { contracts: { ADDRESS: ABI }, rounds, seed } becomes a list of [ADDRESS, TOPICS, DATA], with each form of each event
// once in a round. It stands behind forms.mjs.

const coder = AbiCoder.defaultAbiCoder();
let drawn = 0;

/** 32 random bytes. A seed draws the same ones again. */
const random = () => id(`${input.seed} ${drawn++}`);
const below = (end) => Number(BigInt(random()) % BigInt(end));
const some = (most, of) => Array.from({ length: below(most + 1) }, of);

/** Beside plain letters: those of two to four bytes, those that JSON escapes, and NUL, which PostgreSQL refuses in a text. */
const PARTS = ["a", " ", "Zürich", "資産", "🪙", '"\\', "\n\t", "{}", "null", "'", "\0"];

/** Numbers of every length, and often the largest and the smallest. */
function number(bits, isSigned) {
  const whole = 1n << BigInt(bits);
  const low = isSigned ? -whole / 2n : 0n;
  const chosen = [low, low + whole - 1n, 0n, isSigned ? -1n : 1n][below(12)];
  if (chosen !== undefined) return chosen;
  const small = (BigInt(random()) % whole) >> BigInt(below(bits));
  return isSigned ? BigInt.asIntN(bits, below(2) ? small : -small) : small;
}

function value(param) {
  const { baseType, arrayLength, arrayChildren, components } = param;
  if (baseType === "array") {
    const length = arrayLength < 0 ? below(5) : arrayLength;
    return Array.from({ length }, () => value(arrayChildren));
  }
  if (baseType === "tuple") return components.map(value);
  if (baseType === "string") return some(5, () => PARTS[below(PARTS.length)]).join("");
  if (baseType === "bytes") return dataSlice(concat([random(), random(), random()]), 0, below(97));
  if (baseType === "address") return getAddress(dataSlice(random(), 0, 20));
  if (baseType === "bool") return below(2) === 1;
  const [, kind, size] = /^(bytes|u?int)(\d+)$/.exec(baseType);
  return kind === "bytes" ? dataSlice(random(), 0, Number(size)) : number(Number(size), kind === "int");
}

const isStatic = ({ baseType, components }) =>
  baseType === "tuple" ? components.every(isStatic) : !["array", "string", "bytes"].includes(baseType);

/** ethers does not encode an indexed struct: its topic is the hash of its members, one behind the other. */
function encode(iface) {
  const fragment = iface.getEvent(iface.fragments[0].name);
  const values = fragment.inputs.map(value);
  const inputs = fragment.inputs.map((param, at) => {
    if (!param.indexed || !["array", "tuple"].includes(param.baseType)) return param;
    if (!isStatic(param)) throw new Error(`${fragment.format()}: no rule here for an indexed ${param.type}`);
    values[at] = keccak256(coder.encode([param], [values[at]]));
    return { name: param.name, type: "bytes32", indexed: true };
  });
  const hashed = EventFragment.from({ type: "event", name: fragment.name, inputs });
  const { topics, data } = new Interface([hashed]).encodeEventLog(hashed, values);
  return [[fragment.topicHash, ...topics.slice(1)], data];
}

const logs = [];
for (let round = 0; round < input.rounds; round++) {
  for (const [address, forms] of Object.entries(contracts)) {
    for (const iface of forms.values()) logs.push([address, ...encode(iface)]);
  }
}
process.stdout.write(JSON.stringify(logs));
