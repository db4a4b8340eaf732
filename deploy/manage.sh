#!/bin/sh
# manage.py with the settings of the systemd services: sudo deploy/manage.sh migrate
# shellcheck disable=SC2034 # `set -a` exports all of them to manage.py
set -eu
set -a
# shellcheck source=/dev/null
. /etc/causeway/manager.env
SECRET_KEY_FILE=/etc/causeway/secret_key
DATABASE_URL_FILE=/etc/causeway/database_url
CAUSEWAY_STATE_DIR=/var/lib/causeway-manage
CAUSEWAY_STATIC_ROOT=/opt/causeway/static
cd /opt/causeway
exec .venv/bin/python manage.py "$@"
