-- One row with the database and the login, then one row for each statement that is still needed, in order.
-- $1 migrator, $2 writer, $3 partitioner, $4 reader. Changes nothing.
WITH here AS (
    SELECT current_database()::text AS database,
           current_user::text AS login,
           -- From 16 on, membership comes in parts: SET (may become the role) and INHERIT (has its rights).
           current_setting('server_version_num')::int4 >= 160000 AS parts
), wanted_role (n, name) AS (
    VALUES (1, $1), (2, $2), (3, $3), (4, $4)
), wanted_member (n, granted, member) AS (
    -- The login becomes the migrator here, and the partitioner when partitions are made. The migrator hands
    -- the partitioned tables over, and alters them later.
    SELECT w.* FROM here, LATERAL (VALUES (1, $1, login), (2, $3, login), (3, $3, $1)) AS w
), wanted_usage (n, name, privilege) AS (
    VALUES (1, $1, 'USAGE'), (2, $1, 'CREATE'), (3, $2, 'USAGE'), (4, $3, 'USAGE'), (5, $3, 'CREATE'), (6, $4, 'USAGE')
), role AS (
    SELECT oid, rolname::text AS name, rolsuper FROM pg_catalog.pg_roles
), statement (step, n, sql) AS (
    SELECT 1, w.n, format('CREATE ROLE %I NOLOGIN', w.name)
    FROM wanted_role AS w
    WHERE NOT EXISTS (SELECT FROM role WHERE role.name = w.name)
  UNION ALL
    SELECT 2, w.n, format('GRANT %I TO %I', w.granted, w.member)
                   || CASE WHEN here.parts THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END
    FROM here, wanted_member AS w
    LEFT JOIN role AS granted ON granted.name = w.granted
    LEFT JOIN role AS member ON member.name = w.member
    WHERE NOT COALESCE(member.rolsuper, false)
      AND NOT COALESCE(
            pg_has_role(member.oid, granted.oid, CASE WHEN here.parts THEN 'SET' ELSE 'MEMBER' END)
        AND pg_has_role(member.oid, granted.oid, CASE WHEN here.parts THEN 'USAGE' ELSE 'MEMBER' END), false)
  UNION ALL
    SELECT 3, 1, format('GRANT CREATE ON DATABASE %I TO %I', here.database, $1)
    FROM here
    WHERE NOT COALESCE(has_database_privilege(
        (SELECT oid FROM role WHERE role.name = $1), here.database, 'CREATE'), false)
  UNION ALL
    SELECT 4, 1, format('CREATE SCHEMA dalp_indexed AUTHORIZATION %I', $1)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'dalp_indexed')
  UNION ALL
    SELECT 5, w.n, format('GRANT %s ON SCHEMA dalp_indexed TO %I', w.privilege, w.name)
    FROM wanted_usage AS w
    LEFT JOIN role ON role.name = w.name
    WHERE NOT COALESCE(has_schema_privilege(
        role.oid, (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'dalp_indexed'), w.privilege), false)
)
SELECT database, login, sql
FROM (SELECT 0 AS step, 0 AS n, '' AS sql UNION ALL SELECT * FROM statement) AS line, here
ORDER BY step, n
