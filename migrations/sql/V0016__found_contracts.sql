-- Contracts that other contracts announce, and contracts that operators add while the indexer runs.

ALTER TABLE dalp_indexed.chain_state ADD COLUMN contracts int8 NOT NULL DEFAULT 1;
COMMENT ON COLUMN dalp_indexed.chain_state.contracts IS
    'Rises from 1 with each change of the chain''s contracts. A batch that was sorted by other contracts is not committed.';

-- An older binary commits blocks without the rows of contracts that are found, and without a mark that they are missing.
UPDATE dalp_indexed.schema_contract SET oldest_binary = 16;

ALTER TABLE dalp_indexed.contract DROP CONSTRAINT contract_check;
ALTER TABLE dalp_indexed.contract RENAME COLUMN start_block TO given_from;
ALTER TABLE dalp_indexed.contract ALTER COLUMN given_from DROP NOT NULL;
ALTER TABLE dalp_indexed.contract ADD COLUMN found_from int8 CHECK (found_from >= 0);
ALTER TABLE dalp_indexed.contract
    ADD COLUMN start_block int8 NOT NULL GENERATED ALWAYS AS (LEAST(given_from, found_from)) STORED;
CREATE INDEX contract_undecoded_idx ON dalp_indexed.contract (chain_id, undecoded_to) WHERE undecoded_to IS NOT NULL;
CREATE INDEX contract_given_idx ON dalp_indexed.contract (chain_id, address, kind) WHERE given_from IS NOT NULL;
CREATE INDEX contract_found_idx ON dalp_indexed.contract (chain_id, found_from) WHERE found_from IS NOT NULL;
COMMENT ON TABLE dalp_indexed.contract IS
    'Contracts whose events have tables by their ABI. The leader of their chain writes the rows: from its configuration, from indexed_contracts, and from the events of factories.';
COMMENT ON COLUMN dalp_indexed.contract.given_from IS
    'First block by the configuration and indexed_contracts; null if they do not name it.';
COMMENT ON COLUMN dalp_indexed.contract.found_from IS
    'First block with an event that announces it; null if none does.';
COMMENT ON COLUMN dalp_indexed.contract.start_block IS 'Its logs before this block have no rows in the tables of its kind.';

CREATE TABLE dalp_indexed.indexed_contracts (
    chain_id    int8        NOT NULL,
    start_block int8        NOT NULL DEFAULT 0 CHECK (start_block >= 0),
    added_at    timestamptz NOT NULL DEFAULT now(),
    address     bytea       NOT NULL CHECK (octet_length(address) = 20),
    kind        text        NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]*$'),
    CONSTRAINT indexed_contracts_pkey PRIMARY KEY (chain_id, address, kind)
);
COMMENT ON TABLE dalp_indexed.indexed_contracts IS
    'Contracts to index beside those of the configuration. Operators and `dalp-indexer contracts` fill it; the leader of the chain takes a change up within two seconds.';
COMMENT ON COLUMN dalp_indexed.indexed_contracts.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.indexed_contracts.start_block IS
    'First block whose logs of it have rows in the tables of its kind: the block of its deployment, or 0.';
COMMENT ON COLUMN dalp_indexed.indexed_contracts.added_at IS 'When the row was added.';
COMMENT ON COLUMN dalp_indexed.indexed_contracts.address IS 'Its address (20 bytes).';
COMMENT ON COLUMN dalp_indexed.indexed_contracts.kind IS
    'Its kind: one that the configuration names, or that a factory of the configuration announces.';

DO $$
DECLARE
    writer name := current_setting('dalp.writer');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON dalp_indexed.indexed_contracts TO %I', writer);
END
$$;
