-- Published events are kept for OUTBOX_RETENTION, so that they can be published again, and are then deleted.

-- What the deletion looks for, longest published first.
CREATE INDEX outbox_published_idx ON outbox (published_at) WHERE status = 'published';

CREATE TABLE outbox_retention (
    id            boolean     NOT NULL DEFAULT true,
    deleted_until timestamptz,
    CONSTRAINT outbox_retention_pkey        PRIMARY KEY (id),
    CONSTRAINT outbox_retention_has_one_row CHECK (id)
);

INSERT INTO outbox_retention DEFAULT VALUES;

COMMENT ON TABLE  outbox_retention               IS 'How far back the outbox is complete. One row.';
COMMENT ON COLUMN outbox_retention.id            IS 'Always true.';
COMMENT ON COLUMN outbox_retention.deleted_until IS 'The latest created_at of all deleted events; NULL before the first deletion. Events created later are all in the outbox.';

-- The runtime user may call this and has no DELETE on the table, which would let it delete any event, and lock the table. It
-- runs with the owner's rights, so its search_path is fixed, and no table of the caller can take the place of these.
DO $migration$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION delete_expired_events(retention_s double precision, most bigint) RETURNS bigint
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = %I, pg_temp AS $function$
        DECLARE
            cutoff timestamptz;
            count  bigint;
            latest timestamptz;
        BEGIN
            IF retention_s >= 3600 AND most > 0 THEN
                cutoff := statement_timestamp() - make_interval(secs => retention_s);
            ELSE
                RAISE EXCEPTION 'the outbox keeps published events for at least one hour' USING ERRCODE = 'restrict_violation';
            END IF;
            -- By both times: the caller may update published_at, and must not be able to delete a recent event by that.
            WITH expired AS MATERIALIZED (
                SELECT id FROM outbox
                WHERE status = 'published' AND published_at < cutoff AND created_at < cutoff
                ORDER BY published_at LIMIT most FOR UPDATE SKIP LOCKED
            ), deleted AS (
                DELETE FROM outbox USING expired WHERE outbox.id = expired.id RETURNING created_at
            )
            SELECT count(*), max(created_at) INTO count, latest FROM deleted;
            UPDATE outbox_retention SET deleted_until = latest
            WHERE id AND latest > coalesce(deleted_until, '-infinity');
            RETURN count;
        END
        $function$
    $create$, current_schema());
END
$migration$;

REVOKE ALL ON FUNCTION delete_expired_events(double precision, bigint) FROM PUBLIC;

COMMENT ON FUNCTION delete_expired_events(double precision, bigint) IS 'Deletes up to so many events that were published longer ago than the retention, in seconds; returns how many. Skips locked rows.';
