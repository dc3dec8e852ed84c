-- What is known about each chain: the checkpoint, the heartbeat, the sources and what was read from them,
-- the blocks themselves, and what could not be decoded.

CREATE TABLE dalp_indexed.chain_state (
    chain_id     int8        NOT NULL,
    name         text        NOT NULL,
    genesis_hash bytea       NOT NULL,
    token        int8        NOT NULL DEFAULT 0,
    epoch        int8        NOT NULL DEFAULT 0,
    start_block  int8        NOT NULL,
    tail_number  int8        NOT NULL,
    tail_hash    bytea,
    tail_time    timestamptz,
    finalized    int8,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chain_state_pkey PRIMARY KEY (chain_id)
) WITH (
    -- Every commit updates this row: half of each page stays free so that updates stay on their page (HOT),
    -- and vacuum comes after 50 of them, not after 50 plus a share of the table.
    fillfactor = 50,
    autovacuum_vacuum_threshold = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE dalp_indexed.chain_state IS
    'One row per chain: the fence and the checkpoint. Updated inside each data transaction, so it never disagrees with the rows.';
COMMENT ON COLUMN dalp_indexed.chain_state.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.chain_state.name IS 'Name of the chain in the configuration; for people.';
COMMENT ON COLUMN dalp_indexed.chain_state.genesis_hash IS 'Hash of block 0 (32 bytes); another one means another chain under the same id.';
COMMENT ON COLUMN dalp_indexed.chain_state.token IS 'Fencing token of the only writer; a commit with an older one changes no row here and is rolled back.';
COMMENT ON COLUMN dalp_indexed.chain_state.epoch IS 'Counts data transactions; caches compare it.';
COMMENT ON COLUMN dalp_indexed.chain_state.start_block IS 'First block that this installation indexes.';
COMMENT ON COLUMN dalp_indexed.chain_state.tail_number IS 'Checkpoint: last contiguous committed block; start_block - 1 while there is none.';
COMMENT ON COLUMN dalp_indexed.chain_state.tail_hash IS 'Hash of the block tail_number (32 bytes); null while there is none.';
COMMENT ON COLUMN dalp_indexed.chain_state.tail_time IS 'Header time of the block tail_number; null while there is none.';
COMMENT ON COLUMN dalp_indexed.chain_state.finalized IS 'Highest block known to be final; never moves back. Null until there is one.';
COMMENT ON COLUMN dalp_indexed.chain_state.updated_at IS 'Start of the last data transaction, by the database clock.';

CREATE TABLE dalp_indexed.chain_status (
    chain_id    int8        NOT NULL,
    head_number int8,
    head_time   timestamptz,
    finalized   int8,
    waits_for   text,
    instance    text,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chain_status_pkey PRIMARY KEY (chain_id)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 50,
    autovacuum_vacuum_scale_factor = 0
);
COMMENT ON TABLE dalp_indexed.chain_status IS
    'One row per chain: the heartbeat of the running indexer, written outside data transactions. For people and probes; nothing is decided by it.';
COMMENT ON COLUMN dalp_indexed.chain_status.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.chain_status.head_number IS 'Newest block that the node reported.';
COMMENT ON COLUMN dalp_indexed.chain_status.head_time IS 'Header time of the block head_number.';
COMMENT ON COLUMN dalp_indexed.chain_status.finalized IS 'Highest final block as the node reported it; may move back.';
COMMENT ON COLUMN dalp_indexed.chain_status.waits_for IS 'What the indexer waits for, in words; null when it waits for nothing.';
COMMENT ON COLUMN dalp_indexed.chain_status.instance IS 'Which process wrote this row (host and process id).';
COMMENT ON COLUMN dalp_indexed.chain_status.updated_at IS 'Time of the heartbeat, by the database clock; an old one means that the indexer is stuck or gone.';

CREATE TABLE dalp_indexed.source (
    chain_id    int8        NOT NULL,
    source_id   bytea       NOT NULL,
    definition  jsonb       NOT NULL,
    start_block int8        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT source_pkey PRIMARY KEY (chain_id, source_id)
);
COMMENT ON TABLE dalp_indexed.source IS
    'What is read from a chain: an immutable filter named by its hash. Another address or event is another source.';
COMMENT ON COLUMN dalp_indexed.source.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.source.source_id IS 'Hash of the definition (32 bytes).';
COMMENT ON COLUMN dalp_indexed.source.definition IS 'The filter: addresses and topics.';
COMMENT ON COLUMN dalp_indexed.source.start_block IS 'First block that this source is read from.';
COMMENT ON COLUMN dalp_indexed.source.created_at IS 'When the source was first used, by the database clock.';

CREATE TABLE dalp_indexed.coverage (
    chain_id     int8        NOT NULL,
    source_id    bytea       NOT NULL,
    from_block   int8        NOT NULL,
    to_block     int8        NOT NULL,
    level        text        NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT coverage_pkey PRIMARY KEY (chain_id, source_id, from_block),
    CONSTRAINT coverage_forward CHECK (from_block <= to_block),
    CONSTRAINT coverage_level CHECK (level IN ('returned', 'linked', 'bloom', 'receipts'))
);
COMMENT ON TABLE dalp_indexed.coverage IS
    'Block ranges whose rows are committed, per source; disjoint. Progress is this set, never max(block).';
COMMENT ON COLUMN dalp_indexed.coverage.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.coverage.source_id IS 'The source that was read (32 bytes).';
COMMENT ON COLUMN dalp_indexed.coverage.from_block IS 'First block of the range.';
COMMENT ON COLUMN dalp_indexed.coverage.to_block IS 'Last block of the range, included.';
COMMENT ON COLUMN dalp_indexed.coverage.level IS
    'How the range was verified: returned (only what came back), linked (every parent hash), bloom (header blooms), receipts (receipts root).';
COMMENT ON COLUMN dalp_indexed.coverage.committed_at IS 'Start of the transaction that wrote the rows, by the database clock.';

CREATE TABLE dalp_indexed.blocks (
    chain_id    int8        NOT NULL,
    number      int8        NOT NULL,
    time        timestamptz NOT NULL,
    hash        bytea       NOT NULL,
    parent_hash bytea,
    logs_bloom  bytea,
    time_source text        NOT NULL DEFAULT 'header',
    CONSTRAINT blocks_pkey PRIMARY KEY (chain_id, number)
);
-- "What happened on that day": from a time to block numbers.
CREATE INDEX blocks_time ON dalp_indexed.blocks (chain_id, time);
COMMENT ON INDEX dalp_indexed.blocks_time IS 'Balance or supply at a date: the block that was newest then.';
COMMENT ON TABLE dalp_indexed.blocks IS
    'Canonical blocks: every block of the tail, every block with rows, and the first and last of each range read. Not partitioned: it is the way from a block number to a time.';
COMMENT ON COLUMN dalp_indexed.blocks.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.blocks.number IS 'Block number.';
COMMENT ON COLUMN dalp_indexed.blocks.time IS 'Block time (UTC), the partition key of the rows of this block.';
COMMENT ON COLUMN dalp_indexed.blocks.hash IS 'Block hash (32 bytes).';
COMMENT ON COLUMN dalp_indexed.blocks.parent_hash IS 'Hash of the parent (32 bytes); null where the header was not read.';
COMMENT ON COLUMN dalp_indexed.blocks.logs_bloom IS 'Bloom filter of the header (256 bytes); null unless kept.';
COMMENT ON COLUMN dalp_indexed.blocks.time_source IS 'Where the time comes from: header, or log (all logs of the block agreed and the boundary headers matched).';

CREATE TABLE dalp_indexed.quarantine (
    chain_id     int8        NOT NULL,
    block_number int8        NOT NULL,
    log_index    int4        NOT NULL,
    block_time   timestamptz NOT NULL,
    decoder      text        NOT NULL,
    reason       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quarantine_pkey PRIMARY KEY (chain_id, block_number, log_index, decoder)
);
COMMENT ON TABLE dalp_indexed.quarantine IS
    'Logs that a decoder refused. The raw log is in dalp_indexed.logs, so it can be decoded again.';
COMMENT ON COLUMN dalp_indexed.quarantine.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.quarantine.block_number IS 'Block of the log.';
COMMENT ON COLUMN dalp_indexed.quarantine.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_indexed.quarantine.block_time IS 'Time of the block (UTC); finds the raw log''s partition.';
COMMENT ON COLUMN dalp_indexed.quarantine.decoder IS 'Which decoder refused it.';
COMMENT ON COLUMN dalp_indexed.quarantine.reason IS 'Why, in words.';
COMMENT ON COLUMN dalp_indexed.quarantine.created_at IS 'Start of the transaction that wrote it, by the database clock.';

CREATE FUNCTION dalp_indexed.block_time_range(chain int8, from_block int8, to_block int8)
    RETURNS tstzrange
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN tstzrange(
        COALESCE(
            (SELECT b.time FROM dalp_indexed.blocks AS b
             WHERE b.chain_id = chain AND b.number <= from_block ORDER BY b.number DESC LIMIT 1),
            '-infinity'::timestamptz),
        COALESCE(
            (SELECT b.time FROM dalp_indexed.blocks AS b
             WHERE b.chain_id = chain AND b.number >= to_block ORDER BY b.number LIMIT 1),
            'infinity'::timestamptz),
        '[]');
COMMENT ON FUNCTION dalp_indexed.block_time_range(int8, int8, int8) IS
$$Times that the blocks from_block..to_block (both included) of a chain can have: from the nearest stored
block at or below from_block to the nearest at or above to_block. Never too narrow, as block times do not fall.

A query by block number reads only the partitions it needs when it also bounds block_time by comparison
(not by <@, which PostgreSQL 15 and 16 do not prune by):

    SELECT * FROM dalp_indexed.logs
    WHERE chain_id = 1 AND block_number BETWEEN 100 AND 200
      AND block_time >= lower(dalp_indexed.block_time_range(1, 100, 200))
      AND block_time <= upper(dalp_indexed.block_time_range(1, 100, 200));

This prunes when execution starts; the planner still opens every partition of the chain. A program should
ask for the range first and pass both times as constants: then planning prunes, too.$$;
REVOKE EXECUTE ON FUNCTION dalp_indexed.block_time_range(int8, int8, int8) FROM PUBLIC;

DO $$
DECLARE
    writer      name := current_setting('dalp.writer');
    partitioner name := current_setting('dalp.partitioner');
    reader      name := current_setting('dalp.reader');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON dalp_indexed.chain_state, dalp_indexed.chain_status, dalp_indexed.source TO %I', writer);
    -- DELETE: unwinding a reorg, compacting coverage, replaying a quarantined log.
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON dalp_indexed.blocks, dalp_indexed.coverage, dalp_indexed.quarantine TO %I', writer);
    -- How far ahead to create partitions depends on the head, what may be retired on finality.
    EXECUTE format('GRANT SELECT ON dalp_indexed.chain_state, dalp_indexed.chain_status TO %I', partitioner);
    EXECUTE format('GRANT EXECUTE ON FUNCTION dalp_indexed.block_time_range(int8, int8, int8) TO %I, %I', writer, reader);
END
$$;
