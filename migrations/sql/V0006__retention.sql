-- Retention: what the partition manager intends with each leaf, from when on rows are retained, what must be kept whatever a
-- policy says, and a record of everything that it did.
--
-- The catalog is the truth about which leaves stand; these tables are the intent and the proof. A leaf is dropped only by what is
-- written here.

CREATE TABLE dalp_indexed.leaf (
    leaf_id      int8        GENERATED ALWAYS AS IDENTITY,
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    key          int8        NOT NULL,
    leaf         text        NOT NULL,
    relid        oid,
    from_time    timestamptz,
    to_time      timestamptz NOT NULL,
    state        text        NOT NULL DEFAULT 'ATTACHED',
    version      int4        NOT NULL DEFAULT 0,
    rows         int8,
    bytes        int8,
    seal         text,
    manifest     jsonb,
    sealed_at    timestamptz,
    archived_at  timestamptz,
    retired_at   timestamptz,
    detached_at  timestamptz,
    dropped_at   timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT leaf_pkey PRIMARY KEY (leaf_id),
    CONSTRAINT leaf_forward CHECK (from_time IS NULL OR from_time < to_time),
    CONSTRAINT leaf_state CHECK (state IN ('PLANNED', 'ATTACHED', 'SEALED', 'ARCHIVING', 'ARCHIVED', 'RETIRED', 'DETACHING',
                                           'DETACHED', 'DROPPED'))
);
-- One life at a time: a leaf that was dropped and is made again is another row.
CREATE UNIQUE INDEX leaf_name ON dalp_indexed.leaf (table_schema, table_name, leaf) WHERE state <> 'DROPPED';
COMMENT ON INDEX dalp_indexed.leaf_name IS 'The row of a leaf that stands.';
CREATE INDEX leaf_times ON dalp_indexed.leaf (table_schema, table_name, key, to_time);
COMMENT ON INDEX dalp_indexed.leaf_times IS 'The leaves of a table and key in order; archived ones of a range.';
COMMENT ON TABLE dalp_indexed.leaf IS
    'One row per leaf of a managed table: how far it is on the way from attached to dropped. Written by the partition manager.';
COMMENT ON COLUMN dalp_indexed.leaf.leaf_id IS 'Names this life of the leaf.';
COMMENT ON COLUMN dalp_indexed.leaf.table_schema IS 'Schema of the table and of the leaf.';
COMMENT ON COLUMN dalp_indexed.leaf.table_name IS 'The partitioned table.';
COMMENT ON COLUMN dalp_indexed.leaf.key IS 'Value of the list level above time, such as the chain id; 0 for a table without one.';
COMMENT ON COLUMN dalp_indexed.leaf.leaf IS 'Name of the leaf; a label.';
COMMENT ON COLUMN dalp_indexed.leaf.relid IS 'The leaf''s oid: a table of the same name is not the same table.';
COMMENT ON COLUMN dalp_indexed.leaf.from_time IS 'First time that it holds; null for MINVALUE.';
COMMENT ON COLUMN dalp_indexed.leaf.to_time IS 'First time after it.';
COMMENT ON COLUMN dalp_indexed.leaf.state IS
    'PLANNED (being restored), ATTACHED, SEALED (takes no writes), ARCHIVING, ARCHIVED (verified), RETIRED (below the floor), DETACHING, DETACHED, DROPPED.';
COMMENT ON COLUMN dalp_indexed.leaf.version IS 'Version of its archive; grows when a sealed leaf was written again. 0 before the first.';
COMMENT ON COLUMN dalp_indexed.leaf.rows IS 'Rows when it was sealed or archived; an estimate unless archived.';
COMMENT ON COLUMN dalp_indexed.leaf.bytes IS 'Bytes with indexes when it was sealed.';
COMMENT ON COLUMN dalp_indexed.leaf.seal IS
    'Mark of the seal''s triggers and of the file: as long as it is the same, nobody can have changed a row since it was counted.';
