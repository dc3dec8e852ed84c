-- What no other table takes is kept here as it came: a log whose block's time has no partition, and every refused log where
-- raw logs are not stored. Rows of versions before hold only that it came; `dalp-indexer repair` fetches the rest.
ALTER TABLE dalp_indexed.quarantine
    ADD COLUMN tx_index   int4,
    ADD COLUMN block_hash bytea,
    ADD COLUMN tx_hash    bytea,
    ADD COLUMN address    bytea,
    ADD COLUMN topic0     bytea,
    ADD COLUMN topic1     bytea,
    ADD COLUMN topic2     bytea,
    ADD COLUMN topic3     bytea,
    ADD COLUMN data       bytea,
    ADD CONSTRAINT quarantine_block_hash CHECK (octet_length(block_hash) = 32),
    ADD CONSTRAINT quarantine_address CHECK (octet_length(address) = 20);

COMMENT ON TABLE dalp_indexed.quarantine IS 'Logs that a decoder, or the tables by their time, refused: each as it came.';
COMMENT ON COLUMN dalp_indexed.quarantine.block_time IS 'Time of the block (UTC).';
COMMENT ON COLUMN dalp_indexed.quarantine.decoder IS
    'Which decoder refused it; block_time: its block lies more than a hundred years ahead, so no other table has a partition for it.';
COMMENT ON COLUMN dalp_indexed.quarantine.tx_index IS 'Position of the transaction in its block.';
COMMENT ON COLUMN dalp_indexed.quarantine.block_hash IS 'Hash of the block (32 bytes).';
COMMENT ON COLUMN dalp_indexed.quarantine.tx_hash IS 'Hash of the transaction (32 bytes).';
COMMENT ON COLUMN dalp_indexed.quarantine.address IS 'Contract that emitted it (20 bytes).';
COMMENT ON COLUMN dalp_indexed.quarantine.topic0 IS 'First topic (32 bytes), usually the hash of the event''s signature; NULL if it has none.';
COMMENT ON COLUMN dalp_indexed.quarantine.topic1 IS 'Second topic (32 bytes).';
COMMENT ON COLUMN dalp_indexed.quarantine.topic2 IS 'Third topic (32 bytes).';
COMMENT ON COLUMN dalp_indexed.quarantine.topic3 IS 'Fourth topic (32 bytes).';
COMMENT ON COLUMN dalp_indexed.quarantine.data IS 'Data that follows the topics; empty if there is none.';
