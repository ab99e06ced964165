CREATE TABLE wallets (
    user_id     uuid        NOT NULL,
    id          uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lock_anchor smallint    NOT NULL DEFAULT 0,
    CONSTRAINT wallets_pkey PRIMARY KEY (user_id)
);

COMMENT ON TABLE  wallets             IS 'One wallet a user. Its row is the lock under which the ledger of that user grows.';
COMMENT ON COLUMN wallets.user_id     IS 'The owner; the key that everything of a wallet is found by.';
COMMENT ON COLUMN wallets.id          IS 'UUID v7, made by the service.';
COMMENT ON COLUMN wallets.created_at  IS 'When the wallet was provisioned, by the database''s clock.';
COMMENT ON COLUMN wallets.lock_anchor IS 'Holds no fact: SELECT … FOR UPDATE asks for the right to update some column, and this is the one.';