COMMENT ON COLUMN dalp_indexed.leaf.manifest IS 'What is in the archive and how it was verified; null without a valid archive.';
COMMENT ON COLUMN dalp_indexed.leaf.sealed_at IS 'When it was sealed.';
COMMENT ON COLUMN dalp_indexed.leaf.archived_at IS 'When its archive was verified.';
COMMENT ON COLUMN dalp_indexed.leaf.retired_at IS 'When the floor passed it.';
COMMENT ON COLUMN dalp_indexed.leaf.detached_at IS 'When it was detached; the grace period counts from here.';
COMMENT ON COLUMN dalp_indexed.leaf.dropped_at IS 'When it was dropped.';
COMMENT ON COLUMN dalp_indexed.leaf.updated_at IS 'Last change of this row.';

CREATE TABLE dalp_indexed.retention_floor (
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    key          int8        NOT NULL,
    floor        timestamptz NOT NULL DEFAULT '-infinity',
    moves        int8        NOT NULL DEFAULT 0,
    moved_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT retention_floor_pkey PRIMARY KEY (table_schema, table_name, key)
);
COMMENT ON TABLE dalp_indexed.retention_floor IS
    'One row per table and key: rows before floor are retired. Readers that go by it (the retained_ views) see a leaf go in one commit; its files go later.';
COMMENT ON COLUMN dalp_indexed.retention_floor.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN dalp_indexed.retention_floor.table_name IS 'The partitioned table.';
COMMENT ON COLUMN dalp_indexed.retention_floor.key IS 'Value of the list level above time, such as the chain id; 0 for a table without one.';
COMMENT ON COLUMN dalp_indexed.retention_floor.floor IS 'Earliest time that is served; -infinity while nothing was retired.';
COMMENT ON COLUMN dalp_indexed.retention_floor.moves IS 'Counts the moves of floor; caches compare it.';
COMMENT ON COLUMN dalp_indexed.retention_floor.moved_at IS 'When floor last moved.';

CREATE TABLE dalp_indexed.legal_hold (
    hold_id      int8        GENERATED ALWAYS AS IDENTITY,
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    key          int8,
    from_time    timestamptz,
    to_time      timestamptz,
    reason       text        NOT NULL,
    author       text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at  timestamptz,
    released_by  text,
    CONSTRAINT legal_hold_pkey PRIMARY KEY (hold_id),
    CONSTRAINT legal_hold_forward CHECK (from_time < to_time),
    CONSTRAINT legal_hold_said CHECK (reason <> '' AND author <> '')
);
COMMENT ON TABLE dalp_indexed.legal_hold IS
    'What must be kept whatever a policy says: no leaf that a hold touches is retired, detached or dropped. Rows are released, never deleted.';
COMMENT ON COLUMN dalp_indexed.legal_hold.hold_id IS 'Names the hold.';
COMMENT ON COLUMN dalp_indexed.legal_hold.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN dalp_indexed.legal_hold.table_name IS 'The partitioned table.';
COMMENT ON COLUMN dalp_indexed.legal_hold.key IS 'Value of the list level, such as the chain id; null for all.';
COMMENT ON COLUMN dalp_indexed.legal_hold.from_time IS 'First time held; null for the beginning.';
COMMENT ON COLUMN dalp_indexed.legal_hold.to_time IS 'First time after; null for no end.';
COMMENT ON COLUMN dalp_indexed.legal_hold.reason IS 'Why, such as the name of the case.';
COMMENT ON COLUMN dalp_indexed.legal_hold.author IS 'Who asked for it.';
COMMENT ON COLUMN dalp_indexed.legal_hold.created_at IS 'Since when.';
COMMENT ON COLUMN dalp_indexed.legal_hold.released_at IS 'When it was released; null while it holds.';
COMMENT ON COLUMN dalp_indexed.legal_hold.released_by IS 'Who released it.';

CREATE TABLE dalp_indexed.partition_run (
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    succeeded_at timestamptz,
    failed_at    timestamptz,
    failures     int4        NOT NULL DEFAULT 0,
    last_error   text,
    CONSTRAINT partition_run_pkey PRIMARY KEY (table_schema, table_name)
);
COMMENT ON TABLE dalp_indexed.partition_run IS 'One row per managed table: when its maintenance last did all that it should.';
COMMENT ON COLUMN dalp_indexed.partition_run.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN dalp_indexed.partition_run.table_name IS 'The partitioned table.';
COMMENT ON COLUMN dalp_indexed.partition_run.succeeded_at IS 'Last run without a failure.';
COMMENT ON COLUMN dalp_indexed.partition_run.failed_at IS 'Last run with one.';
COMMENT ON COLUMN dalp_indexed.partition_run.failures IS 'Failed runs in a row; 0 after a success.';
COMMENT ON COLUMN dalp_indexed.partition_run.last_error IS 'What the last failure said.';

