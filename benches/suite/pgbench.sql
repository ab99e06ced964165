-- Set-up for pgbench after the migrations: wallets with a first entry, and a post as a function.
INSERT INTO wallets (user_id, id)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, gen_random_uuid() FROM generate_series(1, 1000) AS n;
INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, created_at)
SELECT user_id, 1, gen_random_uuid(), 'credit', 1000000, 1000000, clock_timestamp() FROM wallets;
CREATE FUNCTION bench_post(owner uuid, key text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    PERFORM user_id FROM wallets WHERE user_id = owner FOR UPDATE;
    SELECT seq, balance_after_minor AS balance INTO last FROM transactions WHERE user_id = owner ORDER BY seq DESC LIMIT 1;
    IF EXISTS (SELECT FROM transactions WHERE user_id = owner AND idempotency_key = key) THEN
        RETURN last.balance;
    END IF;
    INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, description, idempotency_key, created_at)
    VALUES (owner, last.seq + 1, gen_random_uuid(), 'credit', 1, last.balance + 1, NULL, key, clock_timestamp());
    RETURN last.balance + 1;
END
$$;
