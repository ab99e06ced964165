-- Stop every older wallet process before this script: from here on their inserts fail, because held_after_minor has no
-- default, instead of writing entries that forget what is held.
--
-- Every act on a wallet becomes a row: credits and debits, and later holds, captures, voids, expiries, reversals, transfers and
-- the closing of the wallet. Each new row is hashed together with the hash of the row before it.
--
-- Locked in the order in which posts lock them. Otherwise a post that has locked its wallet waits for transactions, and this script
-- for wallets, whose foreign key it drops.
LOCK TABLE wallets, transactions IN ACCESS EXCLUSIVE MODE;

ALTER TABLE transactions
    ADD COLUMN held_after_minor     bigint  NOT NULL DEFAULT 0,
    ADD COLUMN origin_seq           bigint,
    ADD COLUMN origin_nth           integer,
    ADD COLUMN origin_left_minor    bigint,
    ADD COLUMN transfer_id          uuid,
    ADD COLUMN counterparty_user_id uuid,
    ADD COLUMN expires_at           timestamptz,
    ADD COLUMN group_size           smallint,
    ADD COLUMN posted_by            text,
    ADD COLUMN request_digest       bytea,
    ADD COLUMN texts_digest         bytea,
    ADD COLUMN hash                 bytea;
-- The default was for existing rows.
ALTER TABLE transactions ALTER COLUMN held_after_minor DROP DEFAULT;

