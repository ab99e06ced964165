-- The same post as one locked transaction: lock, last entry, key, insert, commit.
\set n random(1, :wallets)
\set k random(1, 9000000000000000)
BEGIN;
SELECT user_id FROM wallets WHERE user_id = ('00000000-0000-7000-8000-' || lpad(to_hex((:n)::int), 12, '0'))::uuid FOR UPDATE;
SELECT seq AS seq, balance_after_minor AS balance FROM transactions WHERE user_id = ('00000000-0000-7000-8000-' || lpad(to_hex((:n)::int), 12, '0'))::uuid ORDER BY seq DESC LIMIT 1 \gset
SELECT count(*) FROM transactions WHERE user_id = ('00000000-0000-7000-8000-' || lpad(to_hex((:n)::int), 12, '0'))::uuid AND idempotency_key = (:k)::text AND posted_by IS NULL;
INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, idempotency_key, request_digest, created_at, hash)
VALUES (('00000000-0000-7000-8000-' || lpad(to_hex((:n)::int), 12, '0'))::uuid, (:seq)::bigint + 1, gen_random_uuid(), 'credit', 1, (:balance)::bigint + 1, 0, (:k)::text || '-' || gen_random_uuid(), substr(sha256(convert_to((:k)::text, 'UTF8')), 1, 16), clock_timestamp(), sha256(convert_to((:k)::text, 'UTF8')));
COMMIT;
