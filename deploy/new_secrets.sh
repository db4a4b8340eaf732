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
# Redis lets in nobody but this user, and the health check to nothing but PING. Both files hold one password.
if [ ! -e secrets/broker_url ] || [ ! -e secrets/redis_acl ]; then
    password=$(random)
    echo "redis://causeway:$password@redis:6379/0" > secrets/broker_url
    cat > secrets/redis_acl << END
user default off
user causeway on #$(printf %s "$password" | sha256sum | cut -d ' ' -f 1) ~* &* +@all -@admin -@dangerous +info
user health on nopass -@all +ping
END
fi
keep matchmaker_key < /dev/null
keep node_join_key < /dev/null
# Containers read them as users of their own; the folder lets in nobody else of this machine.
find secrets -maxdepth 1 -type f -exec chmod 644 {} +
