// SPDX-License-Identifier: GPL-2.0-only
// Copyright The Causeway authors
//
// The XDP path: forwards DATA of known seats before it reaches a socket.
//
//   clang -O2 -g0 -target bpf -mcpu=v3 -Wall -Werror -c relay.bpf.c -o relay.bpf.o        (make xdp)
//
// Every decision is made in Python. For packets about which nothing is left to decide, this program repeats what the
// core would do, with the copy of the seat table that maps.py keeps here. All other packets are passed to the sockets
// before anything is changed: other types, unknown or moved senders, wrong tags, replays, fan-out, absent peers, IP
// options, fragments. The program never answers, and it only drops packets that exceed a limit.
//
// There are three programs. `front` is attached to the interface and finds the worker by port. Each worker has a
// `relay` with maps of its own. Python runs `gate` through bpf(2) to change the values that `relay` changes, too.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// -- the part of the kernel's interface (linux/bpf.h) that is used, so that no headers are needed

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PROG_ARRAY = 3, MAP_PERCPU_ARRAY = 6 };

static void *(*map_lookup)(const void *map, const void *key) = (void *)1;
static u64 (*clock_ns)(void) = (void *)5;
static long (*tail_call)(void *ctx, const void *map, u32 index) = (void *)12;
static long (*adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

// The loader reads this struct from the section "maps". `size` 0: one entry for each seat, or two in a hash map.
struct map {
    u32 type, key_size, value_size, size;
};

// -- the wire formats (PROTOCOL.md; EDGEGAP.md 1.1)

enum { SHORTEST = 9, LONGEST = 1232, LONGEST_BESIDE_EDGEGAP = 1200 };
enum { EDGEGAP_DATA = 2, EDGEGAP_HEAD = 9, EDGEGAP_HOST_HEAD = 13 };
enum { NATIVE_DATA = 0xC4, NATIVE_LAST = 0xCB, NATIVE_HEAD = 10, TAG = 8, EVERYONE = 255 };
enum { WINDOW = 1024, INDEX_MASK = 0xFFFFF };
enum { ETHERNET = 14, IPV4 = 20, IPV6 = 40, UDP = 8, UDP_PROTOCOL = 17 };

// -- the rule of a seat, from the seat table (maps.py packs the same layout)

enum { ABSENT, EDGEGAP, NATIVE };

struct rule {
    u64 addr[2], local[2];  // the player's IP, and our IP that it sends to; IPv4 as ::ffff:a.b.c.d
    u16 port, our_port;     // in network order
    u8 dialect, number, mesh, admits_edgegap;
    u32 session, host;      // indexes into `sessions` and `seats`; host 0: there is none
    u32 connection_id;      // the id by which an edgegap host knows the seat; 0: not settled
    u32 connection;         // of a native player
    u64 up_key[2], down_key[2];
    u64 packet_ns, byte_ns; // cost of a packet and of a byte; the bucket holds one second; bytes in 2^-20 ns
};

struct hop {
    u32 interface;
    u8 macs[12];            // in the order of a frame to the player: the next hop's, ours
};

struct seat {
    struct rule rule;       // written only through `gate`
    u64 packets_at, bytes_at, last_received, received, sent, highest, over_limit_reported_at;
    struct hop hop;         // the hop from which its packets arrive
    u64 staged_number;      // sequence of a packet passed up that the core has not accepted yet; 0: none
    struct hop staged;      // the hop from which that packet arrived
    u64 seen[2 * WINDOW / 64];
};

struct session {
    u32 lock, version;      // the version changes when a rule of its seats does
    u64 packet_ns, byte_ns, packets_at, bytes_at;
};

struct name {
    u32 session, name;      // a connectionId, or a seat's number with the top bit set
};

struct map SEC("maps") ports = {MAP_PROG_ARRAY, 4, 4, 65536};
struct map SEC("maps") macs = {MAP_HASH, 4, 8, 64};         // interface -> its MAC address, in the first 6 bytes
struct map SEC("maps") seats = {MAP_ARRAY, 4, sizeof(struct seat), 0};
struct map SEC("maps") sessions = {MAP_ARRAY, 4, sizeof(struct session), 0};
struct map SEC("maps") pairs = {MAP_HASH, 8, 4, 0};         // both tokens -> seat
struct map SEC("maps") connections = {MAP_ARRAY, 4, 4, 0};  // low 20 bits of a connection id -> seat
struct map SEC("maps") names = {MAP_HASH, sizeof(struct name), 4, 0};
struct map SEC("maps") counters = {MAP_PERCPU_ARRAY, 4, 8, 3};
struct map SEC("maps") clock = {MAP_ARRAY, 4, 8, 1};        // a fixed time for tests; 0: the kernel's clock

enum { FORWARDED_PACKETS, FORWARDED_BYTES, DROP_RATE_LIMITED };

// -- basic functions

// Prevents the compiler from optimizing with the value of `x` in a way that the verifier cannot follow.
#define OPAQUE(x) asm volatile("" : "+r"(x))

INLINE u16 swap16(u16 x) { return x << 8 | x >> 8; }
INLINE u64 load64(const void *p) { return *(const u64 *)p; }
INLINE u32 load32(const void *p) { return *(const u32 *)p; }
INLINE u16 load16(const void *p) { return *(const u16 *)p; }
INLINE void store32(void *p, u32 x) { *(u32 *)p = x; }
INLINE void store16(void *p, u16 x) { *(u16 *)p = x; }

INLINE u64 now_ns(void) {
    u32 zero = 0;
    u64 *standing = map_lookup(&clock, &zero);
    return standing && *standing ? *standing : clock_ns();
}

INLINE void count(u32 which, u64 by) {
    u64 *counter = map_lookup(&counters, &which);
    if (counter) *counter += by;
}

// Our own lock, because bpf_spin_lock needs type information, for which the loader would be three times as long. It is
// held for some tens of nanoseconds. A CPU that does not get it in time passes the packet up.
INLINE int take_lock(struct session *session) {
    for (int i = 0; i < 64; i++)
        if (!__sync_val_compare_and_swap(&session->lock, 0, 1)) return 1;
    return 0;
}
// For work that can be left to the next packet.
INLINE int try_lock(struct session *session) { return !__sync_val_compare_and_swap(&session->lock, 0, 1); }
INLINE void release_lock(struct session *session) { __sync_lock_test_and_set(&session->lock, 0); }

// -- the replay window (PROTOCOL.md 7): a ring of words, as in RFC 6479

INLINE u64 complete(u64 highest, u32 low) {
    u64 number = (highest >> 32 << 32) | low;
    if (number + 0x80000000ull < highest) return number + 0x100000000ull;
    if (number > highest + 0x80000000ull && number >= 0x100000000ull) return number - 0x100000000ull;
    return number;
}

INLINE int is_new(const struct seat *seat, u64 number) {
    if (number > seat->highest) return 1;
    return seat->highest - number < WINDOW && !(seat->seen[number >> 6 & 31] >> (number & 63) & 1);
}

INLINE void mark(struct seat *seat, u64 number) {
    if (number > seat->highest) {
        u64 word = seat->highest >> 6, last = number >> 6;
        if (last - word > 32) word = last - 32;
        for (int i = 0; i < 32; i++) {
            if (word >= last) break;
            word++;
            seat->seen[word & 31] = 0;
        }
        seat->highest = number;
    }
    seat->seen[number >> 6 & 31] |= 1ull << (number & 63);
}

// -- limits: token buckets in GCRA form, as in limits.py, in nanoseconds

#define BURST 1000001000ull
INLINE u64 later(u64 at, u64 now) { return at > now ? at : now; }

INLINE int take(struct seat *seat, struct session *session, u32 size, u32 copies, u64 now) {
    u64 latest = now + BURST;
    u64 seat_packets = later(seat->packets_at, now) + seat->rule.packet_ns;
    u64 seat_bytes = later(seat->bytes_at, now) + (size * seat->rule.byte_ns >> 20);
    u64 session_packets = later(session->packets_at, now) + copies * session->packet_ns;
    u64 session_bytes = later(session->bytes_at, now) + copies * (size * session->byte_ns >> 20);
    if (seat_packets > latest || seat_bytes > latest || session_packets > latest || session_bytes > latest) return 0;
    seat->packets_at = seat_packets;
    seat->bytes_at = seat_bytes;
    session->packets_at = session_packets;
    session->bytes_at = session_bytes;
    return 1;
}

// -- SipHash-2-4 over a packet without its last 8 bytes, followed by the high half of its sequence (PROTOCOL.md 4)

#define ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define SIP_ROUND                                                                                  \
    v0 += v1; v1 = ROTATE(v1, 13) ^ v0; v0 = ROTATE(v0, 32); v2 += v3; v3 = ROTATE(v3, 16) ^ v2;   \
    v0 += v3; v3 = ROTATE(v3, 21) ^ v0; v2 += v1; v1 = ROTATE(v1, 17) ^ v2; v2 = ROTATE(v2, 32);
#define SIP_WORD(word) { u64 w = (word); v3 ^= w; SIP_ROUND SIP_ROUND v0 ^= w; }

// `size`: of the packet at `body`, with its tag. Returns 0 and sets `*tag`. The verifier needs the checks of `end`. What
// follows the loop does not use its variables: the verifier then follows it once, and not once for each iteration.
INLINE int siphash(const u64 key[2], const u8 *body, const u8 *end, u32 size, u32 high, u64 *tag) {
    u64 v0 = key[0] ^ 0x736f6d6570736575ull, v1 = key[1] ^ 0x646f72616e646f6dull;
    u64 v2 = key[0] ^ 0x6c7967656e657261ull, v3 = key[1] ^ 0x7465646279746573ull;
    u32 words = (size - TAG) >> 3, whole = size - TAG;
    OPAQUE(whole);
    const u8 *p = body;
    for (u32 i = 0; i < 154; i++) {
        if (i >= words) break;
        if (p + 8 > end) return -1;
        SIP_WORD(load64(p))
        p += 8;
        OPAQUE(p);
    }
    if (whole > LONGEST) return -1;
    u32 rest = whole & 7;
    p = body + (whole - rest);
    if (p + 8 > end) return -1;  // always available, as the tag follows
    u64 last = rest ? load64(p) & (~0ull >> (64 - 8 * rest)) : 0;
    u64 spill = 0;
    last |= (u64)high << (8 * rest);
    if (rest >= 4) {
        spill = rest > 4 ? (u64)high >> (64 - 8 * rest) : 0;
        SIP_WORD(last)
        last = spill;
    }
    last |= (u64)(size - TAG + 4) << 56;
    SIP_WORD(last)
    v2 ^= 0xff;
    SIP_ROUND SIP_ROUND SIP_ROUND SIP_ROUND
    *tag = v0 ^ v1 ^ v2 ^ v3;
    return 0;
}

// -- checksums (RFC 1071)

INLINE u64 fold(u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}
INLINE u64 sum64(u64 x) { return (x & 0xffffffff) + (x >> 32); }
INLINE u64 sum_address(const u64 addr[2], int is_ipv6) {
    return is_ipv6 ? sum64(addr[0]) + sum64(addr[1]) : addr[1] >> 32;
}
// The sum of data at an odd offset is the sum at an even offset with its bytes swapped (RFC 1071).
INLINE u64 sum_at(u64 sum, u32 place) { return place & 1 ? swap16(fold(sum)) : fold(sum); }

// The sum of `size` bytes at `p`. The verifier needs the checks of `end`.
INLINE u64 sum_of(const u8 *p, const u8 *end, u32 size) {
    u64 sum = 0;
    u32 words = size >> 3, whole = size;
    OPAQUE(whole);
    const u8 *start = p;
    for (u32 i = 0; i < 155; i++) {
        if (i >= words) break;
        if (p + 8 > end) return 0;
        sum += sum64(load64(p));
        p += 8;
        OPAQUE(p);
    }
    if (whole > UDP + LONGEST) return 0;
    p = start + (whole & ~7u);
    if (whole & 4) {
        if (p + 4 > end) return 0;
        sum += load32(p);
        p += 4;
    }
    OPAQUE(p);
    if (whole & 2) {
        if (p + 2 > end) return 0;
        sum += load16(p);
        p += 2;
    }
    OPAQUE(p);
    if (whole & 1) {
        if (p + 1 > end) return 0;
        sum += *p;
    }
    return sum;
}

// -- parsing and forwarding a packet

struct packet {
    u64 source[2], destination[2];
    u32 size;               // of the UDP payload
    u16 source_port, destination_port, checksum;
    u8 is_ipv6;
};

struct way {                // the conversion between two dialects
    u32 head, tail;         // bytes around the payload in the received packet
    u32 new_head, new_tail;
    u8 kind;                // of a native packet
};

INLINE int parse(struct xdp_md *ctx, struct packet *packet) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u8 *udp;
    if (data + ETHERNET + IPV4 + UDP > end) return -1;
    u16 ether_type = load16(data + 12);
    u8 *ip = data + ETHERNET;
    u32 length;
    if (ether_type == 0x0008) {
        // No options, not a fragment, UDP. The header checksum must be verified here, as the packet reaches no socket.
        if (ip[0] != 0x45 || load16(ip + 6) & 0xffbf || ip[9] != UDP_PROTOCOL) return -1;
        u64 sum = 0;
        for (int i = 0; i < IPV4; i += 4) sum += load32(ip + i);
        if (fold(sum) != 0xffff) return -1;
        length = swap16(load16(ip + 2)) - IPV4;
        packet->is_ipv6 = 0;
        packet->source[0] = packet->destination[0] = 0;
        packet->source[1] = 0xffff0000ull | (u64)load32(ip + 12) << 32;
        packet->destination[1] = 0xffff0000ull | (u64)load32(ip + 16) << 32;
        udp = ip + IPV4;
    } else if (ether_type == 0xdd86) {
        if (data + ETHERNET + IPV6 + UDP > end) return -1;
        if (ip[0] >> 4 != 6 || ip[6] != UDP_PROTOCOL) return -1;
        length = swap16(load16(ip + 4));
        packet->is_ipv6 = 1;
        packet->source[0] = load64(ip + 8), packet->source[1] = load64(ip + 16);
        packet->destination[0] = load64(ip + 24), packet->destination[1] = load64(ip + 32);
        udp = ip + IPV6;
    } else {
        return -1;
    }
    packet->source_port = load16(udp), packet->destination_port = load16(udp + 2);
    packet->checksum = load16(udp + 6);
    u32 udp_length = swap16(load16(udp + 4));
    if (udp_length != length || udp_length < UDP + SHORTEST || udp_length > UDP + LONGEST) return -1;
    if (packet->is_ipv6 && !packet->checksum) return -1;
    packet->size = udp_length - UDP;
    if (udp + UDP + packet->size > end) return -1;
    // The network stack drops a wrong checksum. It may also be one that a local sender has left to its driver.
    if (packet->checksum) {
        u64 sum = sum_of(udp, end, udp_length) + swap16(udp_length) + (UDP_PROTOCOL << 8);
        sum += sum_address(packet->source, packet->is_ipv6) + sum_address(packet->destination, packet->is_ipv6);
        if (fold(sum) != 0xffff) return -1;
    }
    return 0;
}

