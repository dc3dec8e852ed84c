-- The partitioned tables: raw logs and the first decoded event.
--
-- LIST (chain_id), then RANGE (block_time) per chain, so that retention, locks and failures are per chain.
-- The second level and the leaves are made by the partition manager, who owns these tables, since ATTACH
-- demands ownership. There is no DEFAULT partition: it would make every attach and detach lock and scan it.
--
-- Columns stand by alignment (8 bytes, 4 bytes, variable), which saves the padding in every row; the COPY
-- encoder follows the same order. There are no CHECK constraints: they would be evaluated for each row.
--
-- Indexes are few, as each costs write speed; each names the question it answers. None starts with
-- chain_id: below one chain's sub-parent it is constant.

CREATE TABLE dalp_indexed.logs (
    chain_id     int8        NOT NULL,
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
    -- Without the block hash: with it, the logs of two forks could stand side by side unnoticed.
    CONSTRAINT logs_pkey PRIMARY KEY (chain_id, block_time, block_number, log_index)
) PARTITION BY LIST (chain_id);
COMMENT ON TABLE dalp_indexed.logs IS 'Every log of the watched sources, as the node gave it.';
COMMENT ON COLUMN dalp_indexed.logs.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.logs.block_time IS 'Time of the block (UTC); partition key: bound it in every query.';
COMMENT ON COLUMN dalp_indexed.logs.block_number IS 'Block number; dalp_indexed.block_time_range() gives its time bounds.';
COMMENT ON COLUMN dalp_indexed.logs.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_indexed.logs.tx_index IS 'Position of the transaction in its block.';
COMMENT ON COLUMN dalp_indexed.logs.block_hash IS 'Block hash (32 bytes).';
COMMENT ON COLUMN dalp_indexed.logs.tx_hash IS 'Transaction hash (32 bytes).';
COMMENT ON COLUMN dalp_indexed.logs.address IS 'Contract that emitted the log (20 bytes).';
COMMENT ON COLUMN dalp_indexed.logs.topic0 IS 'First topic (32 bytes): the event''s signature hash, unless the event is anonymous. Null if there is none.';
COMMENT ON COLUMN dalp_indexed.logs.topic1 IS 'Second topic (32 bytes): the first indexed argument. Null if there is none.';
COMMENT ON COLUMN dalp_indexed.logs.topic2 IS 'Third topic (32 bytes): the second indexed argument. Null if there is none.';
COMMENT ON COLUMN dalp_indexed.logs.topic3 IS 'Fourth topic (32 bytes): the third indexed argument. Null if there is none.';
COMMENT ON COLUMN dalp_indexed.logs.data IS 'Arguments that are not indexed, ABI-encoded; may be empty.';

CREATE INDEX logs_block_number ON dalp_indexed.logs USING brin (block_number);
COMMENT ON INDEX dalp_indexed.logs_block_number IS
    'Is the index equal to the chain for blocks M to N; unwinding and repairing a range. BRIN: a few kB, as rows come in block order.';
CREATE INDEX logs_address_topic0_time ON dalp_indexed.logs (address, topic0, block_time);
COMMENT ON INDEX dalp_indexed.logs_address_topic0_time IS
    'Token event history: one contract''s events, by kind and time, newest first.';
CREATE INDEX logs_tx_hash ON dalp_indexed.logs (tx_hash);
COMMENT ON INDEX dalp_indexed.logs_tx_hash IS 'Settlement proof: everything that happened in one transaction.';

CREATE TABLE dalp_indexed.erc20_transfer (
    chain_id     int8          NOT NULL,
    block_time   timestamptz   NOT NULL,
    block_number int8          NOT NULL,
    log_index    int4          NOT NULL,
    token        bytea         NOT NULL,
    from_address bytea         NOT NULL,
    to_address   bytea         NOT NULL,
    value        numeric(78,0) NOT NULL,
    tx_hash      bytea         NOT NULL,
    CONSTRAINT erc20_transfer_pkey PRIMARY KEY (chain_id, block_time, block_number, log_index)
) PARTITION BY LIST (chain_id);
COMMENT ON TABLE dalp_indexed.erc20_transfer IS 'Transfer(address indexed from, address indexed to, uint256 value) of ERC-20 tokens, decoded.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.block_time IS 'Time of the block (UTC); partition key: bound it in every query.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.block_number IS 'Block number; dalp_indexed.block_time_range() gives its time bounds.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.token IS 'Token contract (20 bytes).';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.from_address IS 'Sender (20 bytes); twenty zero bytes for a mint.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.to_address IS 'Recipient (20 bytes); twenty zero bytes for a burn.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.value IS 'Amount in the token''s smallest unit; exact, up to 2^256 - 1.';
COMMENT ON COLUMN dalp_indexed.erc20_transfer.tx_hash IS 'Transaction hash (32 bytes).';

CREATE INDEX erc20_transfer_block_number ON dalp_indexed.erc20_transfer USING brin (block_number);
COMMENT ON INDEX dalp_indexed.erc20_transfer_block_number IS
    'Balance or supply at block N; unwinding and repairing a range. BRIN: a few kB, as rows come in block order.';
CREATE INDEX erc20_transfer_token_time ON dalp_indexed.erc20_transfer (token, block_time);
COMMENT ON INDEX dalp_indexed.erc20_transfer_token_time IS
    'Transfer volume of a token by hour or day; minted and burned per period; its transfers, newest first.';
CREATE INDEX erc20_transfer_from_time ON dalp_indexed.erc20_transfer (from_address, block_time);
COMMENT ON INDEX dalp_indexed.erc20_transfer_from_time IS
    'What an account sent: participant activity; tax-year extract between two times.';
CREATE INDEX erc20_transfer_to_time ON dalp_indexed.erc20_transfer (to_address, block_time);
COMMENT ON INDEX dalp_indexed.erc20_transfer_to_time IS
    'What an account received: participant activity; tax-year extract between two times.';

DO $$
DECLARE
    writer      name := current_setting('dalp.writer');
    partitioner name := current_setting('dalp.partitioner');
    reader      name := current_setting('dalp.reader');
BEGIN
    -- On the parents only: a row reaches its leaf through the parent, and so does a query.
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON dalp_indexed.logs, dalp_indexed.erc20_transfer TO %I', writer);
    EXECUTE format('GRANT SELECT ON dalp_indexed.logs, dalp_indexed.erc20_transfer TO %I', reader);
    EXECUTE format('ALTER TABLE dalp_indexed.logs OWNER TO %I', partitioner);
    EXECUTE format('ALTER TABLE dalp_indexed.erc20_transfer OWNER TO %I', partitioner);
END
$$;
