CREATE TABLE transactions (
    user_id             uuid        NOT NULL,
    seq                 bigint      NOT NULL,
    id                  uuid        NOT NULL,
    type                text        NOT NULL,
    amount_minor        bigint      NOT NULL,
    balance_after_minor bigint      NOT NULL,
    description         text,
    idempotency_key     text,
    created_at          timestamptz NOT NULL,
    CONSTRAINT transactions_pkey                PRIMARY KEY (user_id, seq),
    CONSTRAINT transactions_wallet_fkey         FOREIGN KEY (user_id) REFERENCES wallets (user_id),
    CONSTRAINT transactions_seq_positive        CHECK (seq >= 1),
    CONSTRAINT transactions_type_known          CHECK (type IN ('credit', 'debit')),
    CONSTRAINT transactions_amount_in_range     CHECK (amount_minor BETWEEN 1 AND 9007199254740991),
    CONSTRAINT transactions_balance_in_range    CHECK (balance_after_minor BETWEEN 0 AND 9007199254740991),
    CONSTRAINT transactions_description_length  CHECK (char_length(description) <= 255),
    CONSTRAINT transactions_key_length          CHECK (char_length(idempotency_key) BETWEEN 1 AND 128)
);

-- Every unique key begins with user_id, so that the table can be distributed by it.
CREATE UNIQUE INDEX transactions_id_key          ON transactions (user_id, id);
CREATE UNIQUE INDEX transactions_idempotency_key ON transactions (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- The balance at a time, and the time bounds of a history: created_at never goes backwards along seq.
CREATE INDEX        transactions_created_at_idx  ON transactions (user_id, created_at, seq);

COMMENT ON TABLE  transactions                     IS 'The ledger: append-only, the truth about every balance.';
COMMENT ON COLUMN transactions.user_id             IS 'Whose wallet.';
COMMENT ON COLUMN transactions.seq                 IS 'Place in the wallet: 1, 2, 3, … without a gap.';
COMMENT ON COLUMN transactions.id                  IS 'UUID v7, made by the service before the row is written.';
COMMENT ON COLUMN transactions.type                IS 'credit or debit.';
COMMENT ON COLUMN transactions.amount_minor        IS 'US cents, 1 to 2^53-1.';
COMMENT ON COLUMN transactions.balance_after_minor IS 'US cents that the wallet holds after this row, 0 to 2^53-1; the balance is the last row''s.';
COMMENT ON COLUMN transactions.description         IS 'The client''s note, as sent.';
COMMENT ON COLUMN transactions.idempotency_key     IS 'The client''s name for the request; once a user.';
COMMENT ON COLUMN transactions.created_at          IS 'When it was decided under the wallet''s lock, by the database''s clock; never before the row before it.';
