from django.urls import path

from relaymgr.tenants import apis

urlpatterns = [path("tenant", apis.TenantApi.as_view())]
