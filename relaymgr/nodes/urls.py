from django.urls import path

from relaymgr.nodes.apis import NodeHeartbeatApi, NodeJoinApi
from relaymgr.nodes.locations.apis import IpLookupApi, IpsLookupApi, LocationListApi, PublicIpApi

urlpatterns = [
    path("nodes:join", NodeJoinApi.as_view()),
    path("nodes/self/heartbeat", NodeHeartbeatApi.as_view()),
    path("locations", LocationListApi.as_view()),
    path("ip", PublicIpApi.as_view()),
    path("ip/<str:ip>/lookup", IpLookupApi.as_view()),
    path("ips/lookup", IpsLookupApi.as_view()),
]
