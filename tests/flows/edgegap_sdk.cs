// What Edgegap's Unity SDKs do, with the data types that they declare (EDGEGAP.md 3.4, 5.2, 5.3): monitor, beacons,
// tickets until a host is assigned, a relay session. Newtonsoft.Json throws where an answer has another type.
//
//     mono edgegap_sdk.exe <base URL> <key> <profile>
//
// Prints a line for each step. Any exception ends it with status 1.
using System;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Newtonsoft.Json;

class Monitor
{
    [JsonProperty("status")] public string Status;
    [JsonProperty("message")] public string Message;
    [JsonProperty("healthy_components")] public int HealthyComponents;
    [JsonProperty("unhealthy_components")] public int UnhealthyComponents;
}

class Location
{
    [JsonProperty("city")] public string City;
    [JsonProperty("country")] public string Country;
    [JsonProperty("continent")] public string Continent;
    [JsonProperty("administrative_division")] public string AdministrativeDivision;
    [JsonProperty("timezone")] public string Timezone;
}

class Beacon
{
    [JsonProperty("fqdn")] public string Fqdn;
    [JsonProperty("public_ip")] public string PublicIP;
    [JsonProperty("tcp_port")] public int TcpPort;
    [JsonProperty("udp_port")] public int UdpPort;
    [JsonProperty("location")] public Location Location;
}

class Beacons
{
    [JsonProperty("count")] public int Count;
    [JsonProperty("beacons")] public List<Beacon> List;
}

class TicketRequest
{
    [JsonProperty("profile")] public string Profile;
    [JsonProperty("attributes")] public Dictionary<string, object> Attributes;
    [JsonProperty("player_ip")] public string PlayerIP;  // unset: sent as null
}

class AssignedPort
{
    [JsonProperty("internal")] public int Internal;
    [JsonProperty("external")] public int External;
    [JsonProperty("link")] public string Link;
    [JsonProperty("protocol")] public string Protocol;
}

class Assignment
{
    [JsonProperty("fqdn")] public string Fqdn;
    [JsonProperty("public_ip")] public string PublicIP;
    [JsonProperty("ports")] public Dictionary<string, AssignedPort> Ports;
    [JsonProperty("location")] public Location Location;
}

class Ticket
{
    [JsonProperty("id")] public string Id;
    [JsonProperty("profile")] public string Profile;
    [JsonProperty("group_id")] public string GroupId;
    [JsonProperty("team_id")] public string TeamId;
    [JsonProperty("player_ip")] public string PlayerIP;
    [JsonProperty("created_at")] public DateTime CreatedAt;
    [JsonProperty("status")] public string Status;
    [JsonProperty("assignment")] public Assignment Assignment;
}

class RelayPort
{
    [JsonProperty("port")] public ushort Port;
    [JsonProperty("protocol")] public string Protocol;
    [JsonProperty("link")] public string Link;
}

class RelayPorts
{
    [JsonProperty("server")] public RelayPort Server;
    [JsonProperty("client")] public RelayPort Client;
}

class Relay
{
    [JsonProperty("ip")] public string IP;
    [JsonProperty("host")] public string Host;
    [JsonProperty("ports")] public RelayPorts Ports;
}

class SessionUser
{
    [JsonProperty("ip_address")] public string IPAddress;
    [JsonProperty("latitude")] public double Latitude;
    [JsonProperty("longitude")] public double Longitude;
    [JsonProperty("authorization_token")] public uint? AuthorizationToken;
}

class Session
{
    [JsonProperty("session_id")] public string SessionId;
    [JsonProperty("authorization_token")] public uint? AuthorizationToken;
    [JsonProperty("status")] public string Status;
    [JsonProperty("ready")] public bool Ready;
    [JsonProperty("linked")] public bool Linked;
    [JsonProperty("error")] public string Error;
    [JsonProperty("session_users")] public List<SessionUser> SessionUsers;
    [JsonProperty("relay")] public Relay Relay;
    [JsonProperty("webhook_url")] public string WebhookUrl;
}

class User
{
    [JsonProperty("ip")] public string IP;
}

class SessionRequest
{
    [JsonProperty("users")] public List<User> Users;
    [JsonProperty("filters")] public List<object> Filters = new List<object>();
    [JsonProperty("webhook_url")] public string WebhookUrl = "";
}

