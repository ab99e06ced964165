-- Set-up for pgbench after the migrations: wallets with a first entry, and a post as a function. The hashes cost what real
-- ones cost, but cover less.
INSERT INTO wallets (user_id, id)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, gen_random_uuid() FROM generate_series(1, 1000) AS n;
INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, created_at, hash)
SELECT user_id, 1, gen_random_uuid(), 'credit', 1000000, 1000000, 0, clock_timestamp(), sha256('') FROM wallets;
CREATE FUNCTION bench_post(owner uuid, key text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    PERFORM user_id FROM wallets WHERE user_id = owner FOR UPDATE;
    SELECT seq, balance_after_minor AS balance, hash INTO last FROM transactions WHERE user_id = owner ORDER BY seq DESC LIMIT 1;
    IF EXISTS (SELECT FROM transactions WHERE user_id = owner AND idempotency_key = key AND posted_by IS NULL) THEN
        RETURN last.balance;
    END IF;
    INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, held_after_minor, idempotency_key,
                              request_digest, created_at, hash)
    VALUES (owner, last.seq + 1, gen_random_uuid(), 'credit', 1, last.balance + 1, 0, key,
            substr(sha256(convert_to(key, 'UTF8')), 1, 16), clock_timestamp(), sha256(last.hash || uuid_send(owner)));
    RETURN last.balance + 1;
END
$$;
