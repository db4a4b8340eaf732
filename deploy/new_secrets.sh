#!/bin/sh
# Makes the secrets of docker-compose.yml in ./secrets: those that are missing, none anew.
# The keys that the manager makes come into empty files (docs/deployment.md).
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets/certificates

random() { head -c 48 /dev/urandom | base64 | tr '+/' '-_'; }
keep() { [ -e "secrets/$1" ] || cat > "secrets/$1"; }

random | keep secret_key
random | keep postgres_password
random | keep grafana_password
random | keep metrics_key
echo "postgres://causeway:$(cat secrets/postgres_password)@postgres:5432/causeway" | keep database_url
keep matchmaker_key < /dev/null
keep node_join_key < /dev/null
# Containers read them as users of their own; the folder lets in nobody else of this machine.
find secrets -maxdepth 1 -type f -exec chmod 644 {} +