// As the content of PostAsJsonAsync: its length is not known before it is written, so it is sent in chunks.
class JsonContent : HttpContent
{
    readonly object value;

    public JsonContent(object value)
    {
        this.value = value;
        Headers.ContentType = new MediaTypeHeaderValue("application/json") { CharSet = "utf-8" };
    }

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext context)
    {
        var bytes = Encoding.UTF8.GetBytes(JsonConvert.SerializeObject(value));
        return stream.WriteAsync(bytes, 0, bytes.Length);
    }

    protected override bool TryComputeLength(out long length)
    {
        length = 0;
        return false;
    }
}

static class Peer
{
    static HttpClient http;

    static T Call<T>(HttpMethod method, string url, string key, object body = null)
    {
        var request = new HttpRequestMessage(method, url);
        request.Headers.TryAddWithoutValidation("Authorization", key);
        if (body != null)
        {
            request.Content = new JsonContent(body);
            request.Headers.TransferEncodingChunked = true;
        }
        var response = http.SendAsync(request).Result;
        var text = response.Content == null ? "" : response.Content.ReadAsStringAsync().Result;
        if (!response.IsSuccessStatusCode) throw new Exception(method + " " + url + ": " + (int)response.StatusCode + " " + text);
        return JsonConvert.DeserializeObject<T>(text);
    }

    static void Require(bool condition, string what)
    {
        if (!condition) throw new Exception(what);
        Console.WriteLine(what);
    }

    static void Main(string[] args)
    {
        string url = args[0], key = args[1], matchmaker = args[0] + "/matchmaker";
        http = new HttpClient { Timeout = TimeSpan.FromSeconds(30) };

        var health = Call<Monitor>(HttpMethod.Get, matchmaker + "/monitor", key);
        Require(health.Status == "HEALTHY" && health.HealthyComponents == 2 && health.UnhealthyComponents == 0, "matchmaker healthy");
        var manager = Call<Monitor>(HttpMethod.Get, url + "/monitor", key);
        Require(manager.Status == "HEALTHY" && manager.HealthyComponents > 0, "manager healthy");

        var beacons = Call<Beacons>(HttpMethod.Get, matchmaker + "/locations/beacons", key);
        var pings = new Dictionary<string, double>();
        foreach (var beacon in beacons.List) pings.Add(beacon.Location.City, 20.5);
        Require(beacons.Count > 0 && pings.Count == beacons.Count, "beacons " + beacons.Count);

        var attributes = new Dictionary<string, object> { { "beacons", pings } };
        var tickets = new List<Ticket>();
        for (int player = 0; player < 2; player++)
            tickets.Add(Call<Ticket>(HttpMethod.Post, matchmaker + "/tickets", key, new TicketRequest { Profile = args[2], Attributes = attributes }));
        Require(tickets.TrueForAll(each => each.PlayerIP != null && each.Assignment == null), "tickets");
        foreach (var made in tickets)
        {
            Ticket seen = made;
            for (int poll = 0; poll < 300 && seen.Status != "HOST_ASSIGNED" && seen.Status != "CANCELLED"; poll++)
            {
                Thread.Sleep(100);
                seen = Call<Ticket>(HttpMethod.Get, matchmaker + "/tickets/" + made.Id, key);
            }
            Require(seen.Status == "HOST_ASSIGNED" && seen.Assignment.Ports["gameport"].External > 0, "host assigned");
        }

        var users = new List<User> { new User { IP = "192.0.2.1" }, new User { IP = "192.0.2.1" } };
        var session = Call<Session>(HttpMethod.Post, url + "/v1/relays/sessions", "token " + key, new SessionRequest { Users = users });
        Require(session.Ready && session.AuthorizationToken != null && session.SessionUsers.Count == 2, "session ready");
        Require(session.SessionUsers.TrueForAll(user => user.AuthorizationToken != null), "users have tokens");
        Require(session.Relay.Ports.Server.Port > 0 && session.Relay.Ports.Client.Protocol == "UDP", "relay ports");
        Call<object>(HttpMethod.Delete, url + "/v1/relays/sessions/" + session.SessionId, "token " + key);
        Console.WriteLine("done");
    }
}