INLINE int is_from(const struct packet *packet, const struct rule *rule) {
    return rule->addr[0] == packet->source[0] && rule->addr[1] == packet->source[1] &&
           rule->local[0] == packet->destination[0] && rule->local[1] == packet->destination[1] &&
           rule->port == packet->source_port && rule->our_port == packet->destination_port;
}

INLINE struct seat *seat_named(u32 session, u32 name) {
    struct name key = {session, name};
    u32 *index = map_lookup(&names, &key);
    return index ? map_lookup(&seats, index) : 0;
}

// Packets to a player leave through the interface and the neighbour from which the player's packets arrive.
INLINE int read_hop(struct xdp_md *ctx, struct hop *hop) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    if (data + ETHERNET > end) return -1;
    hop->interface = ctx->ingress_ifindex;
    store32(hop->macs, load32(data + 6)), store16(hop->macs + 4, load16(data + 10));
    store32(hop->macs + 6, load32(data)), store16(hop->macs + 10, load16(data + 4));
    return 0;
}

INLINE int is_same_hop(const struct hop *one, const struct hop *other) {
    return one->interface == other->interface && load32(one->macs) == load32(other->macs) &&
           load32(one->macs + 4) == load32(other->macs + 4) && load32(one->macs + 8) == load32(other->macs + 8);
}

