-- transactions_hashed stays as it is: rows from before the hash chain have no hash.
ALTER TABLE transactions
    VALIDATE CONSTRAINT transactions_type_known,
    VALIDATE CONSTRAINT transactions_amount_in_range,
    VALIDATE CONSTRAINT transactions_held_in_range,
    VALIDATE CONSTRAINT transactions_origin_is_whole,
    VALIDATE CONSTRAINT transactions_transfer_is_whole,
    VALIDATE CONSTRAINT transactions_only_holds_expire,
    VALIDATE CONSTRAINT transactions_group_size,
    VALIDATE CONSTRAINT transactions_poster_is_a_service,
    VALIDATE CONSTRAINT transactions_digest_lengths,
    VALIDATE CONSTRAINT transactions_keys_have_a_digest,
    VALIDATE CONSTRAINT transactions_closed_is_empty;

-- Rows from before the hash chain have no digest of their texts.
INSERT INTO entry_texts (user_id, seq, salt, description)
SELECT user_id, seq, uuid_send(gen_random_uuid()), description FROM transactions WHERE description IS NOT NULL;

ALTER TABLE transactions DROP COLUMN description;
