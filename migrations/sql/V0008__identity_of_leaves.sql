-- A leaf is known by what it is, not by what it is called: by its oid in this catalog. A table of the same name is another table, and
-- one that was renamed is the same. In another catalog (a restored dump, a copy of the database) oids mean nothing.

-- The registry's own oid is new wherever a dump was loaded, into the same database, too. Not a row that a crash empties.
CREATE FUNCTION dalp_indexed.catalog_identity() RETURNS text
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
                  'dalp_indexed.leaf'::regclass::oid);
END
$$;
COMMENT ON FUNCTION dalp_indexed.catalog_identity() IS
    'Names the catalog whose oids the registry has: cluster, database, registry. Another one after a dump was restored.';
REVOKE EXECUTE ON FUNCTION dalp_indexed.catalog_identity() FROM PUBLIC;

ALTER TABLE dalp_indexed.leaf
    ADD COLUMN leaf_schema text,
    ADD COLUMN catalog     text NOT NULL DEFAULT '',
    DROP CONSTRAINT leaf_state,
    ADD CONSTRAINT leaf_state CHECK (state IN ('PLANNED', 'ATTACHED', 'SEALED', 'ARCHIVING', 'ARCHIVED', 'RETIRED', 'DETACHING',
                                               'DETACHED', 'TAKEN', 'DROPPED'));
-- What is not found by its oid is looked for by name, and known from then on.
UPDATE dalp_indexed.leaf AS e
SET leaf_schema = e.table_schema,
    catalog = CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = e.relid AND c.relname = e.leaf)
                   THEN dalp_indexed.catalog_identity() ELSE '' END;
DROP INDEX dalp_indexed.leaf_name;
CREATE INDEX leaf_name ON dalp_indexed.leaf (table_schema, table_name, leaf) WHERE state <> 'DROPPED';
COMMENT ON INDEX dalp_indexed.leaf_name IS 'The rows of leaves that stand, by name.';
-- One life at a time of what stands: a leaf that was dropped and is made again is another row.
CREATE UNIQUE INDEX leaf_identity ON dalp_indexed.leaf (table_schema, table_name, catalog, relid)
    WHERE state <> 'DROPPED' AND catalog <> '';
COMMENT ON INDEX dalp_indexed.leaf_identity IS 'The row of a leaf that stands.';
COMMENT ON COLUMN dalp_indexed.leaf.table_schema IS 'Schema of the table.';
COMMENT ON COLUMN dalp_indexed.leaf.leaf_schema IS 'Schema of the leaf; null in rows of an older program: that of the table.';
COMMENT ON COLUMN dalp_indexed.leaf.catalog IS
    'The catalog that relid is of, as catalog_identity() names it. Of another one, the leaf is looked for by name, bounds and parent.';
COMMENT ON COLUMN dalp_indexed.leaf.state IS
    'PLANNED (being restored), ATTACHED, SEALED (takes no writes), ARCHIVING, ARCHIVED (verified), RETIRED (below the floor), DETACHING, DETACHED, TAKEN (out of its table by somebody else: left alone), DROPPED.';

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION dalp_indexed.catalog_identity() TO %I', current_setting('dalp.partitioner'));
END
$$;
