#!/bin/bash
# eth_getLogs on development nodes: questions that look alike and are answered differently, none of them with an error.
#
# Guess before it was run: both nodes do as go-ethereum does. A filter with more topics than a log has does not match it, even where the
# further topic is null; a range whose first block is above its last is refused; logs of an unknown block hash are refused.
#
# Seen on Anvil 1.7.1 and Ganache 7.9.2, with three blocks that hold one log of one topic each:
#   - topics [T, null]: Anvil gives all three logs, Ganache none. A trailing null is not always "any".
#   - fromBlock 3, toBlock 1: Anvil gives no logs, Ganache one. Neither refuses, so a range that was computed wrong looks like an empty one.
#   - an unknown blockHash: Anvil refuses (-32000), Ganache gives no logs, as if the block were there and empty.
#   - fromBlock above the head: Anvil refuses (-32602), Ganache gives no logs.
#
# What follows for an indexer: cut trailing nulls, never ask for a reversed range, and believe "no logs" of a block by its hash only where
# the block's own bloom or receipts say so.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit @foundry-rs/anvil-linux-amd64@1.7.1 ganache@7.9.2 >/dev/null
node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil --port 28551 --silent &
node node_modules/ganache/dist/node/cli.js --port 28552 --quiet >/dev/null &
cat >ask.py <<'PY'
import json, sys, time, urllib.request

TOPIC = "0x" + "ab" * 32
# PUSH32 topic, no data, LOG1: a contract's creation that emits one log.
EMIT = "0x7f" + TOPIC[2:] + "60006000a100"


def ask(port, method, params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}", body, {"content-type": "application/json"})
    answer = json.load(urllib.request.urlopen(request, timeout=30))
    return answer["error"]["code"] if "error" in answer else answer["result"]


def wait(port, method, params):
    for _ in range(300):
        try:
            answer = ask(port, method, params)
            if answer:
                return answer
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"no answer to {method} on port {port}")


def seen(port):
    print(wait(port, "web3_clientVersion", []))
    account = ask(port, "eth_accounts", [])[0]
    for _ in range(3):
        sent = ask(port, "eth_sendTransaction", [{"from": account, "data": EMIT, "gas": "0x30000"}])
        wait(port, "eth_getTransactionReceipt", [sent])
    logs = lambda **question: (lambda answer: len(answer) if isinstance(answer, list) else answer)(ask(port, "eth_getLogs", [question]))
    whole = {"fromBlock": "0x0", "toBlock": "0x3"}
    return {
        "all logs": logs(**whole),
        "topics [T]": logs(**whole, topics=[TOPIC]),
        "topics [T, null]": logs(**whole, topics=[TOPIC, None]),
        "from 3 to 1": logs(fromBlock="0x3", toBlock="0x1"),
        "unknown blockHash": logs(blockHash="0x" + "11" * 32),
        "from above the head": logs(fromBlock="0x32", toBlock="0x64"),
    }


known = {
    28551: {"all logs": 3, "topics [T]": 3, "topics [T, null]": 3, "from 3 to 1": 0, "unknown blockHash": -32000, "from above the head": -32602},
    28552: {"all logs": 3, "topics [T]": 3, "topics [T, null]": 0, "from 3 to 1": 1, "unknown blockHash": 0, "from above the head": 0},
}
changed = False
for port, expected in known.items():
    found = seen(port)
    for question, answer in found.items():
        note = "" if answer == expected[question] else f"   CHANGED, was {expected[question]}"
        changed |= bool(note)
        print(f"  {question}: {answer}{note}")
sys.exit(changed)
PY
python3 ask.py
