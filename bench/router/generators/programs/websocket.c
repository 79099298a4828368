/* websocket PORT TARGET CONNECTIONS SECONDS: each connection sends a message of 64 bytes, and
 * the next as soon as it has the echo.
 *
 * Prints READY once all are connected, starts when a line comes, prints RESULT, and leaves when
 * its input ends.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD = 64, SENT = PAYLOAD + 6, RECEIVED = PAYLOAD + 2 };

struct connection {
    int fd, have;
};

static unsigned char frame[SENT] = { 0x82, 0x80 | PAYLOAD, 0x12, 0x34, 0x56, 0x78 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int open_one(int port, const char *target)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    char text[1024];
    int one = 1, size = 0, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) return -1;
    dprintf(fd, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", target);
    while (size < 4 || memcmp(text + size - 4, "\r\n\r\n", 4)) {
        if (size == sizeof text || read(fd, text + size, 1) != 1) return -1;
        size++;
    }
    return memcmp(text, "HTTP/1.1 101", 12) ? -1 : fd;
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    int count = atoi(argv[3]), poll = epoll_create1(0), failed = 0;
    double seconds = atof(argv[4]);
    long long messages = 0;
    struct connection *all = calloc(count, sizeof *all);
    struct epoll_event event = { .events = EPOLLIN }, events[256];
    unsigned char echo[4096];

    for (int i = 0; i < count; i++) {
        all[i].fd = open_one(atoi(argv[1]), argv[2]);
        if (all[i].fd < 0) {
            fprintf(stderr, "handshake %d failed\n", i);
            return 1;
        }
        event.data.ptr = &all[i];
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    puts("READY");
    fflush(stdout);
    if (getchar() == EOF) return 1;

    double start = now();
    for (int i = 0; i < count; i++) failed += write(all[i].fd, frame, SENT) != SENT;
    while (now() - start < seconds) {
        int ready = epoll_wait(poll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t got = read(c->fd, echo, sizeof echo);
            if (got <= 0) {
                failed++;
                epoll_ctl(poll, EPOLL_CTL_DEL, c->fd, NULL);
                continue;
            }
            c->have += got;
            if (c->have < RECEIVED) continue;
            c->have -= RECEIVED;
            messages++;
            failed += write(c->fd, frame, SENT) != SENT;
        }
    }
    printf("RESULT {\"messages\":%lld,\"seconds\":%.6f,\"failed\":%d}\n", messages, now() - start,
           failed);
    fflush(stdout);
    while (getchar() != EOF) continue;
    return 0;
}
