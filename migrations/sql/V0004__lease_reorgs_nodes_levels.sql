-- One writer at a time, what was orphaned, what was learned of each node, and how far each level of verification reaches.

CREATE TABLE dalp_indexed.lease (
    chain_id   int8        NOT NULL,
    token      int8        NOT NULL,
    holder     text        NOT NULL,
    renewed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT lease_pkey PRIMARY KEY (chain_id)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 50,
    autovacuum_vacuum_scale_factor = 0
);
COMMENT ON TABLE dalp_indexed.lease IS
    'One row per chain: which process leads and until when. Not the fence: that is chain_state.token, checked in each data transaction. Its own row, so that renewing never waits for a commit.';
COMMENT ON COLUMN dalp_indexed.lease.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.lease.token IS 'Fencing token that the holder was given; chain_state.token is the same, or newer while somebody takes over.';
COMMENT ON COLUMN dalp_indexed.lease.holder IS 'Which process holds it (host and process id).';
COMMENT ON COLUMN dalp_indexed.lease.renewed_at IS 'Last renewal, by the database clock.';
COMMENT ON COLUMN dalp_indexed.lease.expires_at IS 'From then on a standby may take over, by the database clock. A clean stop sets it to the past.';

CREATE TABLE dalp_indexed.reorg (
    chain_id    int8        NOT NULL,
    epoch       int8        NOT NULL,
    fork_number int8        NOT NULL,
    fork_hash   bytea,
    tail_number int8        NOT NULL,
    tail_hash   bytea,
    blocks      int8        NOT NULL,
    logs        int8        NOT NULL,
    unwound_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reorg_pkey PRIMARY KEY (chain_id, epoch)
);
COMMENT ON TABLE dalp_indexed.reorg IS
    'One row per unwind: what the chain left behind, written in the transaction that removed it. Append-only.';
COMMENT ON COLUMN dalp_indexed.reorg.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.reorg.epoch IS 'The chain''s epoch that the unwind made; names its rows in orphaned_log.';
COMMENT ON COLUMN dalp_indexed.reorg.fork_number IS 'Fork point: the highest block that both branches have; start_block - 1 where they share none.';
COMMENT ON COLUMN dalp_indexed.reorg.fork_hash IS 'Hash of the fork point (32 bytes); null where they share none.';
COMMENT ON COLUMN dalp_indexed.reorg.tail_number IS 'Last block of the orphaned branch.';
COMMENT ON COLUMN dalp_indexed.reorg.tail_hash IS 'Hash of the last block of the orphaned branch (32 bytes).';
COMMENT ON COLUMN dalp_indexed.reorg.blocks IS 'Height difference between the orphaned tail and the fork point.';
COMMENT ON COLUMN dalp_indexed.reorg.logs IS 'Logs that were removed; they stand in orphaned_log.';
COMMENT ON COLUMN dalp_indexed.reorg.unwound_at IS 'Start of the transaction, by the database clock.';

CREATE TABLE dalp_indexed.orphaned_log (
    chain_id     int8        NOT NULL,
    epoch        int8        NOT NULL,
    block_time   timestamptz NOT NULL,
    block_number int8        NOT NULL,
    log_index    int4        NOT NULL,
    tx_index     int4        NOT NULL,
    block_hash   bytea       NOT NULL,
    tx_hash      bytea       NOT NULL,
    address      bytea       NOT NULL,
    topic0       bytea,
    topic1       bytea,
    topic2       bytea,
    topic3       bytea,
    data         bytea       NOT NULL,
    CONSTRAINT orphaned_log_pkey PRIMARY KEY (chain_id, epoch, block_number, log_index)
);
COMMENT ON TABLE dalp_indexed.orphaned_log IS
    'Logs of orphaned blocks as they stood in dalp_indexed.logs, moved here by the unwind. Append-only; nothing else reads it.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.epoch IS 'Which unwind removed it: dalp_indexed.reorg has the fork point and the time.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.block_time IS 'Time of the orphaned block (UTC).';
