/* talk SOCKET: a backend on a UNIX socket, for what nginx cannot be.
 *
 * A WebSocket handshake (RFC 6455) is accepted, and each message of at most 125 bytes sent back.
 * The body of any other request is read and forgotten; the answer is a manifest for Hero.
 */
#define _GNU_SOURCE
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEAD, BODY, ECHO, WINDOW = 1 << 18 };

struct connection {
    int fd, mode;
    size_t have;       /* bytes in buffer */
    long long body;    /* bytes of the body still to come */
    unsigned char buffer[16384];
};

static const char MANIFEST[] =
    "{\"name\":\"talk\",\"version\":\"1\",\"protocol\":\"http\",\"access\":\"public\"}";
static unsigned char forgotten[WINDOW];

static int answer(struct connection *c)
{
    char text[256];
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n%s", sizeof MANIFEST - 1, MANIFEST);
    c->mode = HEAD;
    return send(c->fd, text, size, MSG_NOSIGNAL) == size;
}

static int upgrade(struct connection *c, const char *key)
{
    char joined[128], accept[64], text[256];
    unsigned char digest[SHA_DIGEST_LENGTH];
    while (*key == ' ') key++;
    int size = snprintf(joined, sizeof joined, "%.*s258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
                        (int)strcspn(key, " \r\n"), key);
    SHA1((unsigned char *)joined, size, digest);
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof digest);
    size = snprintf(text, sizeof text,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    c->mode = ECHO;
    return send(c->fd, text, size, MSG_NOSIGNAL) == size;
}

static void consume(struct connection *c, size_t size)
{
    memmove(c->buffer, c->buffer + size, c->have - size);
    c->have -= size;
}

/* Returns 0 when the connection is to be closed, 1 when more has to come, 2 to go on. */
static int head(struct connection *c)
{
    unsigned char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4);
    if (!end) return c->have < sizeof c->buffer;
    *end = 0;
    char *text = (char *)c->buffer;
    char *key = strcasestr(text, "\r\nsec-websocket-key:");
    char *length = strcasestr(text, "\r\ncontent-length:");
    long long body = length ? atoll(length + 17) : 0;
    if (key ? !upgrade(c, key + 20) : body == 0 && !answer(c)) return 0;
    consume(c, end + 4 - c->buffer);
    if (body == 0) return 2;
    c->mode = BODY;
    c->body = body - (long long)c->have;
    c->have = 0;
    return c->body > 0 ? 1 : answer(c);
}

static int echo(struct connection *c)
{
    unsigned char out[sizeof c->buffer];
    size_t at = 0, size = 0;
    while (c->have - at >= 6) {
        unsigned char *frame = c->buffer + at;
        size_t payload = frame[1] & 127;
        if (payload > 125 || !(frame[1] & 128) || (frame[0] & 15) == 8) return 0;
        if (c->have - at < payload + 6) break;
        out[size++] = frame[0];
        out[size++] = payload;
        for (size_t i = 0; i < payload; i++) out[size++] = frame[6 + i] ^ frame[2 + i % 4];
        at += payload + 6;
    }
    consume(c, at);
    return size == 0 || send(c->fd, out, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static int readable(struct connection *c)
{
    if (c->mode == BODY) {
        ssize_t got = recv(c->fd, forgotten,
                           c->body < WINDOW ? c->body : WINDOW, 0);
        if (got <= 0) return 0;
        c->body -= got;
        return c->body > 0 || answer(c);
    }
    ssize_t got = recv(c->fd, c->buffer + c->have, sizeof c->buffer - c->have, 0);
    if (got <= 0) return 0;
    c->have += got;
    int state = 2;
    while (state == 2 && c->mode == HEAD && c->have) state = head(c);
    return state && (c->mode != ECHO || echo(c));
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct epoll_event event = { .events = EPOLLIN }, events[256];
    if (argc != 2) return 2;
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), poll = epoll_create1(0);
    unlink(argv[1]);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror(argv[1]);
        return 1;
    }
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c) {
                if (!readable(c)) {
                    close(c->fd);
                    free(c);
                }
                continue;
            }
            c = calloc(1, sizeof *c);
            c->fd = accept(listener, NULL, NULL);
            event.data.ptr = c;
            if (c->fd < 0) free(c);
            else epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
        }
    }
}
