-- Whose an archive is: names of leaves and tables are given again, and a copy of a database carries the same rows.

CREATE TABLE dalp_indexed.installation (
    the_one      bool        NOT NULL DEFAULT true,
    installation uuid        NOT NULL DEFAULT gen_random_uuid(),
    made_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT installation_pkey PRIMARY KEY (the_one),
    CONSTRAINT installation_one CHECK (the_one)
);
COMMENT ON TABLE dalp_indexed.installation IS 'One row: names this registry, and each copy of it.';
COMMENT ON COLUMN dalp_indexed.installation.the_one IS 'True: there is one row.';
COMMENT ON COLUMN dalp_indexed.installation.installation IS 'In the marker of each archive that it writes to.';
COMMENT ON COLUMN dalp_indexed.installation.made_at IS 'Since when.';
INSERT INTO dalp_indexed.installation DEFAULT VALUES;

CREATE TABLE dalp_indexed.archive_place (
    place      text        NOT NULL,
    claims     int8        NOT NULL DEFAULT 0,
    token      text,
    pending    text,
    claimed_at timestamptz,
    CONSTRAINT archive_place_pkey PRIMARY KEY (place),
    CONSTRAINT archive_place_token CHECK (claims = 0 OR token IS NOT NULL)
);
COMMENT ON TABLE dalp_indexed.archive_place IS
    'One row per archive that this database wrote to. Its newest claim there must be the one named here: a copy of the database that wrote since made another.';
COMMENT ON COLUMN dalp_indexed.archive_place.place IS 'Scheme, host and path of the archive.';
COMMENT ON COLUMN dalp_indexed.archive_place.claims IS 'Number of the newest claim of ours; 0 before the first.';
COMMENT ON COLUMN dalp_indexed.archive_place.token IS 'Its token.';
COMMENT ON COLUMN dalp_indexed.archive_place.pending IS 'Token of a claim that was begun: written here before it is written there.';
COMMENT ON COLUMN dalp_indexed.archive_place.claimed_at IS 'When it was made.';

ALTER TABLE dalp_indexed.leaf
    ADD COLUMN incarnation uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN place text,
    ADD COLUMN verified_at timestamptz;
COMMENT ON COLUMN dalp_indexed.leaf.incarnation IS
    'Names this life of the leaf in archives. Given anew when another copy of the database may have archived it.';
COMMENT ON COLUMN dalp_indexed.leaf.place IS 'The archive that its manifest is of; null for what was archived before this was written down.';
COMMENT ON COLUMN dalp_indexed.leaf.verified_at IS 'When its archive was last read whole and found as written.';

DO $$
DECLARE
    partitioner name := current_setting('dalp.partitioner');
BEGIN
    EXECUTE format('GRANT SELECT ON dalp_indexed.installation TO %I', partitioner);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON dalp_indexed.archive_place TO %I', partitioner);
END
$$;
