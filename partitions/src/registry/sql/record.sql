-- The record of what was done.

CREATE TABLE IF NOT EXISTS record.activity (
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
COMMENT ON TABLE record.activity IS 'Who did what, when and how it went. Append-only; partitioned by time, retained by policy.';
COMMENT ON COLUMN record.activity.occurred_at IS 'When it was done, by the database clock.';
COMMENT ON COLUMN record.activity.activity_id IS 'Names the row.';
COMMENT ON COLUMN record.activity.actor IS 'Login that did it.';
COMMENT ON COLUMN record.activity.action IS 'What was done, such as partition.detach.';
COMMENT ON COLUMN record.activity.object IS 'To what: a table, a leaf, a hold.';
COMMENT ON COLUMN record.activity.statement IS 'The statement that did it.';
COMMENT ON COLUMN record.activity.outcome IS 'done, or why it failed.';
COMMENT ON COLUMN record.activity.duration_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN record.activity.lock_wait_ms IS 'How long of that it waited for its first lock, in milliseconds.';
COMMENT ON COLUMN record.activity.detail IS 'What else is worth knowing.';
