CREATE TABLE users (
    id            uuid        NOT NULL,
    first_name    text        NOT NULL,
    last_name     text        NOT NULL,
    email         text        NOT NULL,
    password_hash text        NOT NULL,
    created_at    timestamptz NOT NULL,
    CONSTRAINT users_pkey                  PRIMARY KEY (id),
    CONSTRAINT users_email_key             UNIQUE (email),
    CONSTRAINT users_first_name_length     CHECK (char_length(first_name) BETWEEN 1 AND 100),
    CONSTRAINT users_last_name_length      CHECK (char_length(last_name) BETWEEN 1 AND 100),
    CONSTRAINT users_email_length          CHECK (octet_length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_password_hash_is_argon2id CHECK (password_hash LIKE '$argon2id$v=19$%')
);

COMMENT ON TABLE  users               IS 'Registered people.';
COMMENT ON COLUMN users.id            IS 'UUID v7, made by the service; the sub of the person''s tokens.';
COMMENT ON COLUMN users.first_name    IS 'Trimmed, 1 to 100 characters.';
COMMENT ON COLUMN users.last_name     IS 'Trimmed, 1 to 100 characters.';
COMMENT ON COLUMN users.email         IS 'Folded to lower case by the service, at most 254 bytes; unique in that form.';
COMMENT ON COLUMN users.password_hash IS 'PHC string of argon2id, parameters included.';
COMMENT ON COLUMN users.created_at    IS 'When the registration was decided, by the service''s clock.';
