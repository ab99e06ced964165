-- The Idempotency-Key of a registration. A process of the version before does not name the column, so it may run meanwhile.
ALTER TABLE users
    ADD COLUMN registration_key text,
    ADD CONSTRAINT users_registration_key_length CHECK (char_length(registration_key) BETWEEN 1 AND 128);

-- Empty at first, so it is built in one scan; registrations without a key cost it nothing.
CREATE UNIQUE INDEX users_registration_key ON users (registration_key) WHERE registration_key IS NOT NULL;

COMMENT ON COLUMN users.registration_key IS 'Idempotency-Key of the request that registered the user, if it had one; unique among all registrations.';
