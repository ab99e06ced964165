-- With several shards, the tables of the ledger are in one schema per shard, and this table in the schema that all share.
CREATE TABLE ledger_shards (
    shards        smallint NOT NULL,
    newest_script smallint NOT NULL DEFAULT 0,
    CONSTRAINT ledger_shards_power_of_two CHECK (shards IN (1, 2, 4, 8, 16, 32))
);
CREATE UNIQUE INDEX ledger_shards_one_row ON ledger_shards ((true));

COMMENT ON TABLE  ledger_shards               IS 'One row, written when the database was set up. Another number would look for wallets where they are not.';
COMMENT ON COLUMN ledger_shards.shards        IS 'Number of schemas over which the ledger is divided; 1: its tables are in this schema.';
COMMENT ON COLUMN ledger_shards.newest_script IS 'Newest migration that all of these schemas have, so that a process starts while a server that has one of them is down. Of no meaning with 1.';

-- With several shards the row is written after this script.
INSERT INTO ledger_shards (shards) SELECT 1 WHERE to_regclass('wallets') IS NOT NULL;
