-- wallet.audit.recount ($1 user or null, $2 shards)
-- Recomputes every entry from the entries before it. Reads the ledger once, along its primary key: one window for all wallets,
-- so that the entries are sorted once. `min` of an array compares the first elements and returns the others along with them.
-- Sums are numeric, which cannot overflow, and are clamped to the range of a bigint. The other legs of transfers to another shard are
-- not here: they are looked up there.
WITH act AS MATERIALIZED (
    -- The entries that act on an earlier one, with what was left of it before.
    SELECT act.user_id, act.seq, act.type, act.amount_minor, act.origin_nth, act.origin_left_minor,
           origin.type AS origin_type, row_number() OVER earlier AS nth,
           coalesce(lag(act.origin_left_minor) OVER earlier, origin.amount_minor) AS left_before
    FROM shard.transactions AS act
    LEFT JOIN shard.transactions AS origin ON origin.user_id = act.user_id AND origin.seq = act.origin_seq
    WHERE act.origin_seq IS NOT NULL AND ($1::uuid IS NULL OR act.user_id = $1)
    WINDOW earlier AS (PARTITION BY act.user_id, act.origin_seq ORDER BY act.seq)
),
entry AS (
    SELECT ledger.*,
           texts.seq AS texts_seq,
           sha256(E'purse.texts.v1\n'::bytea || texts.salt
               || CASE WHEN texts.description IS NULL THEN '\x00'::bytea
                  ELSE '\x01'::bytea || int4send(octet_length(texts.description)) || convert_to(texts.description, 'UTF8') END
               || CASE WHEN texts.reference IS NULL THEN '\x00'::bytea
                  ELSE '\x01'::bytea || int4send(octet_length(texts.reference)) || convert_to(texts.reference, 'UTF8') END
               || CASE WHEN texts.metadata IS NULL THEN '\x00'::bytea
                  ELSE '\x01'::bytea || int4send(octet_length(texts.metadata)) || convert_to(texts.metadata, 'UTF8') END
           ) AS digest_of_texts,
           CASE WHEN act.seq IS NULL THEN true ELSE coalesce(
               act.nth = act.origin_nth AND act.left_before > 0 AND CASE
                   WHEN act.type IN ('void', 'expire')
                   THEN act.origin_type = 'hold' AND act.origin_left_minor = 0 AND act.amount_minor = act.left_before
                   WHEN act.origin_type = 'hold'
                   THEN act.type = 'debit' AND (act.origin_left_minor = act.left_before - act.amount_minor
                        OR (act.origin_left_minor = 0 AND act.amount_minor <= act.left_before))
                   ELSE (act.origin_type, act.type) IN (('credit', 'debit'), ('debit', 'credit'))
                        AND act.origin_left_minor = act.left_before - act.amount_minor
               END, false)
           END AS origin_is_right,
           CASE WHEN ledger.transfer_id IS NULL
                  OR get_byte(uuid_send(ledger.counterparty_user_id), 15) % $2 <> get_byte(uuid_send(ledger.user_id), 15) % $2
                THEN true ELSE (
               SELECT count(*) FROM shard.transactions AS twin
               WHERE twin.user_id = ledger.counterparty_user_id AND twin.transfer_id = ledger.transfer_id
                 AND twin.counterparty_user_id = ledger.user_id AND twin.amount_minor = ledger.amount_minor
                 AND (twin.type, ledger.type) IN (('credit', 'debit'), ('debit', 'credit'))
           ) = 1 END AS has_twin,
           CASE WHEN ledger.type = 'hold' THEN ledger.amount_minor
                WHEN act.origin_type = 'hold' THEN act.origin_left_minor - act.left_before
                ELSE 0 END AS held_minor
    FROM shard.transactions AS ledger
    LEFT JOIN shard.entry_texts AS texts USING (user_id, seq)
    LEFT JOIN act USING (user_id, seq)
    WHERE $1::uuid IS NULL OR ledger.user_id = $1
),
chained AS (
    SELECT entry.*,
           row_number() OVER wallet AS place,
           least(greatest(sum(CASE type WHEN 'credit' THEN amount_minor WHEN 'debit' THEN -amount_minor ELSE 0 END) OVER wallet,
                          -9223372036854775808), 9223372036854775807)::bigint AS running,
           least(greatest(sum(held_minor) OVER wallet,
                          -9223372036854775808), 9223372036854775807)::bigint AS running_held,
           lag(created_at) OVER wallet AS previous,
           lag(type) OVER wallet AS previous_type,
           lag(hash) OVER wallet AS previous_hash,
           lag(seq) OVER wallet AS previous_seq,
           lag(id) OVER wallet AS previous_id,
           lag(balance_after_minor) OVER wallet AS previous_balance,
           lead(seq) OVER wallet IS NULL AS is_last,
           lag(posted_by) OVER wallet AS previous_poster,
           group_size IS NULL OR coalesce(lead(seq, group_size - 1) OVER wallet = seq + group_size - 1, false) AS has_its_group,
           coalesce(max(seq + group_size) OVER earlier > seq, false) AS is_in_a_group
    FROM entry
    WINDOW wallet AS (PARTITION BY user_id ORDER BY seq ROWS UNBOUNDED PRECEDING),
           earlier AS (PARTITION BY user_id ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
recounted AS (
    SELECT chained.*,
           CASE WHEN hash IS NULL THEN previous_hash IS NULL ELSE hash = sha256(
               E'purse.entry.v1\n'::bytea
               || CASE
                  WHEN place = 1 THEN sha256(E'purse.genesis.v1\n'::bytea || uuid_send(user_id))
                  WHEN previous_hash IS NULL THEN sha256(
                      E'purse.sealed.v1\n'::bytea || uuid_send(user_id) || int8send(previous_seq) || uuid_send(previous_id)
                      || int8send(previous_balance) || int8send((extract(epoch FROM previous) * 1000000)::bigint))
                  ELSE previous_hash END
               || uuid_send(user_id) || int8send(seq) || uuid_send(id)
               || CASE type WHEN 'credit' THEN '\x01'::bytea WHEN 'debit' THEN '\x02'::bytea WHEN 'hold' THEN '\x03'::bytea
                  WHEN 'void' THEN '\x04'::bytea WHEN 'expire' THEN '\x05'::bytea WHEN 'close' THEN '\x06'::bytea END
               || int8send(amount_minor) || int8send(balance_after_minor) || int8send(held_after_minor)
               || int8send((extract(epoch FROM created_at) * 1000000)::bigint)
               || set_byte('\x00'::bytea, 0,
                  (origin_seq IS NOT NULL)::integer + 2 * (transfer_id IS NOT NULL)::integer
                  + 4 * (expires_at IS NOT NULL)::integer + 8 * (idempotency_key IS NOT NULL)::integer
                  + 16 * (texts_digest IS NOT NULL)::integer + 32 * (group_size IS NOT NULL)::integer
                  + 64 * (posted_by IS NOT NULL)::integer)
               || CASE WHEN origin_seq IS NULL THEN ''::bytea
                  ELSE int8send(origin_seq) || int4send(origin_nth) || int8send(origin_left_minor) END
               || CASE WHEN transfer_id IS NULL THEN ''::bytea
                  ELSE uuid_send(transfer_id) || uuid_send(counterparty_user_id) END
               || CASE WHEN expires_at IS NULL THEN ''::bytea
                  ELSE int8send((extract(epoch FROM expires_at) * 1000000)::bigint) END
               || CASE WHEN idempotency_key IS NULL THEN ''::bytea
                  ELSE set_byte('\x00'::bytea, 0, octet_length(idempotency_key)) || convert_to(idempotency_key, 'UTF8')
                       || request_digest END
               || CASE WHEN texts_digest IS NULL THEN ''::bytea ELSE texts_digest END
               || CASE WHEN group_size IS NULL THEN ''::bytea ELSE int2send(group_size) END
               || CASE WHEN posted_by IS NULL THEN ''::bytea
                  ELSE set_byte('\x00'::bytea, 0, octet_length(posted_by)) || convert_to(posted_by, 'UTF8') END
           ) END AS is_chained
    FROM chained
)
SELECT user_id, count(*) AS entries, count(hash) AS chained,
       EXISTS (SELECT FROM shard.wallets WHERE wallets.user_id = recounted.user_id) AS has_wallet,
       max(balance_after_minor) FILTER (WHERE is_last) AS stored,
       max(running) FILTER (WHERE is_last) AS recounted,
       min(ARRAY[seq, seq, place]) FILTER (WHERE seq <> place) AS place,
       min(ARRAY[seq, balance_after_minor, running]) FILTER (WHERE balance_after_minor <> running) AS balance,
       min(ARRAY[seq, held_after_minor, running_held]) FILTER (WHERE held_after_minor <> running_held) AS held,
       min(seq) FILTER (WHERE balance_after_minor < 0 OR running < 0) AS negative,
       min(seq) FILTER (WHERE created_at < previous) AS time,
       min(seq) FILTER (WHERE is_chained IS NOT true) AS chain,
       -- Texts may be missing after the wallet was closed. Entries without a hash have no digest of their texts.
       least(
           min(seq) FILTER (WHERE texts_seq IS NOT NULL AND hash IS NOT NULL AND digest_of_texts IS DISTINCT FROM texts_digest),
           CASE WHEN bool_or(is_last AND type = 'close') THEN NULL
                ELSE min(seq) FILTER (WHERE texts_seq IS NULL AND texts_digest IS NOT NULL) END,
           CASE WHEN count(texts_seq) <> (SELECT count(*) FROM shard.entry_texts WHERE entry_texts.user_id = recounted.user_id)
                THEN (SELECT min(seq) FROM shard.entry_texts AS orphan
                      WHERE orphan.user_id = recounted.user_id AND NOT EXISTS (
                          SELECT FROM shard.transactions WHERE transactions.user_id = orphan.user_id AND transactions.seq = orphan.seq))
           END) AS texts,
       min(seq) FILTER (WHERE NOT origin_is_right) AS origin,
       min(seq) FILTER (WHERE NOT has_twin) AS transfer,
       -- The entries of a bulk request that is atomic. Its key and their number are on the first one.
       min(seq) FILTER (WHERE NOT has_its_group OR (is_in_a_group AND (
           type NOT IN ('credit', 'debit') OR group_size IS NOT NULL OR idempotency_key IS NOT NULL OR origin_seq IS NOT NULL
           OR transfer_id IS NOT NULL OR posted_by IS DISTINCT FROM previous_poster OR created_at IS DISTINCT FROM previous
       ))) AS group_place,
       min(seq) FILTER (WHERE previous_type = 'close') AS closed,
       CASE WHEN max(held_after_minor) > 0 OR EXISTS (SELECT FROM shard.open_holds WHERE open_holds.user_id = recounted.user_id) THEN (
           SELECT min(coalesce(derived.seq, open.seq))
           FROM (
               SELECT hold.seq, hold.id, hold.expires_at, coalesce(last.origin_left_minor, hold.amount_minor) AS left_minor,
                      coalesce(last.origin_nth, 0) AS acts
               FROM shard.transactions AS hold
               LEFT JOIN LATERAL (
                   SELECT origin_left_minor, origin_nth FROM shard.transactions
                   WHERE transactions.user_id = hold.user_id AND transactions.origin_seq = hold.seq
                   ORDER BY origin_nth DESC LIMIT 1
               ) AS last ON true
               WHERE hold.user_id = recounted.user_id AND hold.type = 'hold'
                 AND coalesce(last.origin_left_minor, hold.amount_minor) > 0
           ) AS derived
           FULL JOIN (SELECT * FROM shard.open_holds WHERE open_holds.user_id = recounted.user_id) AS open ON open.seq = derived.seq
           WHERE (derived.seq, derived.id, derived.left_minor, derived.acts, derived.expires_at)
                 IS DISTINCT FROM (open.seq, open.id, open.left_minor, open.acts, open.expires_at)
       ) END AS open_holds
FROM recounted
GROUP BY user_id