INLINE void learn_hop(struct seat *seat, struct session *session, const struct hop *hop) {
    if (is_same_hop(&seat->hop, hop) || !try_lock(session)) return;
    seat->hop = *hop;
    release_lock(session);
}

// The hop of a packet with a valid tag is staged. The packet may be a replay until `settle` or the core has marked its
// sequence number, so the staged hop is adopted only afterwards, at the next packet, and only the first copy of the
// newest number is staged. (The comparison is by difference, otherwise the verifier would follow each case separately.)
INLINE void stage_hop(struct seat *seat, struct session *session, const struct hop *hop, u64 number) {
    if (is_same_hop(&seat->hop, hop) || !try_lock(session)) return;
    if (seat->staged_number && !is_new(seat, seat->staged_number)) seat->hop = seat->staged;
    u64 newest = later(seat->highest, seat->staged_number);
    if ((newest - number) >> 63) seat->staged = *hop, seat->staged_number = number;
    release_lock(session);
}

enum verdict { PASS, DROP, SEND };

// Makes all changes of state together, under the session's lock.
INLINE enum verdict settle(struct seat *seat, struct seat *target, struct session *session, u32 version, u64 number,
                           u32 size, u64 *sent) {
    u64 now = now_ns();
    enum verdict verdict = PASS;
    if (!take_lock(session)) return PASS;
    if (session->version == version && (!number || is_new(seat, number))) {
        if (take(seat, session, size, 1, now)) {
            verdict = SEND;
        } else if (number && now - seat->over_limit_reported_at >= 1000000000ull) {
            seat->over_limit_reported_at = now;  // passed up, so that the core notifies the player
        } else {
            verdict = DROP;
        }
        if (verdict != PASS) {
            seat->last_received = now;
            seat->received++;
            if (number) mark(seat, number);
        }
        if (verdict == SEND) *sent = ++target->sent;
    }
    release_lock(session);
    return verdict;
}

