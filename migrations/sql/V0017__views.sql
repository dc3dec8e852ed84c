-- Views for people: bytes as 0x text, an exact text beside each number, and amounts in whole tokens. A client that gives an address as
-- text finds nothing in a bytea column, and some programs make floating point of numeric without a word.
--
-- The text follows from the description of each table (`Dataset::views`), which makes the views of later tables; a test compares the two.

-- Metadata of tokens, for the amounts.
CREATE TABLE dalp_indexed.token (
    chain_id      int8        NOT NULL,
    read_at_block int8        NOT NULL CHECK (read_at_block >= 0),
    read_at       timestamptz NOT NULL DEFAULT now(),
    decimals      int2        CHECK (decimals BETWEEN 0 AND 77),
    address       bytea       NOT NULL CHECK (octet_length(address) = 20),
    name          text,
    symbol        text,
    CONSTRAINT token_pkey PRIMARY KEY (chain_id, address)
);
COMMENT ON TABLE dalp_indexed.token IS
    'Contracts that emitted a transfer, with what they declare as tokens. Each contract is asked once; one that is no token has NULL in all three columns.';
COMMENT ON COLUMN dalp_indexed.token.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.token.read_at_block IS 'The newest block of the node when it was asked.';
COMMENT ON COLUMN dalp_indexed.token.read_at IS 'When the answers were stored, by the database clock.';
COMMENT ON COLUMN dalp_indexed.token.decimals IS 'Its decimals(), 0 to 77; null if it gives no such number.';
COMMENT ON COLUMN dalp_indexed.token.address IS 'The contract (20 bytes).';
COMMENT ON COLUMN dalp_indexed.token.name IS
    'Its name(), as it gives it: nobody checks it, and several contracts may have the same. Null if it gives no text of at most 256 bytes.';
COMMENT ON COLUMN dalp_indexed.token.symbol IS 'Its symbol(), as it gives it; null as with the name.';

CREATE SCHEMA dalp_views;
COMMENT ON SCHEMA dalp_views IS 'Views for people of the tables of dalp_indexed.';

CREATE VIEW dalp_views.logs AS
SELECT
    t.chain_id AS chain_id,
    t.block_time AS block_time,
    t.block_number AS block_number,
    t.log_index AS log_index,
    t.tx_index AS tx_index,
    '0x' || encode(t.block_hash, 'hex') AS block_hash,
    '0x' || encode(t.tx_hash, 'hex') AS tx_hash,
    '0x' || encode(t.address, 'hex') AS address,
    '0x' || encode(t.topic0, 'hex') AS topic0,
    '0x' || encode(t.topic1, 'hex') AS topic1,
    '0x' || encode(t.topic2, 'hex') AS topic2,
    '0x' || encode(t.topic3, 'hex') AS topic3,
    '0x' || encode(t.data, 'hex') AS data
