-- The platform's schemas, the record of what was applied, and the promise to older binaries.
--
-- Runs as the migrator role. Role names differ per installation, so they are never written here:
-- `current_setting('dalp.migrator' | 'dalp.writer' | 'dalp.partitioner' | 'dalp.reader')` holds them.
-- dalp_indexed itself, its history table and the rights on the schema exist already: the history
-- table must stand somewhere before the first migration can be recorded.

-- A schema that exists keeps its owner and its rights: the rest of the platform may have made it.
DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['dalp_identity', 'dalp_assets', 'dalp_workflows', 'dalp_audit']::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = wanted) THEN
            EXECUTE format('CREATE SCHEMA %I', wanted);
        END IF;
    END LOOP;
END
$$;

COMMENT ON TABLE dalp_indexed.schema_history IS
    'Migrations applied to this database; written by `dalp-indexer migrate` only.';
COMMENT ON COLUMN dalp_indexed.schema_history.version IS 'Number of the migration file.';
COMMENT ON COLUMN dalp_indexed.schema_history.name IS 'Name of the migration file, without number and suffix.';
COMMENT ON COLUMN dalp_indexed.schema_history.applied_on IS 'When it was applied, RFC 3339.';
COMMENT ON COLUMN dalp_indexed.schema_history.checksum IS
    'SipHash-1-3 of name, version and text, as decimal; a difference means that an applied file was edited.';

CREATE TABLE dalp_indexed.schema_contract (
    oldest_binary int4 NOT NULL
);
CREATE UNIQUE INDEX schema_contract_one_row ON dalp_indexed.schema_contract ((true));
INSERT INTO dalp_indexed.schema_contract (oldest_binary) VALUES (1);
COMMENT ON TABLE dalp_indexed.schema_contract IS
    'One row: which binaries may use this schema. A migration that older binaries cannot live with raises it.';
COMMENT ON COLUMN dalp_indexed.schema_contract.oldest_binary IS
    'Least schema version that a binary must know to run against this database.';

DO $$
DECLARE
    writer name := current_setting('dalp.writer');
    reader name := current_setting('dalp.reader');
BEGIN
    EXECUTE format('GRANT SELECT ON dalp_indexed.schema_history, dalp_indexed.schema_contract TO %I, %I', writer, reader);
    -- Tables of later migrations are the analysts' to read without anybody remembering to say so.
    -- The partitioner's leaves get nothing of the kind: PostgreSQL gives a new table to its owner alone,
    -- and rights on the partitioned parent are enough.
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA dalp_indexed GRANT SELECT ON TABLES TO %I', reader);
END
$$;