// The sum of only the payload, at its present offset.
INLINE u64 payload_sum(const struct packet *packet, const struct way *way, const u8 *body, const u8 *end) {
    u64 other = sum_address(packet->source, packet->is_ipv6) + sum_address(packet->destination, packet->is_ipv6);
    other += packet->source_port + packet->destination_port + 2 * swap16(packet->size + UDP) + (UDP_PROTOCOL << 8);
    other += sum64(load64(body)) + body[8];
    if (way->head == NATIVE_HEAD) {
        if (body + NATIVE_HEAD > end) return 0;
        other += (u32)body[9] << 8;
        u32 at = packet->size - TAG;
        if (at > LONGEST) return 0;
        const u8 *tag = body + at;
        if (tag + TAG > end) return 0;
        other += sum_at(sum64(load64(tag)), at);
    } else if (way->head == EDGEGAP_HOST_HEAD) {
        if (body + EDGEGAP_HOST_HEAD > end) return 0;
        other += ((u32)body[9] << 8) + load16(body + 10) + body[12];
    }
    return fold((u16)~packet->checksum + (u16)~fold(other));
}

INLINE void write_ip(u8 *ip, const struct rule *to, u32 udp_length, int is_ipv6) {
    if (is_ipv6) {
        store32(ip, 0x60);
        store16(ip + 4, swap16(udp_length));
        store16(ip + 6, 64 << 8 | UDP_PROTOCOL);
        *(u64 *)(ip + 8) = to->local[0], *(u64 *)(ip + 16) = to->local[1];
        *(u64 *)(ip + 24) = to->addr[0], *(u64 *)(ip + 32) = to->addr[1];
        return;
    }
    store16(ip, 0x45), store16(ip + 2, swap16(udp_length + IPV4));
    store32(ip + 4, 0x00400000);  // no identification, don't fragment
    store16(ip + 8, UDP_PROTOCOL << 8 | 64), store16(ip + 10, 0);
    store32(ip + 12, to->local[1] >> 32), store32(ip + 16, to->addr[1] >> 32);
    u64 sum = 0;
    for (int i = 0; i < IPV4; i += 4) sum += load32(ip + i);
    store16(ip + 10, ~fold(sum));
}