-- Validated by the next script, which does not lock the table against posts.
ALTER TABLE transactions DROP CONSTRAINT transactions_type_known, DROP CONSTRAINT transactions_amount_in_range;
ALTER TABLE transactions
    ADD CONSTRAINT transactions_type_known
        CHECK (type IN ('credit', 'debit', 'hold', 'void', 'expire', 'close')) NOT VALID,
    ADD CONSTRAINT transactions_amount_in_range
        CHECK (amount_minor BETWEEN CASE type WHEN 'close' THEN 0 ELSE 1 END AND 9007199254740991) NOT VALID,
    ADD CONSTRAINT transactions_held_in_range
        CHECK (held_after_minor BETWEEN 0 AND balance_after_minor) NOT VALID,
    ADD CONSTRAINT transactions_origin_is_whole CHECK (
        (origin_seq IS NULL) = (origin_nth IS NULL) AND (origin_seq IS NULL) = (origin_left_minor IS NULL)
        AND (origin_seq IS NULL OR (origin_seq < seq AND origin_nth >= 1 AND origin_left_minor >= 0))
        AND (type NOT IN ('void', 'expire') OR (origin_seq IS NOT NULL AND origin_left_minor = 0))
        AND (type NOT IN ('hold', 'close') OR origin_seq IS NULL)) NOT VALID,
    ADD CONSTRAINT transactions_transfer_is_whole CHECK (
        (transfer_id IS NULL) = (counterparty_user_id IS NULL)
        AND (transfer_id IS NULL OR type IN ('credit', 'debit'))
        AND counterparty_user_id <> user_id) NOT VALID,
    ADD CONSTRAINT transactions_only_holds_expire
        CHECK ((type = 'hold') = (expires_at IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT transactions_group_size
        CHECK (group_size BETWEEN 2 AND 100) NOT VALID,
    ADD CONSTRAINT transactions_poster_is_a_service
        CHECK (posted_by ~ '^[a-z0-9-]{1,32}$') NOT VALID,
    ADD CONSTRAINT transactions_digest_lengths
        CHECK (octet_length(request_digest) = 16 AND octet_length(texts_digest) = 32 AND octet_length(hash) = 32) NOT VALID,
    ADD CONSTRAINT transactions_keys_have_a_digest
        CHECK (hash IS NULL OR (idempotency_key IS NULL) = (request_digest IS NULL)) NOT VALID,
    ADD CONSTRAINT transactions_closed_is_empty
        CHECK (type <> 'close' OR (balance_after_minor = 0 AND held_after_minor = 0)) NOT VALID,
    -- Never validated: older rows have no hash, and no new row may lack one.
    ADD CONSTRAINT transactions_hashed
        CHECK (hash IS NOT NULL) NOT VALID;

-- A service's keys are apart from the user's own.
CREATE UNIQUE INDEX transactions_own_key     ON transactions (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND posted_by IS NULL;
DROP INDEX transactions_idempotency_key;
ALTER INDEX transactions_own_key RENAME TO transactions_idempotency_key;
CREATE UNIQUE INDEX transactions_service_key ON transactions (user_id, posted_by, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND posted_by IS NOT NULL;
-- Guards the acts on a row, and finds the last one: two acts computed from the same state cannot both be written.
CREATE UNIQUE INDEX transactions_origin_key   ON transactions (user_id, origin_seq, origin_nth) WHERE origin_seq IS NOT NULL;
-- One leg of a transfer per wallet.
CREATE UNIQUE INDEX transactions_transfer_key ON transactions (user_id, transfer_id) WHERE transfer_id IS NOT NULL;
CREATE INDEX        transactions_holds_idx    ON transactions (user_id, seq) WHERE type = 'hold';

COMMENT ON COLUMN transactions.type                 IS 'credit, debit, hold, void, expire or close.';
COMMENT ON COLUMN transactions.amount_minor         IS 'US cents, 1 to 2^53-1; 0 where the wallet is closed.';
COMMENT ON COLUMN transactions.held_after_minor     IS 'US cents of the balance that are held after this row; a debit may use the rest.';
COMMENT ON COLUMN transactions.origin_seq           IS 'The earlier row of the wallet on which this row acts: the hold that is captured, voided or expired, or the row that is reversed.';
COMMENT ON COLUMN transactions.origin_nth           IS 'The number of this act on that row: 1, 2, 3, … without gaps.';
COMMENT ON COLUMN transactions.origin_left_minor    IS 'US cents of that row that are left after this act.';
COMMENT ON COLUMN transactions.transfer_id          IS 'The transfer of which this row is one leg: the ID of the sender''s row.';
COMMENT ON COLUMN transactions.counterparty_user_id IS 'Owner of the wallet with the other leg.';
COMMENT ON COLUMN transactions.expires_at           IS 'When a hold ends on its own; only on holds.';
COMMENT ON COLUMN transactions.group_size           IS 'On the first row of a group that was posted atomically: the number of its rows, whose sequence numbers are consecutive.';
COMMENT ON COLUMN transactions.posted_by            IS 'The service that posted this row on the user''s behalf; null: the user.';
COMMENT ON COLUMN transactions.request_digest       IS 'First 16 bytes of the SHA-256 of the request with this idempotency key; a retry must have the same.';
COMMENT ON COLUMN transactions.texts_digest         IS 'SHA-256 of the row''s salted texts in entry_texts; null without texts.';
COMMENT ON COLUMN transactions.hash                 IS 'SHA-256 of this row and of the hash of the row before it; null on rows that are older than the hash chain.';

CREATE TABLE entry_texts (
    user_id     uuid   NOT NULL,
    seq         bigint NOT NULL,
    salt        bytea  NOT NULL,
    description text,
    reference   text,
    metadata    text,
    CONSTRAINT entry_texts_pkey               PRIMARY KEY (user_id, seq),
    CONSTRAINT entry_texts_salt_length        CHECK (octet_length(salt) = 16),
    CONSTRAINT entry_texts_description_length CHECK (char_length(description) <= 255),
    CONSTRAINT entry_texts_reference_length   CHECK (char_length(reference) BETWEEN 1 AND 64),
    CONSTRAINT entry_texts_metadata_length    CHECK (octet_length(metadata) <= 4096),
    CONSTRAINT entry_texts_not_empty          CHECK (description IS NOT NULL OR reference IS NOT NULL OR metadata IS NOT NULL)
);
CREATE INDEX entry_texts_reference_idx ON entry_texts (user_id, reference, seq) WHERE reference IS NOT NULL;

COMMENT ON TABLE  entry_texts             IS 'The texts of transactions, which are the only personal data of the ledger. They can be erased once their wallet is closed; the hash chain covers only their digest.';
COMMENT ON COLUMN entry_texts.user_id     IS 'Owner of the wallet.';
COMMENT ON COLUMN entry_texts.seq         IS 'The transaction that the texts belong to.';
COMMENT ON COLUMN entry_texts.salt        IS 'Random, so that the digest of an erased text cannot be guessed.';
COMMENT ON COLUMN entry_texts.description IS 'Description as sent by the client.';
COMMENT ON COLUMN entry_texts.reference   IS 'The client''s own reference; not unique.';
COMMENT ON COLUMN entry_texts.metadata    IS 'The client''s key-value pairs as canonical JSON, which is what the digest covers.';

-- It finds the table beside it also where that is in a schema which the session does not search.
CREATE FUNCTION refuse_text_change() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' AND (SELECT type FROM transactions WHERE user_id = OLD.user_id ORDER BY seq DESC LIMIT 1) = 'close' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'texts are kept until their wallet is closed: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER entry_texts_refuse_change
    BEFORE UPDATE OR DELETE ON entry_texts FOR EACH ROW EXECUTE FUNCTION refuse_text_change();

CREATE TRIGGER entry_texts_refuse_truncate
    BEFORE TRUNCATE ON entry_texts FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

CREATE TABLE open_holds (
    user_id    uuid        NOT NULL,
    seq        bigint      NOT NULL,
    id         uuid        NOT NULL,
    left_minor bigint      NOT NULL,
    acts       integer     NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    CONSTRAINT open_holds_pkey          PRIMARY KEY (user_id, seq),
    CONSTRAINT open_holds_left_in_range CHECK (left_minor BETWEEN 1 AND 9007199254740991),
    CONSTRAINT open_holds_acts_counted  CHECK (acts >= 0)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX open_holds_id_key   ON open_holds (user_id, id);
CREATE INDEX        open_holds_mine_idx ON open_holds (user_id, expires_at);
CREATE INDEX        open_holds_due_idx  ON open_holds (expires_at);

COMMENT ON TABLE  open_holds            IS 'The holds of which something is left. Derived from transactions, so that a hold and its expiry are found without reading the history; purse ledger verify compares the two.';
COMMENT ON COLUMN open_holds.user_id    IS 'Owner of the wallet.';
COMMENT ON COLUMN open_holds.seq        IS 'Sequence number of the hold.';
COMMENT ON COLUMN open_holds.id         IS 'ID of the hold.';
COMMENT ON COLUMN open_holds.left_minor IS 'US cents that are still held.';
COMMENT ON COLUMN open_holds.acts       IS 'Number of captures so far.';
COMMENT ON COLUMN open_holds.expires_at IS 'When the hold ends on its own.';

-- How many rows have no hash, so that a hash that is removed later is noticed.
CREATE TABLE hash_chain (
    unhashed_entries bigint NOT NULL,
    -- Replication identifies a row by it.
    CONSTRAINT hash_chain_pkey PRIMARY KEY (unhashed_entries)
);
CREATE UNIQUE INDEX hash_chain_one_row ON hash_chain ((true));
INSERT INTO hash_chain (unhashed_entries) SELECT count(*) FROM transactions;

COMMENT ON TABLE  hash_chain                  IS 'One row, written when the hash chain was introduced.';
COMMENT ON COLUMN hash_chain.unhashed_entries IS 'Number of transactions at that time; exactly these have no hash.';

-- The index refuses a second row. A trigger would also refuse the first one where the table is copied to another server.
CREATE TRIGGER hash_chain_refuse_change
    BEFORE UPDATE OR DELETE ON hash_chain FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();

CREATE TRIGGER hash_chain_refuse_truncate
    BEFORE TRUNCATE ON hash_chain FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

-- The foreign key looked up, for each entry, a wallet that the same transaction has locked. Entries are inserted only under
-- that lock, and no wallet with entries can be removed:
ALTER TABLE transactions DROP CONSTRAINT transactions_wallet_fkey;

CREATE FUNCTION refuse_wallet_removal() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF NOT EXISTS (SELECT FROM transactions) THEN
            RETURN NULL;
        END IF;
    ELSIF NOT EXISTS (SELECT FROM transactions WHERE user_id = OLD.user_id) THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    RAISE EXCEPTION 'a wallet with entries is kept: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER wallets_refuse_removal
    BEFORE DELETE OR UPDATE OF user_id ON wallets FOR EACH ROW EXECUTE FUNCTION refuse_wallet_removal();

CREATE TRIGGER wallets_refuse_truncate
    BEFORE TRUNCATE ON wallets FOR EACH STATEMENT EXECUTE FUNCTION refuse_wallet_removal();
