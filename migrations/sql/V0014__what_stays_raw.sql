-- Whoever indexes a contract of their own finds its events in `logs` alone, and should hear of it.
ALTER TABLE dalp_indexed.chain_status ADD COLUMN untyped text;
COMMENT ON COLUMN dalp_indexed.chain_status.untyped IS
    'Logs that no typed table takes, by contract and first topic, since the leader began; null where there are none.';
