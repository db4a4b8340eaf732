#!/bin/sh
# Creates the missing secrets of docker-compose.yml in ./secrets. Existing ones are kept.
# Keys that the manager creates go into files that are empty at first (docs/deployment.md).
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
# Redis admits only this user, and the health check, which may only PING. Both files contain the same password.
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
# Containers read them as their own users; no other user of this machine can enter the folder.
find secrets -maxdepth 1 -type f -exec chmod 644 {} +
