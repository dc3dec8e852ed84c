#!/bin/bash
# Anvil with --transaction-block-keeper, asked for the logs of a block that it no longer keeps.
#
# Guess before it was run: as other nodes that prune history, it refuses (go-ethereum: "history has been pruned"), or answers null.
#
# Seen on Anvil 1.7.1 with --transaction-block-keeper 2, after six blocks of one log each:
#   - eth_getLogs from the first block to the head gives the logs of the last two blocks, as if there were no others.
#   - of block 1, eth_getLogs by number and by hash give [], eth_getBlockReceipts gives [], and none is an error.
#   - the block itself is still there, with no transactions. Only its roots of transactions and receipts and its bloom, which are not those of
#     an empty block, tell that there was something.
#   - eth_getTransactionReceipt gives null.
#
# What follows for an indexer on a long-running devnet: an empty answer is to be held against the header's bloom or receipts root. The number
# of receipts fits the number of transactions: both are gone. Without that the history looks complete and is not.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit @foundry-rs/anvil-linux-amd64@1.7.1 >/dev/null
node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil --port 28554 --silent --transaction-block-keeper 2 &
cat >ask.py <<'PY'
import json, sys, time, urllib.request

TOPIC = "0x" + "ab" * 32
# PUSH32 topic, no data, LOG1: a contract's creation that emits one log.
EMIT = "0x7f" + TOPIC[2:] + "60006000a100"
EMPTY = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


def ask(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request("http://127.0.0.1:28554", body, {"content-type": "application/json"})
    answer = json.load(urllib.request.urlopen(request, timeout=30))
    return answer["error"]["code"] if "error" in answer else answer["result"]


def wait(method, *params):
    for _ in range(300):
        try:
            answer = ask(method, *params)
            if answer:
                return answer
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"no answer to {method}")


print(wait("web3_clientVersion"))
account = ask("eth_accounts")[0]
sent = []
for _ in range(6):
    sent.append(ask("eth_sendTransaction", {"from": account, "data": EMIT, "gas": "0x30000"}))
    wait("eth_getTransactionReceipt", sent[-1])
block = ask("eth_getBlockByNumber", "0x1", False)
numbers = lambda logs: [int(log["blockNumber"], 16) for log in logs] if isinstance(logs, list) else logs
tries = {
    "blocks of all logs": (numbers(ask("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})), [5, 6]),
    "logs of block 1 by number": (ask("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x1"}), []),
    "logs of block 1 by hash": (ask("eth_getLogs", {"blockHash": block["hash"]}), []),
    "receipts of block 1": (ask("eth_getBlockReceipts", "0x1"), []),
    "receipt of its transaction": (ask("eth_getTransactionReceipt", sent[0]), None),
    "transactions of block 1": (len(block["transactions"]), 0),
    "its transactions root is empty": (block["transactionsRoot"] == EMPTY, False),
    "its bloom is empty": (int(block["logsBloom"], 16) == 0, False),
    "its receipts root is empty": (block["receiptsRoot"] == EMPTY, False),
}
changed = False
for name, (answer, expected) in tries.items():
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{name}: {answer}{note}")
sys.exit(changed)
PY
python3 ask.py
