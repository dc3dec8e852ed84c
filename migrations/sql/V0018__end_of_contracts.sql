-- Contracts that are of a kind up to a block: a proxy is of the kind of its implementation until it is upgraded.

ALTER TABLE dalp_indexed.indexed_contracts ADD COLUMN end_block int8 CHECK (end_block >= start_block);
COMMENT ON COLUMN dalp_indexed.indexed_contracts.end_block IS
    'Last block whose logs of it have rows in the tables of its kind; null if there is no such block.';

ALTER TABLE dalp_indexed.contract ADD COLUMN end_block int8 CHECK (end_block >= 0);
COMMENT ON COLUMN dalp_indexed.contract.end_block IS
    'Its logs after this block have no rows in the tables of its kind; null if there is no such block.';

-- A contract that begins later, or ends, loses rows: they are decoded again from here on.
ALTER TABLE dalp_indexed.contract ADD COLUMN rows_from int8 CHECK (rows_from >= 0);
UPDATE dalp_indexed.contract SET rows_from = start_block;
ALTER TABLE dalp_indexed.contract ALTER COLUMN rows_from SET NOT NULL;
COMMENT ON COLUMN dalp_indexed.contract.rows_from IS
    'Decoding begins here: at most start_block, and less while rows below that are to go.';
COMMENT ON COLUMN dalp_indexed.contract.undecoded_to IS
    'Its stored logs from rows_from to this block are not in the tables of its kind yet; null where all are.';

-- An older binary would write rows after the end.
UPDATE dalp_indexed.schema_contract SET oldest_binary = 18;