// Rewrites the packet for `target`. From here on it cannot be passed up any more, so everything that could fail has
// been checked before. A packet that fails nevertheless is dropped like a malformed frame.
INLINE int forward(struct xdp_md *ctx, const struct packet *packet, const struct way *way, const struct rule *from,
                   const struct seat *target, u64 sent) {
    const struct rule *to = &target->rule;
    u32 payload = packet->size - way->head - way->tail;
    u32 size = way->new_head + payload + way->new_tail;
    u32 headers = ETHERNET + UDP + (packet->is_ipv6 ? IPV6 : IPV4);
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u64 sum = 0;
    int has_sum = packet->checksum != 0;
    if (has_sum) {
        u8 *body = data + headers;
        if (body + SHORTEST > end) return XDP_DROP;
        sum = sum_at(payload_sum(packet, way, body, end), way->head ^ way->new_head);
    }
    int shift = (int)way->head - (int)way->new_head;
    long length = end - data;
    OPAQUE(length);  // 64 bits wide, otherwise the verifier takes it for a pointer
    int stretch = (int)(headers + size) - ((int)length - shift);
    if (shift && adjust_head(ctx, shift)) return XDP_DROP;
    if (stretch && adjust_tail(ctx, stretch)) return XDP_DROP;

    data = (u8 *)(long)ctx->data, end = (u8 *)(long)ctx->data_end;
    u8 *ip = data + ETHERNET, *udp = packet->is_ipv6 ? ip + IPV6 : ip + IPV4, *body = udp + UDP;
    if (body + 1 > end) return XDP_DROP;
    __builtin_memcpy(data, target->hop.macs, 12);
    store16(data + 12, packet->is_ipv6 ? 0xdd86 : 0x0008);
    write_ip(ip, to, size + UDP, packet->is_ipv6);
    store16(udp, to->our_port), store16(udp + 2, to->port), store16(udp + 4, swap16(size + UDP)), store16(udp + 6, 0);
    if (to->dialect == NATIVE) {
        if (body + NATIVE_HEAD > end) return XDP_DROP;
        body[0] = NATIVE_DATA;
        store32(body + 1, to->connection), store32(body + 5, sent);
        body[9] = from->number;
        u64 tag;
        if (size > LONGEST || siphash(to->down_key, body, end, size, sent >> 32, &tag)) return XDP_DROP;
        end = (u8 *)(long)ctx->data_end;
        u32 at = size - TAG;
        if (at > LONGEST) return XDP_DROP;
        u8 *place = body + at;
        if (place + TAG > end) return XDP_DROP;
        *(u64 *)place = tag;
        if (has_sum) sum += sum64(load64(body)) + load16(body + 8) + sum_at(sum64(tag), at);
    } else {
        body[0] = EDGEGAP_DATA;
        sum += EDGEGAP_DATA;
        if (!to->number) {
            if (body + 5 > end) return XDP_DROP;
            store32(body + 1, from->connection_id);
            sum += ((u32)body[1] << 8) + load16(body + 2) + body[4];
        }
    }
    if (has_sum) {
        sum += sum_address(to->addr, packet->is_ipv6) + sum_address(to->local, packet->is_ipv6);
        sum += to->port + to->our_port + 2 * swap16(size + UDP) + (UDP_PROTOCOL << 8);
        u16 checksum = ~fold(sum);
        store16(udp + 6, checksum ? checksum : 0xffff);
    }
    count(FORWARDED_PACKETS, 1);
    count(FORWARDED_BYTES, size);
    return XDP_TX;
}

