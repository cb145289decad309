/* A strategy in C99 that speaks docs/protocol.md with nothing but the C library.
 *
 * Build it: cc -std=c99 -O2 -o socket_client socket_client.c; then name it as a strategy's
 * `command` in tripgate.toml. At each step it buys one lot of the first instrument it may trade,
 * and closes it again at the next. Prices are ticks, quantities lots: only integers are needed.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef struct { const uint8_t *at, *end; } View; /* one msgpack value and the end of its frame */

static int line = -1;
static uint8_t out[512], in[1 << 20]; /* the longest request we make; the longest frame there is */
static size_t used;
static int64_t last_id;

static void fail(const char *why) { fprintf(stderr, "%s\n", why); exit(1); }

/* ---- msgpack, written: a map of at most 15 fields, short texts, 64-bit integers ------------- */
static void put(const void *bytes, size_t count) {
    if (used + count > sizeof out) fail("a request is too long");
    memcpy(out + used, bytes, count);
    used += count;
}
static void put_byte(uint8_t byte) { put(&byte, 1); }
static void put_text(const char *text) {
    size_t length = strlen(text);
    if (length > 255) fail("a text is too long");
    put_byte(0xd9), put_byte((uint8_t)length), put(text, length);
}
static void put_whole(const char *name, int64_t value) {
    put_text(name), put_byte(0xd3);
    for (int shift = 56; shift >= 0; shift -= 8) put_byte((uint8_t)((uint64_t)value >> shift));
}
static void put_named(const char *name, const char *text) { put_text(name), put_text(text); }

/* ---- msgpack, read: sizes by type byte; whatever is not needed is stepped over -------------- */
static uint64_t big_endian(const uint8_t *at, int count) {
    uint64_t value = 0;
    while (count-- > 0) value = value << 8 | *at++;
    return value;
}
/* Return the bytes of a value's head; its payload's bytes and its inner values are stored. */
static size_t head(View v, uint64_t *payload, uint64_t *inner) {
    static const uint8_t fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8}; /* 0xca to 0xd3 */
    uint8_t t = *v.at;
    size_t wide = 0;
    *payload = *inner = 0;
    if (t < 0x80 || t >= 0xe0 || t == 0xc0 || t == 0xc2 || t == 0xc3) return 1;
    if (t < 0x90) return *inner = 2 * (t & 15), 1;
    if (t < 0xa0) return *inner = t & 15, 1;
    if (t < 0xc0) return *payload = t & 31, 1;
    if (t >= 0xca && t <= 0xd3) return *payload = fixed[t - 0xca], 1;
    if (t >= 0xc4 && t <= 0xc6) wide = (size_t)1 << (t - 0xc4);
    else if (t >= 0xd9 && t <= 0xdb) wide = (size_t)1 << (t - 0xd9);
    else if (t >= 0xdc && t <= 0xdf) wide = (size_t)2 << (t & 1);
    else fail("a type of msgpack that the protocol does not use");
    if ((size_t)(v.end - v.at) < 1 + wide) fail("a frame ends inside a value");
    *(t >= 0xdc ? inner : payload) = big_endian(v.at + 1, (int)wide) * (t >= 0xde ? 2 : 1);
    return 1 + wide;
}
static View after(View v) {
    for (uint64_t left = 1, payload, inner; left > 0; left += inner - 1) {
        if (v.at >= v.end) fail("a frame ends inside a value");
        v.at += head(v, &payload, &inner);
        if ((uint64_t)(v.end - v.at) < payload) fail("a frame ends inside a value");
        v.at += payload;
    }
    return v;
}
static int is_text(View v, const char *text) {
    uint64_t payload, inner;
    size_t skip = head(v, &payload, &inner);
    int is_a_text = (*v.at & 0xe0) == 0xa0 || (*v.at >= 0xd9 && *v.at <= 0xdb);
    return is_a_text && payload == strlen(text) && !memcmp(v.at + skip, text, payload);
}
/* Return the value of a map's field (or item `index` of a list, with name NULL); at NULL: none. */
static View get(View v, const char *name, uint64_t index) {
    uint64_t payload, inner;
    if (v.at == NULL) return v;
    v.at += head(v, &payload, &inner);
    for (uint64_t i = 0; i < (name ? inner / 2 : inner); i++) {
        int found = name ? is_text(v, name) : i == index;
        if (name) v = after(v);
        if (found) return v;
        v = after(v);
    }
    v.at = NULL;
    return v;
}
static int64_t whole(View v, int64_t otherwise) {
    if (v.at == NULL) return otherwise;
    uint8_t t = *v.at;
    if (t < 0x80 || t >= 0xe0) return (int8_t)t;
    if (t == 0xc2 || t == 0xc3) return t == 0xc3;
    if (t >= 0xcc && t <= 0xcf) return (int64_t)big_endian(v.at + 1, 1 << (t - 0xcc));
    if (t == 0xd0) return (int8_t)v.at[1];
    if (t == 0xd1) return (int16_t)big_endian(v.at + 1, 2);
    if (t == 0xd2) return (int32_t)big_endian(v.at + 1, 4);
    return t == 0xd3 ? (int64_t)big_endian(v.at + 1, 8) : otherwise;
}