FROM dalp_indexed.retained_logs AS t;
COMMENT ON VIEW dalp_views.logs IS 'Every log of the watched sources, as the node gave it. From the retention floor of dalp_indexed.logs on, with bytes as 0x text and an exact text beside each number. Definition 1f6f9c9f.';
COMMENT ON COLUMN dalp_views.logs.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_views.logs.block_time IS 'Time of the block (UTC); partition key: bound it in every query.';
COMMENT ON COLUMN dalp_views.logs.block_number IS 'Block number; dalp_indexed.block_time_range() gives its time bounds.';
COMMENT ON COLUMN dalp_views.logs.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_views.logs.tx_index IS 'Position of the transaction in its block.';
COMMENT ON COLUMN dalp_views.logs.block_hash IS 'Block hash (32 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.tx_hash IS 'Transaction hash (32 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.address IS 'Contract that emitted the log (20 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.topic0 IS 'First topic (32 bytes): the event''s signature hash, unless the event is anonymous. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.topic1 IS 'Second topic (32 bytes): the first indexed argument. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.topic2 IS 'Third topic (32 bytes): the second indexed argument. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.topic3 IS 'Fourth topic (32 bytes): the third indexed argument. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs.data IS 'Arguments that are not indexed, ABI-encoded; may be empty. As 0x and hexadecimal digits.';

CREATE VIEW dalp_views.logs_final AS
SELECT
    t.chain_id AS chain_id,
    t.block_time AS block_time,
    t.block_number AS block_number,
    t.log_index AS log_index,
    t.tx_index AS tx_index,
    t.block_hash AS block_hash,
    t.tx_hash AS tx_hash,
    t.address AS address,
    t.topic0 AS topic0,
    t.topic1 AS topic1,
    t.topic2 AS topic2,
    t.topic3 AS topic3,
    t.data AS data
FROM dalp_views.logs AS t JOIN dalp_indexed.chain_state AS s ON s.chain_id = t.chain_id AND t.block_number <= s.finalized;
COMMENT ON VIEW dalp_views.logs_final IS 'Every log of the watched sources, as the node gave it. From the retention floor of dalp_indexed.logs on, with bytes as 0x text and an exact text beside each number. Up to the final block of the chain; empty while no block is final. Definition 34e00edb.';
COMMENT ON COLUMN dalp_views.logs_final.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_views.logs_final.block_time IS 'Time of the block (UTC); partition key: bound it in every query.';
COMMENT ON COLUMN dalp_views.logs_final.block_number IS 'Block number; dalp_indexed.block_time_range() gives its time bounds.';
COMMENT ON COLUMN dalp_views.logs_final.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_views.logs_final.tx_index IS 'Position of the transaction in its block.';
COMMENT ON COLUMN dalp_views.logs_final.block_hash IS 'Block hash (32 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.tx_hash IS 'Transaction hash (32 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.address IS 'Contract that emitted the log (20 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.topic0 IS 'First topic (32 bytes): the event''s signature hash, unless the event is anonymous. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.topic1 IS 'Second topic (32 bytes): the first indexed argument. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.topic2 IS 'Third topic (32 bytes): the second indexed argument. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.topic3 IS 'Fourth topic (32 bytes): the third indexed argument. Null if there is none. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.logs_final.data IS 'Arguments that are not indexed, ABI-encoded; may be empty. As 0x and hexadecimal digits.';

CREATE VIEW dalp_views.erc20_transfer AS
SELECT
    t.chain_id AS chain_id,
    t.block_time AS block_time,
    t.block_number AS block_number,
    t.log_index AS log_index,
    '0x' || encode(t.token, 'hex') AS token,
    '0x' || encode(t.from_address, 'hex') AS from_address,
    '0x' || encode(t.to_address, 'hex') AS to_address,
    t.value AS value,
    t.value::text AS value_text,
    t.value * ('1e-' || k.decimals)::numeric AS value_scaled,
    '0x' || encode(t.tx_hash, 'hex') AS tx_hash
FROM dalp_indexed.retained_erc20_transfer AS t LEFT JOIN dalp_indexed.token AS k ON k.chain_id = t.chain_id AND k.address = t.token;
COMMENT ON VIEW dalp_views.erc20_transfer IS 'Transfer(address indexed from, address indexed to, uint256 value) of ERC-20 tokens, decoded. From the retention floor of dalp_indexed.erc20_transfer on, with bytes as 0x text and an exact text beside each number. Definition c6fa65bb.';
COMMENT ON COLUMN dalp_views.erc20_transfer.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_views.erc20_transfer.block_time IS 'Time of the block (UTC); partition key: bound it in every query.';
COMMENT ON COLUMN dalp_views.erc20_transfer.block_number IS 'Block number; dalp_indexed.block_time_range() gives its time bounds.';
COMMENT ON COLUMN dalp_views.erc20_transfer.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_views.erc20_transfer.token IS 'Token contract (20 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.erc20_transfer.from_address IS 'Sender (20 bytes); twenty zero bytes for a mint. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.erc20_transfer.to_address IS 'Recipient (20 bytes); twenty zero bytes for a burn. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.erc20_transfer.value IS 'Amount in the token''s smallest unit; exact, up to 2^256 - 1.';
COMMENT ON COLUMN dalp_views.erc20_transfer.value_text IS 'value as an exact text, for programs that read numeric as floating point.';
COMMENT ON COLUMN dalp_views.erc20_transfer.value_scaled IS 'value in whole tokens, exact: divided by 10^decimals of its contract in dalp_indexed.token. NULL where these are unknown.';
COMMENT ON COLUMN dalp_views.erc20_transfer.tx_hash IS 'Transaction hash (32 bytes). As 0x and hexadecimal digits.';

CREATE VIEW dalp_views.erc20_transfer_final AS
SELECT
    t.chain_id AS chain_id,
    t.block_time AS block_time,
    t.block_number AS block_number,
    t.log_index AS log_index,
    t.token AS token,
    t.from_address AS from_address,
    t.to_address AS to_address,
    t.value AS value,
    t.value_text AS value_text,
    t.value_scaled AS value_scaled,
    t.tx_hash AS tx_hash
FROM dalp_views.erc20_transfer AS t JOIN dalp_indexed.chain_state AS s ON s.chain_id = t.chain_id AND t.block_number <= s.finalized;
COMMENT ON VIEW dalp_views.erc20_transfer_final IS 'Transfer(address indexed from, address indexed to, uint256 value) of ERC-20 tokens, decoded. From the retention floor of dalp_indexed.erc20_transfer on, with bytes as 0x text and an exact text beside each number. Up to the final block of the chain; empty while no block is final. Definition 4823f619.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.block_time IS 'Time of the block (UTC); partition key: bound it in every query.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.block_number IS 'Block number; dalp_indexed.block_time_range() gives its time bounds.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.log_index IS 'Position of the log in its block.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.token IS 'Token contract (20 bytes). As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.from_address IS 'Sender (20 bytes); twenty zero bytes for a mint. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.to_address IS 'Recipient (20 bytes); twenty zero bytes for a burn. As 0x and hexadecimal digits.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.value IS 'Amount in the token''s smallest unit; exact, up to 2^256 - 1.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.value_text IS 'value as an exact text, for programs that read numeric as floating point.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.value_scaled IS 'value in whole tokens, exact: divided by 10^decimals of its contract in dalp_indexed.token. NULL where these are unknown.';
COMMENT ON COLUMN dalp_views.erc20_transfer_final.tx_hash IS 'Transaction hash (32 bytes). As 0x and hexadecimal digits.';

DO $$
DECLARE
    writer      name := current_setting('dalp.writer');
    partitioner name := current_setting('dalp.partitioner');
    reader      name := current_setting('dalp.reader');
    made        text;
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON dalp_indexed.token TO %I', writer);
    -- The owner of the tables owns their views, too. A view reads with the rights of its owner.
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA dalp_views TO %I', partitioner);
    EXECUTE format('GRANT SELECT ON dalp_indexed.token, dalp_indexed.retained_logs, dalp_indexed.retained_erc20_transfer TO %I',
        partitioner);
    EXECUTE format('GRANT USAGE ON SCHEMA dalp_views TO %I', reader);
    FOREACH made IN ARRAY ARRAY['logs', 'logs_final', 'erc20_transfer', 'erc20_transfer_final'] LOOP
        EXECUTE format('GRANT SELECT ON dalp_views.%I TO %I', made, reader);
        EXECUTE format('ALTER VIEW dalp_views.%I OWNER TO %I', made, partitioner);
    END LOOP;
END
$$;