// The core's remaining checks, when the source seat and the target are known.
INLINE int deliver(struct xdp_md *ctx, const struct packet *packet, struct way *way, struct seat *seat,
                   struct seat *target, struct session *session, u32 version, u64 number) {
    struct rule *to = &target->rule;
    u64 sent = 0;
    if (to->dialect == NATIVE) {
        way->new_head = NATIVE_HEAD, way->new_tail = TAG;
    } else if (to->dialect == EDGEGAP) {
        if (to->number && seat->rule.number) return XDP_PASS;
        if (!to->number && !seat->rule.connection_id) return XDP_PASS;
        way->new_head = to->number ? 1 : 5, way->new_tail = 0;
    } else {
        return XDP_PASS;
    }
    // A target of another address family, or behind another interface, is left to the sockets.
    int to_ipv6 = !(to->addr[0] == 0 && (u32)to->addr[1] == 0xffff0000u);
    if (to_ipv6 != packet->is_ipv6 || target->hop.interface != ctx->ingress_ifindex) return XDP_PASS;
    switch (settle(seat, target, session, version, number, packet->size, &sent)) {
    case SEND:
        return forward(ctx, packet, way, &seat->rule, target, sent);
    case DROP:
        count(DROP_RATE_LIMITED, 1);
        return XDP_DROP;
    default:
        return XDP_PASS;
    }
}

