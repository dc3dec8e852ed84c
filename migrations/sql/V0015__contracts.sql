-- Contracts whose events have tables by their ABI, and how far their stored logs are decoded into these tables.
CREATE TABLE dalp_indexed.contract (
    chain_id     int8  NOT NULL,
    start_block  int8  NOT NULL CHECK (start_block >= 0),
    undecoded_to int8  CHECK (undecoded_to >= start_block),
    address      bytea NOT NULL CHECK (octet_length(address) = 20),
    kind         text  NOT NULL,
    tables       bytea NOT NULL CHECK (octet_length(tables) = 32),
    CONSTRAINT contract_pkey PRIMARY KEY (chain_id, address, kind)
);
COMMENT ON TABLE dalp_indexed.contract IS
    'Contracts whose events have tables by their ABI. The leader of their chain writes the rows from its configuration.';
COMMENT ON COLUMN dalp_indexed.contract.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.contract.start_block IS 'Its logs before this block have no rows in the tables of its kind.';
COMMENT ON COLUMN dalp_indexed.contract.undecoded_to IS
    'Its stored logs from start_block to this block are not in the tables of its kind yet; null where all are.';
COMMENT ON COLUMN dalp_indexed.contract.address IS 'Its address (20 bytes).';
COMMENT ON COLUMN dalp_indexed.contract.kind IS 'Its kind, which begins the names of its tables.';
COMMENT ON COLUMN dalp_indexed.contract.tables IS
    'Hash of the tables of its kind, as they were when its logs were decoded (32 bytes): with others, they are decoded again.';

DO $$
DECLARE
    writer name := current_setting('dalp.writer');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON dalp_indexed.contract TO %I', writer);
    -- The partitioner makes the tables of the kinds there, each with a view of its retained rows.
    EXECUTE format('GRANT SELECT ON dalp_indexed.retention_floor TO %I', current_setting('dalp.partitioner'));
END
$$;
