CREATE TABLE outbox (
    id              uuid        NOT NULL,
    type            text        NOT NULL,
    payload_json    json        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending',
    attempts        integer     NOT NULL DEFAULT 0,
    last_error      text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at    timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until   timestamptz,
    claim_token     uuid,
    request_id      text,
    traceparent     text,
    CONSTRAINT outbox_pkey                     PRIMARY KEY (id),
    CONSTRAINT outbox_status_known             CHECK (status IN ('pending', 'published')),
    CONSTRAINT outbox_published_has_its_time   CHECK ((status = 'published') = (published_at IS NOT NULL)),
    CONSTRAINT outbox_attempts_not_negative    CHECK (attempts >= 0),
    CONSTRAINT outbox_claim_is_whole           CHECK ((claimed_until IS NULL) = (claim_token IS NULL))
);

-- What the relay looks for, oldest first; published rows are not in it, so it stays as small as the backlog.
CREATE INDEX outbox_pending_idx ON outbox (id) WHERE status = 'pending';

COMMENT ON TABLE  outbox                 IS 'Events that were decided together with a row of users, on their way to the broker.';
COMMENT ON COLUMN outbox.id              IS 'UUID v7; the message_id of the message.';
COMMENT ON COLUMN outbox.type            IS 'The type of the message.';
COMMENT ON COLUMN outbox.payload_json    IS 'The body of the message, byte for byte: json, not jsonb.';
COMMENT ON COLUMN outbox.status          IS 'pending until the broker has confirmed exactly this event, then published.';
COMMENT ON COLUMN outbox.attempts        IS 'How often the broker gave it back or refused it; an absent broker does not count.';
COMMENT ON COLUMN outbox.last_error      IS 'What the broker said the last time.';
COMMENT ON COLUMN outbox.created_at      IS 'When it was written, by the database''s clock.';
COMMENT ON COLUMN outbox.published_at    IS 'When the confirm was written down.';
COMMENT ON COLUMN outbox.next_attempt_at IS 'Not before this moment.';
COMMENT ON COLUMN outbox.claimed_until   IS 'Until then it belongs to the process that holds claim_token.';
COMMENT ON COLUMN outbox.claim_token     IS 'Proof of the lease; settling under another token changes nothing.';
COMMENT ON COLUMN outbox.request_id      IS 'x-request-id of the request that caused it.';
COMMENT ON COLUMN outbox.traceparent     IS 'W3C trace context of that request.';