INLINE int relay_edgegap(struct xdp_md *ctx, const struct packet *packet, const u8 *body, const u8 *end) {
    u64 pair = load64(body);
    u8 kind = body[8];
    u32 *index = map_lookup(&pairs, &pair);
    struct seat *seat = index ? map_lookup(&seats, index) : 0, *target;
    struct session *session = seat ? map_lookup(&sessions, &seat->rule.session) : 0;
    if (!session || packet->size > LONGEST_BESIDE_EDGEGAP) return XDP_PASS;
    u32 version = *(volatile u32 *)&session->version;
    struct way way = {.head = EDGEGAP_HEAD};
    struct hop hop;
    if (seat->rule.dialect != EDGEGAP || !is_from(packet, &seat->rule) || read_hop(ctx, &hop)) return XDP_PASS;
    learn_hop(seat, session, &hop);
    if (kind != EDGEGAP_DATA) return XDP_PASS;
    if (seat->rule.number) {
        target = seat->rule.host ? map_lookup(&seats, &seat->rule.host) : 0;
    } else {
        if (packet->size < EDGEGAP_HOST_HEAD || body + EDGEGAP_HOST_HEAD > end) return XDP_PASS;
        u32 name = load32(body + EDGEGAP_HEAD);
        target = name >> 31 ? 0 : seat_named(seat->rule.session, name);
        way.head = EDGEGAP_HOST_HEAD;
    }
    if (!target) return XDP_PASS;
    return deliver(ctx, packet, &way, seat, target, session, version, 0);
}

INLINE int relay_native(struct xdp_md *ctx, const struct packet *packet, const u8 *body, const u8 *end) {
    u8 kind = body[0];
    if (kind < NATIVE_DATA || kind > NATIVE_LAST || packet->size < NATIVE_HEAD + TAG) return XDP_PASS;
    if (body + NATIVE_HEAD + TAG > end) return XDP_PASS;
    u32 connection = load32(body + 1), low = load32(body + 5), at = connection & INDEX_MASK;
    u8 wanted = body[9];
    u32 *index = map_lookup(&connections, &at);
    struct seat *seat = index && *index ? map_lookup(&seats, index) : 0;
    struct session *session = seat ? map_lookup(&sessions, &seat->rule.session) : 0;
    if (!session) return XDP_PASS;
    u32 version = *(volatile u32 *)&session->version;
    struct rule *rule = &seat->rule;
    if (rule->admits_edgegap && packet->size > LONGEST_BESIDE_EDGEGAP) return XDP_PASS;
    if (rule->dialect != NATIVE || rule->connection != connection || !is_from(packet, rule)) return XDP_PASS;
    u64 number = complete(seat->highest, low), tag, brought;
    if (siphash(rule->up_key, body, end, packet->size, number >> 32, &tag)) return XDP_PASS;
    u32 tag_at = packet->size - TAG;
    if (tag_at > LONGEST) return XDP_PASS;
    const u8 *place = body + tag_at;
    if (place + TAG > end) return XDP_PASS;
    brought = load64(place);
    if (brought != tag) return XDP_PASS;
    struct hop hop;
    if (read_hop(ctx, &hop)) return XDP_PASS;
    stage_hop(seat, session, &hop, number);
    if (kind != NATIVE_DATA) return XDP_PASS;
    if (wanted == EVERYONE) {
        if (rule->mesh || !rule->number) return XDP_PASS;
        wanted = 0;
    }
    if (wanted == rule->number || (wanted && rule->number && !rule->mesh)) return XDP_PASS;
    struct seat *target;
    if (wanted) target = seat_named(rule->session, 0x80000000u | wanted);
    else target = rule->host ? map_lookup(&seats, &rule->host) : 0;
    if (!target) return XDP_PASS;
    struct way way = {.head = NATIVE_HEAD, .tail = TAG};
    return deliver(ctx, packet, &way, seat, target, session, version, number);
}

SEC("xdp/relay") int relay(struct xdp_md *ctx) {
    struct packet packet;
    if (parse(ctx, &packet)) return XDP_PASS;
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u8 *body = data + ETHERNET + UDP + (packet.is_ipv6 ? IPV6 : IPV4);
    if (body + SHORTEST > end) return XDP_PASS;
    if ((body[0] & 0xE0) == 0xC0) return relay_native(ctx, &packet, body, end);
    return relay_edgegap(ctx, &packet, body, end);
}

