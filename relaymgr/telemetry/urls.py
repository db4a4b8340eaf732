from django.urls import path

from relaymgr.telemetry.apis import BeaconListApi

urlpatterns = [path("locations/beacons", BeaconListApi.as_view())]
