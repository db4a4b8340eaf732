"""How the admin writes dates (FORMAT_MODULE_PATH). Those of other kinds are Django's."""

DATETIME_FORMAT = "Y-m-d H:i:s"