-- On a leaf that is sealed. The triggers on it are ENABLE ALWAYS: no session setting passes them.
CREATE FUNCTION dalp_indexed.refuse_sealed() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'DP001',
        MESSAGE = format('%s on "%s"."%s", which is sealed', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
        HINT = 'Its retention or archiving has begun. dalp-indexer partitions undo takes it back.';
END
$$;
COMMENT ON FUNCTION dalp_indexed.refuse_sealed() IS 'Refuses every write to a sealed leaf with SQLSTATE DP001.';

-- Each chain has a floor for each table from the beginning, so that the views need no outer join, which would not prune.
CREATE FUNCTION dalp_indexed.floors_of_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO dalp_indexed.retention_floor (table_schema, table_name, key)
    VALUES ('dalp_indexed', 'logs', NEW.chain_id), ('dalp_indexed', 'erc20_transfer', NEW.chain_id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION dalp_indexed.floors_of_chain() IS 'Gives a new chain the floors of its tables.';
REVOKE EXECUTE ON FUNCTION dalp_indexed.floors_of_chain() FROM PUBLIC;
CREATE TRIGGER floors_of_chain AFTER INSERT ON dalp_indexed.chain_state
    FOR EACH ROW EXECUTE FUNCTION dalp_indexed.floors_of_chain();
INSERT INTO dalp_indexed.retention_floor (table_schema, table_name, key)
SELECT 'dalp_indexed', table_name, chain_id
FROM dalp_indexed.chain_state, unnest(ARRAY['logs', 'erc20_transfer']) AS table_name;

-- What a cache holds of a chain is no longer what readers may see: the move is a commit of the chain like any other.
CREATE FUNCTION dalp_indexed.epoch_of_floor() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE dalp_indexed.chain_state SET epoch = epoch + 1 WHERE chain_id = NEW.key;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION dalp_indexed.epoch_of_floor() IS 'Counts the move of a floor as a change of its chain.';
REVOKE EXECUTE ON FUNCTION dalp_indexed.epoch_of_floor() FROM PUBLIC;
CREATE TRIGGER epoch_of_floor AFTER UPDATE OF floor ON dalp_indexed.retention_floor
    FOR EACH ROW WHEN (NEW.floor <> OLD.floor AND NEW.table_schema = 'dalp_indexed')
    EXECUTE FUNCTION dalp_indexed.epoch_of_floor();

CREATE VIEW dalp_indexed.final_time AS
SELECT c.chain_id, b.time
FROM dalp_indexed.chain_state AS c,
     LATERAL (SELECT time FROM dalp_indexed.blocks WHERE chain_id = c.chain_id AND number <= c.finalized
              ORDER BY number DESC LIMIT 1) AS b;
COMMENT ON VIEW dalp_indexed.final_time IS 'Time of the newest stored block of each chain that is final; none while nothing is.';
COMMENT ON COLUMN dalp_indexed.final_time.chain_id IS 'EIP-155 chain id.';
COMMENT ON COLUMN dalp_indexed.final_time.time IS 'Its time: retention counts back from here, or from now if that is earlier.';

CREATE VIEW dalp_indexed.retained_logs AS
SELECT l.* FROM dalp_indexed.retention_floor AS f
JOIN dalp_indexed.logs AS l ON l.chain_id = f.key AND l.block_time >= f.floor
WHERE f.table_schema = 'dalp_indexed' AND f.table_name = 'logs';
CREATE VIEW dalp_indexed.retained_erc20_transfer AS
SELECT t.* FROM dalp_indexed.retention_floor AS f
JOIN dalp_indexed.erc20_transfer AS t ON t.chain_id = f.key AND t.block_time >= f.floor
WHERE f.table_schema = 'dalp_indexed' AND f.table_name = 'erc20_transfer';
COMMENT ON VIEW dalp_indexed.retained_logs IS
    'dalp_indexed.logs from the retention floor on. Rows of a retired leaf go from here in one commit, from the table some time later.';
COMMENT ON VIEW dalp_indexed.retained_erc20_transfer IS
    'dalp_indexed.erc20_transfer from the retention floor on. Rows of a retired leaf go from here in one commit, from the table some time later.';

-- The platform's record of who did what. Where another owner keeps dalp_audit to itself, an administrator calls this once.
CREATE FUNCTION dalp_indexed.make_activity(partitioner name, reader name) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $make$
BEGIN
    CREATE TABLE dalp_audit.activity (
        occurred_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
        activity_id  uuid        NOT NULL DEFAULT gen_random_uuid(),
        actor        text        NOT NULL DEFAULT session_user,
        action       text        NOT NULL,
        object       text        NOT NULL,
        statement    text,
        outcome      text        NOT NULL DEFAULT 'done',
        duration_ms  float8,
        lock_wait_ms float8,
        detail       jsonb,
        CONSTRAINT activity_pkey PRIMARY KEY (occurred_at, activity_id)
    ) PARTITION BY RANGE (occurred_at);
    COMMENT ON TABLE dalp_audit.activity IS 'Who did what, when and how it went. Append-only; partitioned by time, retained by policy.';
    COMMENT ON COLUMN dalp_audit.activity.occurred_at IS 'When it was done, by the database clock.';
    COMMENT ON COLUMN dalp_audit.activity.activity_id IS 'Names the row.';
    COMMENT ON COLUMN dalp_audit.activity.actor IS 'Login that did it.';
    COMMENT ON COLUMN dalp_audit.activity.action IS 'What was done, such as partition.detach.';
    COMMENT ON COLUMN dalp_audit.activity.object IS 'To what: a table, a leaf, a hold.';
    COMMENT ON COLUMN dalp_audit.activity.statement IS 'The statement that did it.';
    COMMENT ON COLUMN dalp_audit.activity.outcome IS 'done, or why it failed.';
    COMMENT ON COLUMN dalp_audit.activity.duration_ms IS 'How long it took, in milliseconds.';
    COMMENT ON COLUMN dalp_audit.activity.lock_wait_ms IS 'How long of that it waited for its first lock, in milliseconds.';
    COMMENT ON COLUMN dalp_audit.activity.detail IS 'What else is worth knowing.';
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA dalp_audit TO %I', partitioner);
    EXECUTE format('GRANT USAGE ON SCHEMA dalp_audit TO %I', reader);
    EXECUTE format('GRANT SELECT ON dalp_audit.activity TO %I', reader);
    EXECUTE format('ALTER TABLE dalp_audit.activity OWNER TO %I', partitioner);
END
$make$;
COMMENT ON FUNCTION dalp_indexed.make_activity(name, name) IS
    'Makes dalp_audit.activity for these two roles. Called by the migration; by an administrator where dalp_audit belongs to somebody else.';
REVOKE EXECUTE ON FUNCTION dalp_indexed.make_activity(name, name) FROM PUBLIC;

DO $$
DECLARE
    writer      name := current_setting('dalp.writer');
    partitioner name := current_setting('dalp.partitioner');
    reader      name := current_setting('dalp.reader');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON dalp_indexed.leaf, dalp_indexed.retention_floor, dalp_indexed.legal_hold, '
                   'dalp_indexed.partition_run TO %I', partitioner);
    EXECUTE format('GRANT SELECT ON dalp_indexed.final_time TO %I', partitioner);
    EXECUTE format('GRANT EXECUTE ON FUNCTION dalp_indexed.refuse_sealed() TO %I', partitioner);
    -- What is below the floor is not written again.
    EXECUTE format('GRANT SELECT ON dalp_indexed.retention_floor TO %I', writer);
    -- By the catalog: to look a name up in a schema takes a right on it.
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'dalp_audit' AND c.relname = 'activity') THEN
        IF pg_has_role((SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'dalp_audit'), 'USAGE') THEN
            PERFORM dalp_indexed.make_activity(partitioner, reader);
        ELSE
            RAISE NOTICE 'dalp_audit belongs to somebody else. For retention, run as its owner: SELECT dalp_indexed.make_activity(%, %)',
                quote_literal(partitioner), quote_literal(reader);
        END IF;
    END IF;
END
$$;
