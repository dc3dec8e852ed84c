#!/bin/bash
# Foundry's artefacts: where a contract's NatSpec of events is.
#
# Guess before it was run: `metadata` in out/NAME.json is the compiler's metadata as an object, and `rawMetadata` the same as text.
#
# Seen on forge 1.7.1 with solc 0.8.30: `metadata.output.devdoc` and `userdoc` have no `events`, and `methods` alone; `rawMetadata` has what the
# author wrote about each event and its parameters, and so has the compiler's own answer. Nothing says that a part was left out.
#
# What follows: whoever makes comments, documentation or columns from an artefact's NatSpec parses `rawMetadata`, and `metadata` only where
# there is no such text.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit @foundry-rs/forge@1.7.1 solc@0.8.30 >/dev/null
# forge speaks standard JSON with a native compiler: this one is the compiler from npm.
cat >solc.sh <<END
#!/bin/sh
case "\$1" in --version) echo "solc, the solidity compiler commandline interface"; echo "Version: 0.8.30+commit.73712a01.Linux.g++"; exit 0 ;; esac
exec node -e 'process.stdout.write(require("$folder/node_modules/solc").compile(require("fs").readFileSync(0, "utf8")))'
END
chmod +x solc.sh
mkdir src
cat >foundry.toml <<END
[profile.default]
src = "src"
out = "out"
offline = true
solc = "$folder/solc.sh"
END
cat >src/Vault.sol <<'END'
// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;
contract Vault {
    /// Money came in.
    /// @param amount in wei
    event Deposited(address indexed from, uint256 amount);
    /// Pays in.
    function deposit() external payable { emit Deposited(msg.sender, msg.value); }
}
END
node_modules/.bin/forge build >build.log 2>&1 || { cat build.log; exit 1; }
node - <<'END'
const artefact = JSON.parse(require("fs").readFileSync("out/Vault.sol/Vault.json", "utf8"));
const seen = (output) => ({
  events: Object.keys(output.userdoc.events ?? {}).concat(Object.keys(output.devdoc.events ?? {})).length,
  methods: Object.keys(output.userdoc.methods ?? {}).length,
});
const found = { metadata: seen(artefact.metadata.output), rawMetadata: seen(JSON.parse(artefact.rawMetadata).output) };
const expected = { metadata: { events: 0, methods: 1 }, rawMetadata: { events: 2, methods: 1 } };
console.log(JSON.stringify(found));
if (JSON.stringify(found) !== JSON.stringify(expected)) {
  console.log("CHANGED, was " + JSON.stringify(expected));
  process.exit(1);
}
END
