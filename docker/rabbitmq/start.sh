#!/bin/sh
# Starts the broker with the accounts of the stack: `start.sh`; `start.sh print` only prints them, in the form that
# RabbitMQ imports. They are imported at every start, so that a new password in .env takes effect.
#   $ADMIN_USER   may do everything, and log in to the management UI
#   purse_users   may declare the exchange of events and publish to it, and nothing else
#   purse_wallet  may declare its own queues and exchanges, read them and write to them, but not publish events
# There are no other accounts: a broker that imports accounts does not create the default one.
set -eu

# These go into JSON and into URLs unescaped.
for value in "$ADMIN_USER" "$ADMIN_PASSWORD" "$USERS_PASSWORD" "$WALLET_PASSWORD"; do
  case $value in
    '' | *[!A-Za-z0-9._~-]*)
      echo "rabbitmq: the account names and passwords in .env may contain only letters, digits and -_.~" >&2
      exit 64
      ;;
  esac
done

# The queues of the wallet role; a retry queue is named after its delay.
queues='wallet\\.provision(\\.dlq|\\.retry\\.[0-9]+m?s)?'
vhost=${VHOST:-/}

accounts() {
  cat <<JSON
{
  "vhosts": [{"name": "$vhost"}],
  "users": [
    {"name": "$ADMIN_USER", "password": "$ADMIN_PASSWORD", "tags": "administrator"},
    {"name": "purse_users", "password": "$USERS_PASSWORD", "tags": ""},
    {"name": "purse_wallet", "password": "$WALLET_PASSWORD", "tags": ""}
  ],
  "permissions": [
    {"user": "$ADMIN_USER", "vhost": "$vhost", "configure": ".*", "write": ".*", "read": ".*"},
    {
      "user": "purse_users",
      "vhost": "$vhost",
      "configure": "^domain\\\\.events$",
      "write": "^domain\\\\.events$",
      "read": "^$"
    },
    {
      "user": "purse_wallet",
      "vhost": "$vhost",
      "configure": "^(domain\\\\.events(\\\\.dlx)?|$queues)$",
      "write": "^(domain\\\\.events\\\\.dlx|amq\\\\.default|$queues)$",
      "read": "^(domain\\\\.events(\\\\.dlx)?|$queues)$"
    }
  ]
}
JSON
}

if [ "${1:-}" = print ]; then
  accounts
  exit
fi
mkdir -p /run/purse
(umask 077 && accounts >/run/purse/accounts.json)
chown -R rabbitmq: /run/purse
echo 'load_definitions = /run/purse/accounts.json' >/etc/rabbitmq/conf.d/20-accounts.conf
# The server reads the file; no process inherits the passwords.
unset ADMIN_PASSWORD USERS_PASSWORD WALLET_PASSWORD
exec docker-entrypoint.sh rabbitmq-server
