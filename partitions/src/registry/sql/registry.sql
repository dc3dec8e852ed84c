-- The registry: what is intended with each leaf, from when on rows are retained, what must be kept whatever a policy says, and whose
-- archives are.

CREATE TABLE registry.leaf (
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
    incarnation  uuid        NOT NULL DEFAULT gen_random_uuid(),
    place        text,
    verified_at  timestamptz,
    leaf_schema  text,
    catalog      text        NOT NULL DEFAULT '',
    checks       text[],
    CONSTRAINT leaf_pkey PRIMARY KEY (leaf_id),
    CONSTRAINT leaf_forward CHECK (from_time IS NULL OR from_time < to_time OR to_time = 'infinity'),
    CONSTRAINT leaf_state CHECK (state IN ('PLANNED', 'ATTACHED', 'SEALED', 'ARCHIVING', 'ARCHIVED', 'RETIRED', 'DETACHING',
                                           'DETACHED', 'TAKEN', 'DROPPED'))
);
CREATE INDEX leaf_name ON registry.leaf (table_schema, table_name, leaf) WHERE state <> 'DROPPED';
COMMENT ON INDEX registry.leaf_name IS 'The rows of leaves that stand, by name.';
CREATE INDEX leaf_times ON registry.leaf (table_schema, table_name, key, to_time);
COMMENT ON INDEX registry.leaf_times IS 'The leaves of a table and key in order; archived ones of a range.';
-- One life at a time of what stands: a leaf that was dropped and is made again is another row.
CREATE UNIQUE INDEX leaf_identity ON registry.leaf (table_schema, table_name, catalog, relid)
    WHERE state <> 'DROPPED' AND catalog <> '';
COMMENT ON INDEX registry.leaf_identity IS 'The row of a leaf that stands.';
COMMENT ON TABLE registry.leaf IS
    'One row per leaf of a managed table: how far it is on the way from attached to dropped. Written by the partition manager.';
COMMENT ON COLUMN registry.leaf.leaf_id IS 'Names this life of the leaf.';
COMMENT ON COLUMN registry.leaf.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN registry.leaf.table_name IS 'The partitioned table.';
COMMENT ON COLUMN registry.leaf.key IS 'Value of the list level above time; 0 for a table without one.';
COMMENT ON COLUMN registry.leaf.leaf IS 'Name of the leaf; a label.';
COMMENT ON COLUMN registry.leaf.relid IS 'The leaf''s oid: a table of the same name is not the same table.';
COMMENT ON COLUMN registry.leaf.from_time IS 'First time that it holds; null for MINVALUE.';
COMMENT ON COLUMN registry.leaf.to_time IS 'First time after it.';
COMMENT ON COLUMN registry.leaf.state IS
    'PLANNED (being restored), ATTACHED, SEALED (takes no writes), ARCHIVING, ARCHIVED (verified), RETIRED (below the floor), DETACHING, DETACHED, TAKEN (out of its table by somebody else: left alone), DROPPED.';
COMMENT ON COLUMN registry.leaf.version IS 'Version of its archive; grows when a sealed leaf was written again. 0 before the first.';
COMMENT ON COLUMN registry.leaf.rows IS 'Rows when it was sealed or archived; an estimate unless archived.';
COMMENT ON COLUMN registry.leaf.bytes IS 'Bytes with indexes when it was sealed.';
COMMENT ON COLUMN registry.leaf.seal IS
    'Mark of the seal''s triggers and of the file: as long as it is the same, nobody can have changed a row since it was counted.';
COMMENT ON COLUMN registry.leaf.manifest IS 'What is in the archive and how it was verified; null without a valid archive.';
COMMENT ON COLUMN registry.leaf.sealed_at IS 'When it was sealed.';
COMMENT ON COLUMN registry.leaf.archived_at IS 'When its archive was verified.';
COMMENT ON COLUMN registry.leaf.retired_at IS 'When the floor passed it.';
COMMENT ON COLUMN registry.leaf.detached_at IS 'When it was detached; the grace period counts from here.';
COMMENT ON COLUMN registry.leaf.dropped_at IS 'When it was dropped.';
COMMENT ON COLUMN registry.leaf.updated_at IS 'Last change of this row.';
COMMENT ON COLUMN registry.leaf.incarnation IS
    'Names this life of the leaf in archives. Given anew when another copy of the database may have archived it.';
COMMENT ON COLUMN registry.leaf.place IS 'The archive that its manifest is of; null for what was archived before this was written down.';
COMMENT ON COLUMN registry.leaf.verified_at IS 'When its archive was last read whole and found as written.';
COMMENT ON COLUMN registry.leaf.leaf_schema IS 'Schema of the leaf; null in rows of an older program: that of the table.';
COMMENT ON COLUMN registry.leaf.catalog IS
    'The catalog that relid is of, as catalog_identity() names it. Of another one, the leaf is looked for by name, bounds and parent.';
COMMENT ON COLUMN registry.leaf.checks IS
    'Names of the CHECKs that it had when we began to detach it: they stay when it is attached again. Null if we did not.';

CREATE TABLE registry.retention_floor (
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    key          int8        NOT NULL,
    floor        timestamptz NOT NULL DEFAULT '-infinity',
    moves        int8        NOT NULL DEFAULT 0,
    moved_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT retention_floor_pkey PRIMARY KEY (table_schema, table_name, key)
);
COMMENT ON TABLE registry.retention_floor IS
    'One row per table and key: rows before floor are retired. Readers that go by it see a leaf go in one commit; its files go later.';
