-- The same post as one statement: a function call, one round trip.
\set n random(1, :wallets)
\set k random(1, 9000000000000000)
SELECT bench_post(('00000000-0000-7000-8000-' || lpad(to_hex((:n)::int), 12, '0'))::uuid, (:k)::text || '-' || gen_random_uuid());
