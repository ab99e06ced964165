CREATE UNLOGGED TABLE rate_limits (
    key         bytea       NOT NULL,
    spent_until timestamptz NOT NULL,
    CONSTRAINT rate_limits_pkey       PRIMARY KEY (key),
    CONSTRAINT rate_limits_key_length CHECK (octet_length(key) = 32)
) WITH (fillfactor = 50);

COMMENT ON TABLE  rate_limits             IS 'Counts of the rate limits that all processes of the role share. Unlogged, because losing them in a crash forgives some requests and nothing else; half of each page is kept free, so that a row is changed in place.';
COMMENT ON COLUMN rate_limits.key         IS 'SHA-256 of the limit''s name and of who is counted: an address or a user.';
COMMENT ON COLUMN rate_limits.spent_until IS 'The moment from which nothing of the limit is spent any more; a row whose moment has passed means the same as none.';