COMMENT ON COLUMN registry.retention_floor.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN registry.retention_floor.table_name IS 'The partitioned table.';
COMMENT ON COLUMN registry.retention_floor.key IS 'Value of the list level above time; 0 for a table without one.';
COMMENT ON COLUMN registry.retention_floor.floor IS 'Earliest time that is served; -infinity while nothing was retired.';
COMMENT ON COLUMN registry.retention_floor.moves IS 'Counts the moves of floor; caches compare it.';
COMMENT ON COLUMN registry.retention_floor.moved_at IS 'When floor last moved.';

CREATE TABLE registry.legal_hold (
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
COMMENT ON TABLE registry.legal_hold IS
    'What must be kept whatever a policy says: no leaf that a hold touches is retired, detached or dropped. Rows are released, never deleted.';
COMMENT ON COLUMN registry.legal_hold.hold_id IS 'Names the hold.';
COMMENT ON COLUMN registry.legal_hold.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN registry.legal_hold.table_name IS 'The partitioned table.';
COMMENT ON COLUMN registry.legal_hold.key IS 'Value of the list level; null for all.';
COMMENT ON COLUMN registry.legal_hold.from_time IS 'First time held; null for the beginning.';
COMMENT ON COLUMN registry.legal_hold.to_time IS 'First time after; null for no end.';
COMMENT ON COLUMN registry.legal_hold.reason IS 'Why, such as the name of the case.';
COMMENT ON COLUMN registry.legal_hold.author IS 'Who asked for it.';
COMMENT ON COLUMN registry.legal_hold.created_at IS 'Since when.';
COMMENT ON COLUMN registry.legal_hold.released_at IS 'When it was released; null while it holds.';
COMMENT ON COLUMN registry.legal_hold.released_by IS 'Who released it.';

CREATE TABLE registry.partition_run (
    table_schema text        NOT NULL,
    table_name   text        NOT NULL,
    succeeded_at timestamptz,
    failed_at    timestamptz,
    failures     int4        NOT NULL DEFAULT 0,
    last_error   text,
    CONSTRAINT partition_run_pkey PRIMARY KEY (table_schema, table_name)
);
COMMENT ON TABLE registry.partition_run IS 'One row per managed table: when its maintenance last did all that it should.';
COMMENT ON COLUMN registry.partition_run.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN registry.partition_run.table_name IS 'The partitioned table.';
COMMENT ON COLUMN registry.partition_run.succeeded_at IS 'Last run without a failure.';
COMMENT ON COLUMN registry.partition_run.failed_at IS 'Last run with one.';
COMMENT ON COLUMN registry.partition_run.failures IS 'Failed runs in a row; 0 after a success.';
COMMENT ON COLUMN registry.partition_run.last_error IS 'What the last failure said.';

CREATE TABLE registry.installation (
    the_one      bool        NOT NULL DEFAULT true,
    installation uuid        NOT NULL DEFAULT gen_random_uuid(),
    made_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT installation_pkey PRIMARY KEY (the_one),
    CONSTRAINT installation_one CHECK (the_one)
);
COMMENT ON TABLE registry.installation IS 'One row: names this registry, and each copy of it.';
COMMENT ON COLUMN registry.installation.the_one IS 'True: there is one row.';
COMMENT ON COLUMN registry.installation.installation IS 'In the marker of each archive that it writes to.';
COMMENT ON COLUMN registry.installation.made_at IS 'Since when.';
INSERT INTO registry.installation DEFAULT VALUES;

CREATE TABLE registry.archive_place (
    place      text        NOT NULL,
    claims     int8        NOT NULL DEFAULT 0,
    token      text,
    pending    text,
    claimed_at timestamptz,
    CONSTRAINT archive_place_pkey PRIMARY KEY (place),
    CONSTRAINT archive_place_token CHECK (claims = 0 OR token IS NOT NULL)
);
COMMENT ON TABLE registry.archive_place IS
    'One row per archive that this database wrote to. Its newest claim there must be the one named here: a copy of the database that wrote since made another.';
COMMENT ON COLUMN registry.archive_place.place IS 'Scheme, host and path of the archive.';
COMMENT ON COLUMN registry.archive_place.claims IS 'Number of the newest claim of ours; 0 before the first.';
COMMENT ON COLUMN registry.archive_place.token IS 'Its token.';
COMMENT ON COLUMN registry.archive_place.pending IS 'Token of a claim that was begun: written here before it is written there.';
COMMENT ON COLUMN registry.archive_place.claimed_at IS 'When it was made.';

-- The registry's own oid is new wherever a dump was loaded, into the same database, too. Not a row that a crash empties.
CREATE FUNCTION registry.catalog_identity() RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    cluster text := '';
BEGIN
    BEGIN
        SELECT system_identifier::text INTO cluster FROM pg_control_system();
    EXCEPTION WHEN insufficient_privilege THEN
        -- Some services keep it to themselves: the other two are as good within one cluster.
        NULL;
    END;
    RETURN format('%s/%s/%s', cluster, (SELECT oid FROM pg_database WHERE datname = current_database()),
                  'registry.leaf'::regclass::oid);
END
$$;
COMMENT ON FUNCTION registry.catalog_identity() IS
    'Names the catalog whose oids the registry has: cluster, database, registry. Another one after a dump was restored.';
REVOKE EXECUTE ON FUNCTION registry.catalog_identity() FROM PUBLIC;

-- On a leaf that is sealed. The triggers on it are ENABLE ALWAYS: no session setting passes them.
CREATE FUNCTION registry.refuse_sealed() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'DP001',
        MESSAGE = format('%s on "%s"."%s", which is sealed', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
        HINT = 'Its retention or archiving has begun: it is unsealed for a late row.';
END
$$;
COMMENT ON FUNCTION registry.refuse_sealed() IS 'Refuses every write to a sealed leaf with SQLSTATE DP001.';
