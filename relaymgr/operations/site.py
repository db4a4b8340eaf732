"""The admin's own pages: the front page and what it is made of."""

from django.contrib import admin


class OperationsSite(admin.AdminSite):
    site_header = site_title = "Causeway"
    index_title = "Operations"
    site_url = "/docs"
