-- The planner is told what its statistics cannot know of a table that grows by thousands of rows a second: that a wallet
-- has many rows. Where it thinks of one, every index that begins with user_id looks as good as the one that is meant, and
-- a look for a key reads the wallet's whole history.
ALTER TABLE transactions ALTER COLUMN user_id SET (n_distinct = -0.001);

-- It holds from the next ANALYZE on. An empty table is left alone: the planner guesses better for one that nobody has
-- looked at than for one that was seen empty.
DO $$
BEGIN
    IF EXISTS (SELECT FROM transactions) THEN
        ANALYZE transactions (user_id);
    END IF;
END
$$;