/* ---- frames: four bytes of length, big-endian, and one map ---------------------------------- */
static void begin(const char *op, int fields) {
    used = 4;
    put_byte((uint8_t)(0x80 | (fields + 2)));
    put_whole("id", ++last_id), put_named("op", op);
}
static void send_out(void) {
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)((used - 4) >> (24 - 8 * i));
    for (size_t sent = 0; sent < used;) {
        ssize_t count = send(line, out + sent, used - sent, MSG_NOSIGNAL);
        if (count <= 0) fail("the router hung up");
        sent += (size_t)count;
    }
}
static void read_whole(uint8_t *to, size_t count) {
    for (ssize_t got; count > 0; to += got, count -= (size_t)got)
        if ((got = read(line, to, count)) <= 0) fail("the router hung up");
}
static View receive(void) {
    uint8_t length[4];
    read_whole(length, 4);
    size_t count = (size_t)big_endian(length, 4);
    if (count == 0 || count > sizeof in) fail("no frame of this protocol");
    read_whole(in, count);
    return (View){in, in + count};
}

static int64_t fills, next_step = -1, next_mark, instrument;
static const char *over;

/* Note what an event tells: this strategy needs its step, its fills and the end. */
static void note(View event) {
    View kind = get(event, "event", 0);
    if (kind.at == NULL) return;
    fills += is_text(kind, "fill");
    if (is_text(kind, "ended") || is_text(kind, "cut")) over = is_text(kind, "cut") ? "cut" : "ended";
    if (!is_text(kind, "step")) return;
    next_step = whole(get(event, "step", 0), -1), next_mark = 0;
    View quotes = get(event, "quotes", 0), quote;
    for (uint64_t i = 0; (quote = get(quotes, NULL, i)).at != NULL; i++)
        if (whole(get(quote, "instrument", 0), -1) == instrument)
            next_mark = whole(get(quote, "mark", 0), 0);
}
/* Send the request that was begun and return its answer; events that come first are noted. */
static View ask(void) {
    send_out();
    for (;;) {
        View message = receive();
        if (whole(get(message, "id", 0), 0) == last_id) return message;
        note(message);
        if (over && !strcmp(over, "cut")) fail("the router cut the connection");
    }
}

int main(void) {
    const char *path = getenv("TRIPGATE_SOCKET"), *strategy = getenv("TRIPGATE_STRATEGY");
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    if (!path || !strategy || strlen(path) >= sizeof place.sun_path)
        fail("TRIPGATE_SOCKET and TRIPGATE_STRATEGY say where and who; the tree sets both");
    strcpy(place.sun_path, path);
    line = socket(AF_UNIX, SOCK_STREAM, 0);
    /* A router that was restarted listens again after a few seconds. */
    const struct timespec pause = {.tv_nsec = 100000000};
    for (int tries = 0; connect(line, (struct sockaddr *)&place, sizeof place); tries++)
        if (line < 0 || tries == 300 || nanosleep(&pause, NULL)) fail("nobody listens");

    begin("hello", 2), put_whole("protocol", 1), put_named("strategy", strategy);
    View welcome = ask();
    if (!whole(get(welcome, "ok", 0), 0)) fail("hello was refused");
    instrument = whole(get(get(get(welcome, "instruments", 0), NULL, 0), "number", 0), 0);

    int64_t orders = 0;
    while (!over) {
        if (next_step < 0) {
            note(receive());
            continue;
        }
        int64_t step = next_step, mark = next_mark, lots;
        next_step = -1;
        begin("positions", 0);
        lots = whole(get(get(get(ask(), "positions", 0), NULL, 0), "lots", 0), 0);
        if (mark > 0) {
            begin(lots ? "close" : "order", lots ? 1 : 3), put_whole("instrument", instrument);
            if (!lots) put_whole("lots", 1), put_whole("stop", mark * 95 / 100);
            orders += whole(get(ask(), "submitted", 0), 0);
        }
        begin("done", 1), put_whole("step", step);
        ask();
    }
    printf("%s: %lld orders sent, %lld fills, then %s\n", strategy, (long long)orders,
           (long long)fills, over);
    return 0;
}