// Finds the worker by port. Packets to other ports are passed on unchanged, and so are frames for other machines, which
// arrive from a flooding switch or in promiscuous mode: the network stack drops them.
SEC("xdp/front") int front(struct xdp_md *ctx) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    if (data + ETHERNET + IPV4 + UDP > end) return XDP_PASS;
    u32 interface = ctx->ingress_ifindex;
    u64 *mac = map_lookup(&macs, &interface);
    if (!mac || *mac != (load32(data) | (u64)load16(data + 4) << 32)) return XDP_PASS;
    u16 ether_type = load16(data + 12);
    u8 *ip = data + ETHERNET, *udp = ip + IPV4;
    if (ether_type == 0xdd86) {
        udp = ip + IPV6;
        if (udp + UDP > end || ip[6] != UDP_PROTOCOL) return XDP_PASS;
    } else if (ether_type != 0x0008 || ip[0] != 0x45 || ip[9] != UDP_PROTOCOL) {
        return XDP_PASS;
    }
    tail_call(ctx, &ports, swap16(load16(udp + 2)));
    return XDP_PASS;
}

// -- the entry point for Python: it passes a request in place of a packet, and the answer overwrites the request

enum { SET_SEAT, SET_SESSION, ACCEPT, NUMBER, TAKE, SKIP_SENT, CLOSE_WINDOW };
enum { ANEW_CONNECTION = 1, ANEW_QUOTA = 2 };

struct request {
    u32 what, seat;
    // ACCEPT, SKIP_SENT, CLOSE_WINDOW: the sequence; TAKE: bytes, copies << 32; SET_...: what to reset; then the answer
    u64 value;
    u64 packet_ns, byte_ns; // SET_SESSION, with the session's index in `seat`
    struct rule rule;       // SET_SEAT
};

SEC("xdp/gate") int gate(struct xdp_md *ctx) {
    struct request *request = (struct request *)(long)ctx->data;
    if ((void *)(request + 1) > (void *)(long)ctx->data_end) return XDP_ABORTED;
    struct seat *seat = 0;
    u32 of = request->seat;
    if (request->what != SET_SESSION) {
        seat = map_lookup(&seats, &of);
        if (!seat) return XDP_ABORTED;
        of = request->what == SET_SEAT ? request->rule.session : seat->rule.session;
    }
    struct session *session = map_lookup(&sessions, &of);
    if (!session) return XDP_ABORTED;
    u64 now = now_ns(), value = request->value;
    if (!take_lock(session)) return XDP_DROP;  // Python tries again
    if (request->what == SET_SESSION) {
        session->packet_ns = request->packet_ns, session->byte_ns = request->byte_ns;
        if (value & ANEW_QUOTA) session->packets_at = session->bytes_at = 0;
    } else if (seat && request->what == SET_SEAT) {
        session->version++;
        seat->rule = request->rule;
        seat->hop.interface = 0, seat->staged_number = 0;  // the player may have moved
        if (value & ANEW_QUOTA) seat->packets_at = seat->bytes_at = 0;
        if (value & ANEW_CONNECTION) {
            seat->last_received = seat->received = seat->sent = seat->highest = seat->over_limit_reported_at = 0;
            for (int i = 0; i < 2 * WINDOW / 64; i++) seat->seen[i] = 0;
            seat->seen[0] = 1;  // number 0 is never sent
        }
    } else if (seat && request->what == ACCEPT) {
        request->value = is_new(seat, value);
        if (request->value) {
            mark(seat, value), seat->received++;
            if (seat->staged_number == value) seat->hop = seat->staged;
        }
    } else if (seat && request->what == NUMBER) {
        request->value = ++seat->sent;
    } else if (seat && request->what == TAKE) {
        request->value = take(seat, session, (u32)value, value >> 32, now);
    } else if (seat && request->what == SKIP_SENT) {
        seat->sent = value;
    } else if (seat && request->what == CLOSE_WINDOW) {
        seat->highest = value;
        for (int i = 0; i < 2 * WINDOW / 64; i++) seat->seen[i] = ~0ull;
        seat->seen[value >> 6 & 31] = ~0ull >> (63 - (value & 63));
    }
    release_lock(session);
    return XDP_PASS;
}

char licence[] SEC("license") = "GPL";
