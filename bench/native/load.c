/* Load for a relay, and the sink for what it sends on: one thread, a closed loop.
 *
 *   load FLOWS INTERFACE SINK_PORT PAYLOAD WINDOW SECONDS [RATE [COPIES]]
 *
 * Frames go out by AF_PACKET, past the sender's own socket work, from the many addresses of the players; all
 * players share one port, so that one socket hears for them all. RATE > 0: so many packets a second, evenly, each
 * one's way through the relay timed (the payload carries the time); else as fast as WINDOW packets in flight allow.
 * COPIES: how many a relay makes of each packet (1); packets received, lost and in flight are copies.
 * Prints one line of JSON. FLOWS: records of struct flow, as bench/crowd.py writes them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define FRAME 2048
#define HEADERS 42

struct flow {
    uint8_t source[4], destination[4];
    uint16_t source_port, destination_port; /* host order */
    uint8_t tagged;                         /* native: C4, connection, sequence, seat, payload, tag; 2: the number never grows */
    uint8_t head_size;                      /* else: head, payload */
    uint8_t head[44];
    uint8_t mac[12];                        /* destination, source */
    uint8_t key[16];
    uint64_t sequence;
} __attribute__((packed));

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define ROUND                                                                              \
    v0 += v1; v1 = ROTL(v1, 13) ^ v0; v0 = ROTL(v0, 32); v2 += v3; v3 = ROTL(v3, 16) ^ v2; \
    v0 += v3; v3 = ROTL(v3, 21) ^ v0; v2 += v1; v1 = ROTL(v1, 17) ^ v2; v2 = ROTL(v2, 32);

static uint64_t siphash(const uint8_t *secret, const uint8_t *data, size_t size) {
    uint64_t key[2];
    memcpy(key, secret, 16);
    uint64_t v0 = key[0] ^ 0x736f6d6570736575, v1 = key[1] ^ 0x646f72616e646f6d;
    uint64_t v2 = key[0] ^ 0x6c7967656e657261, v3 = key[1] ^ 0x7465646279746573;
    uint64_t last = (uint64_t)size << 56, word;
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&word, data + at, 8);
        v3 ^= word; ROUND ROUND v0 ^= word;
    }
    for (size_t i = at; i < size; i++) last |= (uint64_t)data[i] << (8 * (i - at));
    v3 ^= last; ROUND ROUND v0 ^= last;
    v2 ^= 0xff;
    ROUND ROUND ROUND ROUND
    return v0 ^ v1 ^ v2 ^ v3;
}

