-- A leaf that is attached again keeps the CHECKs that it had, and loses only what its detaching left.

ALTER TABLE dalp_indexed.leaf ADD COLUMN checks text[];
COMMENT ON COLUMN dalp_indexed.leaf.checks IS
    'Names of the CHECKs that it had when we began to detach it: they stay when it is attached again. Null if we did not.';
-- What an older program detached: whatever says the bounds is taken for what its detaching left.
UPDATE dalp_indexed.leaf SET checks = '{}' WHERE state IN ('DETACHING', 'DETACHED');

-- Infinity stands for MAXVALUE, too: a partition FROM ('infinity') TO (MAXVALUE) begins and ends with it.
ALTER TABLE dalp_indexed.leaf
    DROP CONSTRAINT leaf_forward,
    ADD CONSTRAINT leaf_forward CHECK (from_time IS NULL OR from_time < to_time OR to_time = 'infinity');

-- What is archived stays sealed when it is served again: the hint named a command that did not open it.
CREATE OR REPLACE FUNCTION dalp_indexed.refuse_sealed() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'DP001',
        MESSAGE = format('%s on "%s"."%s", which is sealed', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
        HINT = 'Its retention or archiving has begun. dalp-indexer partitions fill --table NAME --at TIME opens it for a late row.';
END
$$;
