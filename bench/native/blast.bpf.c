// Load and sink for the XDP path, both XDP: `blast` makes players' packets in the kernel (BPF_PROG_TEST_RUN with live
// frames) and sends them into the wire; `sink`, at the same end of it, counts what comes back.
#include "../../relaynode/datapath/xdp/relay.bpf.c"

static long (*redirect)(u32 interface, u64 flags) = (void *)23;

struct flow {               // as bench/crowd.py packs it
    u32 source, destination;
    u16 source_port, destination_port;  // host order
    u8 tagged, head_size, head[44], macs[12];
    u64 key[2], sequence;
} __attribute__((packed));

struct plan {
    u32 flows, interface, payload, unused;
};

struct map SEC("maps") flows = {MAP_ARRAY, 4, sizeof(struct flow), 0};
struct map SEC("maps") plans = {MAP_ARRAY, 4, sizeof(struct plan), 1};
struct map SEC("maps") tallies = {MAP_PERCPU_ARRAY, 4, 8, 2};

INLINE u64 *tally(u32 which) { return map_lookup(&tallies, &which); }

SEC("xdp/blast") int blast(struct xdp_md *ctx) {
    u32 zero = 0;
    struct plan *plan = map_lookup(&plans, &zero);
    u64 *made = tally(0);
    if (!plan || !made || !plan->flows) return XDP_ABORTED;
    u32 index = (*made)++ % plan->flows;
    struct flow *flow = map_lookup(&flows, &index);
    if (!flow) return XDP_ABORTED;
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u8 *ip = data + ETHERNET, *udp = ip + IPV4, *body = udp + UDP;
    if (body + 32 > end) return XDP_ABORTED;
    u32 size = (u32)(plan->payload & 0x7ff) + (flow->tagged ? NATIVE_HEAD + TAG : flow->head_size);
    if (size > 1200 || size < 32) return XDP_ABORTED;
    __builtin_memcpy(data, flow->macs, 12);
    store16(data + 12, 0x0008);
    struct rule way = {.addr = {0, (u64)flow->destination << 32}, .local = {0, (u64)flow->source << 32}};
    write_ip(ip, &way, size + UDP, 0);
    store16(udp, swap16(flow->source_port)), store16(udp + 2, swap16(flow->destination_port));
    store16(udp + 4, swap16(size + UDP)), store16(udp + 6, 0);
    __builtin_memcpy(body, flow->head, 18);
    if (flow->tagged) {
        u64 number = ++flow->sequence, key[2] = {flow->key[0], flow->key[1]}, tag;
        store32(body + 5, number);
        if (siphash(key, body, end, size, number >> 32, &tag)) return XDP_ABORTED;
        u8 *place = body + (size - TAG);
        if (place + TAG > end) return XDP_ABORTED;
        *(u64 *)place = tag;
    }
    return redirect(plan->interface, 0);
}

SEC("xdp/sink") int sink(struct xdp_md *ctx) {
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u64 *heard = tally(1);
    if (data + ETHERNET + IPV4 + UDP > end || !heard) return XDP_PASS;
    if (data[ETHERNET + 9] != UDP_PROTOCOL || load16(data + ETHERNET + IPV4 + 2) != swap16(40000)) return XDP_PASS;
    u8 *body = data + ETHERNET + IPV4 + UDP;
    if (body + 64 > end || (body[0] >= 0xC0 && body[0] <= 0xC3)) return XDP_PASS;  // what players hear while they join
    (*heard)++;
    return XDP_DROP;
}