static uint16_t ip_checksum(const uint8_t *header) {
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2) sum += header[i] << 8 | header[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

/* A frame of the flow's next packet; its size. */
static size_t build(struct flow *flow, uint8_t *frame, size_t payload, uint64_t stamp) {
    uint8_t *ip = frame + 14, *udp = frame + 34, *body = frame + HEADERS;
    size_t size;
    memcpy(frame, flow->mac, 12);
    frame[12] = 8, frame[13] = 0;
    if (flow->tagged) {
        if (flow->tagged == 1) flow->sequence++;
        uint32_t low = (uint32_t)flow->sequence, high = flow->sequence >> 32;
        memcpy(body, flow->head, 10);
        memcpy(body + 5, &low, 4);
        memcpy(body + 10, &stamp, 8);
        size = 10 + payload;
        memcpy(body + size, &high, 4);
        uint64_t tag = siphash(flow->key, body, size + 4);
        memcpy(body + size, &tag, 8);
        size += 8;
    } else {
        memcpy(body, flow->head, flow->head_size);
        memcpy(body + flow->head_size, &stamp, 8);
        size = flow->head_size + payload;
    }
    uint16_t ports[4] = {htons(flow->source_port), htons(flow->destination_port), htons(size + 8), 0};
    memcpy(udp, ports, 8);
    memset(ip, 0, 20);
    ip[0] = 0x45, ip[8] = 64, ip[9] = 17;
    ip[2] = (size + 28) >> 8, ip[3] = (size + 28) & 255;
    memcpy(ip + 12, flow->source, 4);
    memcpy(ip + 16, flow->destination, 4);
    uint16_t sum = ip_checksum(ip);
    ip[10] = sum >> 8, ip[11] = sum & 255;
    return HEADERS + size;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc < 7) return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file) { perror(argv[1]); return 1; }
    fseek(file, 0, SEEK_END);
    size_t flows = ftell(file) / sizeof(struct flow), next = 0;
    rewind(file);
    struct flow *flow = malloc(flows * sizeof *flow);
    if (!flows || fread(flow, sizeof *flow, flows, file) != flows) return 1;
    size_t payload = atoi(argv[4]);
    long window = atol(argv[5]);
    double seconds = atof(argv[6]), rate = argc > 7 ? atof(argv[7]) : 0;
    long copies = argc > 8 ? atol(argv[8]) : 1;

    int out = socket(AF_PACKET, SOCK_RAW, 0), one = 1, in = socket(AF_INET, SOCK_DGRAM, 0), buffer = 64 << 20;
    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[2])};
    struct sockaddr_in sink = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
    setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    if (bind(out, (void *)&link, sizeof link) || bind(in, (void *)&sink, sizeof sink)) { perror("bind"); return 1; }

    static uint8_t sent_frame[BATCH][FRAME], got[BATCH][FRAME];
    struct mmsghdr send_headers[BATCH] = {0}, receive_headers[BATCH] = {0};
    struct iovec send_iov[BATCH], receive_iov[BATCH];
    for (int i = 0; i < BATCH; i++) {
        memset(sent_frame[i], 0xa5, FRAME);
        send_iov[i] = (struct iovec){sent_frame[i], 0};
        receive_iov[i] = (struct iovec){got[i], FRAME};
        send_headers[i].msg_hdr = (struct msghdr){.msg_iov = &send_iov[i], .msg_iovlen = 1};
        receive_headers[i].msg_hdr = (struct msghdr){.msg_iov = &receive_iov[i], .msg_iovlen = 1};
    }
    size_t most = 1 << 22, taken = 0;
    uint32_t *times = rate > 0 ? malloc(most * sizeof *times) : NULL;
    uint64_t sent = 0, received = 0, lost = 0, waits = 0, start = now_ns(), end = start + seconds * 1e9, heard = start;
    long flying = 0;
    uint64_t now;
    while ((now = now_ns()) < end) {
        long room = (window - flying) / copies;
        int count = 0, due = room < BATCH ? room : BATCH;
        if (rate > 0) {
            long owed = (now - start) * rate / 1e9 - sent;
            due = owed > BATCH ? BATCH : owed > 0 ? owed : 0;
        }
        for (; count < due; count++) {
            send_iov[count].iov_len = build(&flow[next], sent_frame[count], payload, now);
            next = next + 1 == flows ? 0 : next + 1;
        }
        if (count) {
            int done = sendmmsg(out, send_headers, count, 0);
            if (done > 0) sent += done, flying += done * copies;
        }
        int n = recvmmsg(in, receive_headers, BATCH, MSG_DONTWAIT, NULL);
        if (n > 0) {
            received += n, flying -= n, heard = now_ns();
            if (times)
                for (int i = 0; i < n && taken < most; i++) {
                    uint64_t stamp;
                    size_t size = receive_headers[i].msg_len;
                    /* It stands before the rest of the payload, and behind it a native packet has its tag. */
                    size_t at = got[i][0] == 0xc4 ? 10 : size - payload;
                    memcpy(&stamp, got[i] + at, 8);
                    times[taken++] = heard - stamp;
                }
        } else if (room <= 0 && rate == 0) {
            waits++;
            if (now - heard > 20000000) lost += flying, flying = 0, heard = now;
            else if (waits % 64 == 0) poll(&(struct pollfd){in, POLLIN, 0}, 1, 1);
        }
    }
    double took = (now_ns() - start) / 1e9;
    usleep(20000);
    for (int n; (n = recvmmsg(in, receive_headers, BATCH, MSG_DONTWAIT, NULL)) > 0;) received += n;
    printf("{\"sent\": %lu, \"received\": %lu, \"lost\": %lu, \"waits\": %lu, \"seconds\": %.6f", sent, received, lost, waits, took);
    if (taken) {
        qsort(times, taken, sizeof *times, by_value);
        printf(", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f", times[taken / 2] / 1e3, times[taken * 99 / 100] / 1e3,
               times[taken * 999 / 1000] / 1e3);
    }
    printf("}\n");
    return 0;
}