COMMENT ON COLUMN dalp_indexed.orphaned_log.block_number IS 'Number of the orphaned block.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.tx_index IS 'Position of its transaction in the block.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.block_hash IS 'Hash of the orphaned block (32 bytes).';
COMMENT ON COLUMN dalp_indexed.orphaned_log.tx_hash IS 'Hash of its transaction (32 bytes).';
COMMENT ON COLUMN dalp_indexed.orphaned_log.address IS 'Emitter (20 bytes).';
COMMENT ON COLUMN dalp_indexed.orphaned_log.topic0 IS 'First topic (32 bytes); null if the log has none.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.topic1 IS 'Second topic (32 bytes), or null.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.topic2 IS 'Third topic (32 bytes), or null.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.topic3 IS 'Fourth topic (32 bytes), or null.';
COMMENT ON COLUMN dalp_indexed.orphaned_log.data IS 'Unindexed data.';

CREATE TABLE dalp_indexed.node (
    chain_id        int8        NOT NULL,
    name            text        NOT NULL,
    state           text        NOT NULL DEFAULT 'unknown',
    latency_ms      float8,
    failures        int8        NOT NULL DEFAULT 0,
    last_error      text,
    max_blocks      int8,
    max_logs        int8,
    max_bytes       int8,
    max_batch       int4,
    refused_methods text[]      NOT NULL DEFAULT '{}',
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT node_pkey PRIMARY KEY (chain_id, name)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 50,
    autovacuum_vacuum_scale_factor = 0
);
COMMENT ON TABLE dalp_indexed.node IS
    'What was learned of each node, kept over restarts, and how it does. Nothing that rows depend on is decided by it.';
COMMENT ON COLUMN dalp_indexed.node.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.node.name IS 'Scheme, host and port; never path, user or key.';
COMMENT ON COLUMN dalp_indexed.node.state IS 'unknown, up, resting (its circuit breaker is open) or refused (another chain).';
COMMENT ON COLUMN dalp_indexed.node.latency_ms IS 'Time of its answers, smoothed, in milliseconds.';
COMMENT ON COLUMN dalp_indexed.node.failures IS 'Failed calls in a row; 0 after a success.';
COMMENT ON COLUMN dalp_indexed.node.last_error IS 'Its last failure, in words, without any URL.';
COMMENT ON COLUMN dalp_indexed.node.max_blocks IS 'Blocks that it allows in one eth_getLogs; null while no limit was met.';
COMMENT ON COLUMN dalp_indexed.node.max_logs IS 'Logs that it allows in one answer; null while no limit was met.';
COMMENT ON COLUMN dalp_indexed.node.max_bytes IS 'Bytes that it allows in one answer; null while no limit was met.';
COMMENT ON COLUMN dalp_indexed.node.max_batch IS 'Calls that it allows in one JSON-RPC batch; null while no limit was met, 1 where it knows no batches.';
COMMENT ON COLUMN dalp_indexed.node.refused_methods IS 'Methods that it does not offer.';
COMMENT ON COLUMN dalp_indexed.node.updated_at IS 'When this row was written, by the database clock.';

-- Which source the tail follows. A changed filter is another source: its history becomes gaps of the coverage.
ALTER TABLE dalp_indexed.chain_state ADD COLUMN source_id bytea;
UPDATE dalp_indexed.chain_state AS c
SET source_id = (SELECT s.source_id FROM dalp_indexed.source AS s WHERE s.chain_id = c.chain_id ORDER BY s.created_at DESC LIMIT 1);
COMMENT ON COLUMN dalp_indexed.chain_state.source_id IS
    'The source that the tail follows (32 bytes): what the configuration selects now.';
COMMENT ON COLUMN dalp_indexed.chain_state.tail_number IS
    'Last block that the tail committed; start_block - 1 while there is none. History below may still have gaps: dalp_indexed.progress says how far all is complete.';

