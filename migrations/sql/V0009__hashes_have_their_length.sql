-- A hash of another length would be taken for "none is known", and nothing would be compared with it. The event tables have no
-- CHECKs, which COPY would evaluate for each row; their hashes come from fields of fixed size.

ALTER TABLE dalp_indexed.chain_state
    ADD CONSTRAINT chain_state_genesis_hash CHECK (octet_length(genesis_hash) = 32),
    ADD CONSTRAINT chain_state_tail_hash CHECK (octet_length(tail_hash) = 32),
    ADD CONSTRAINT chain_state_source_id CHECK (octet_length(source_id) = 32),
    ADD CONSTRAINT chain_state_tail_number CHECK (tail_number >= -1),
    ADD CONSTRAINT chain_state_finalized CHECK (finalized >= 0),
    ADD CONSTRAINT chain_state_start_block CHECK (start_block >= 0);
ALTER TABLE dalp_indexed.source
    ADD CONSTRAINT source_id_length CHECK (octet_length(source_id) = 32);
ALTER TABLE dalp_indexed.coverage
    ADD CONSTRAINT coverage_from_block CHECK (from_block >= 0);
-- Those that are stored already were written by a program that has no others; the whole table is not read for them.
ALTER TABLE dalp_indexed.blocks
    ADD CONSTRAINT blocks_number CHECK (number >= 0) NOT VALID,
    ADD CONSTRAINT blocks_hash CHECK (octet_length(hash) = 32) NOT VALID,
    ADD CONSTRAINT blocks_parent_hash CHECK (octet_length(parent_hash) = 32) NOT VALID;

-- What a level proves, and no more.
COMMENT ON COLUMN dalp_indexed.coverage.level IS
    'What the range was checked against: returned (what came back agrees with itself), linked (every header, by its parent hash), bloom (linked, and no address or topic was left out or added by the headers'' blooms; data, order and positions of the logs are the node''s word), receipts (linked, and proved by each header''s receipts root).';
COMMENT ON COLUMN dalp_indexed.blocks.time_source IS 'Where the time comes from: the header, always. Versions before stored "log" where the logs of the block told it.';
COMMENT ON COLUMN dalp_indexed.node.state IS
    'unknown, up, resting (its circuit breaker is open), caught (its logs were proved wrong: it is asked only where no other node works, and then for receipts) or refused (another chain).';