CREATE VIEW dalp_indexed.verified AS
WITH level (level, rank) AS (
    VALUES ('returned', 1), ('linked', 2), ('bloom', 3), ('receipts', 4)
), reached AS (
    SELECT c.chain_id, l.level, l.rank, c.start_block, c.tail_number,
           (SELECT range_agg(int8range(v.from_block, v.to_block, '[]'))
            FROM dalp_indexed.coverage AS v JOIN level AS have ON have.level = v.level
            WHERE v.chain_id = c.chain_id AND v.source_id = c.source_id AND have.rank >= l.rank) AS blocks
    FROM dalp_indexed.chain_state AS c CROSS JOIN level AS l
)
SELECT r.chain_id, r.level,
       (SELECT upper(run) - 1 FROM unnest(r.blocks) AS run WHERE run @> r.start_block) AS verified_to,
       COALESCE((SELECT sum(upper(run) - lower(run)) FROM unnest(r.blocks) AS run), 0)::int8 AS blocks
FROM reached AS r;
COMMENT ON VIEW dalp_indexed.verified IS
    'How far each level of verification reaches: all blocks from start_block to verified_to have this level or a stronger one.';
COMMENT ON COLUMN dalp_indexed.verified.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.verified.level IS 'returned, linked, bloom or receipts, from weak to strong; see coverage.level.';
COMMENT ON COLUMN dalp_indexed.verified.verified_to IS 'Last block of the run from start_block; null while start_block itself is not verified so.';
COMMENT ON COLUMN dalp_indexed.verified.blocks IS 'Blocks of this level or a stronger one, contiguous or not.';

CREATE VIEW dalp_indexed.progress AS
SELECT c.chain_id, c.name, c.start_block, c.tail_number, c.finalized,
       COALESCE(v.verified_to, c.start_block - 1) AS complete_to,
       c.tail_number - c.start_block + 1
         - COALESCE((SELECT sum(upper(run) - lower(run))
                     FROM unnest((SELECT range_agg(int8range(g.from_block, g.to_block, '[]'))
                                         * int8multirange(int8range(c.start_block, c.tail_number + 1, '[)'))
                                  FROM dalp_indexed.coverage AS g
                                  WHERE g.chain_id = c.chain_id AND g.source_id = c.source_id)) AS run), 0)::int8 AS gap_blocks
FROM dalp_indexed.chain_state AS c
LEFT JOIN dalp_indexed.verified AS v ON v.chain_id = c.chain_id AND v.level = 'returned';
COMMENT ON VIEW dalp_indexed.progress IS
    'How far each chain is stored: every block from start_block to complete_to; the tail may be further, with gaps between.';
COMMENT ON COLUMN dalp_indexed.progress.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.progress.name IS 'Name of the chain in the configuration.';
COMMENT ON COLUMN dalp_indexed.progress.start_block IS 'First block that is indexed.';
COMMENT ON COLUMN dalp_indexed.progress.tail_number IS 'Last block that the tail committed.';
COMMENT ON COLUMN dalp_indexed.progress.finalized IS 'Highest stored block known to be final.';
COMMENT ON COLUMN dalp_indexed.progress.complete_to IS 'Last block up to which nothing is missing; start_block - 1 while there is none.';
COMMENT ON COLUMN dalp_indexed.progress.gap_blocks IS 'Blocks between start_block and tail_number that are not stored yet.';

DO $$
DECLARE
    writer name := current_setting('dalp.writer');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON dalp_indexed.lease, dalp_indexed.node TO %I', writer);
    -- No UPDATE, no DELETE: what was orphaned stays on record.
    EXECUTE format('GRANT SELECT, INSERT ON dalp_indexed.reorg, dalp_indexed.orphaned_log TO %I', writer);
    EXECUTE format('GRANT SELECT ON dalp_indexed.progress, dalp_indexed.verified TO %I', writer);
END
$$;
