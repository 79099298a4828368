/* handshakes PORT HEAD full|resumed SECONDS, or handshakes PORT HEAD hold CONNECTIONS: new TLS 1.3
 * connections to 127.0.0.1, each asking once with HEAD, the head of a request.
 *
 * full, resumed: one after the other on each of eight threads; prints RESULT at the end.
 * hold: keeps them, prints READY, and leaves when its input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8 };

static int port, resume, hold;
static const char *head;
static double until;

struct worker {
    pthread_t thread;
    SSL_SESSION *session;
    int amount, made, resumed, failed;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* In TLS 1.3 a ticket comes after the handshake. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct worker *worker = SSL_get_app_data(ssl);
    SSL_SESSION_free(worker->session);
    worker->session = session;
    return 1;
}

/* Whether a whole answer, with a body of a known length, has come. */
static int whole(char *text, int size)
{
    text[size] = 0;
    char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\ncontent-length:");
    return end && length && size >= end + 4 - text + atoi(length + 17);
}

static SSL *open_one(SSL_CTX *context, struct worker *worker)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    char text[4096];
    int one = 1, size = 0, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    SSL_set_app_data(ssl, worker);
    if (resume && worker->session) SSL_set_session(ssl, worker->session);
    int good = !connect(fd, (struct sockaddr *)&address, sizeof address) && SSL_connect(ssl) == 1 &&
               SSL_write(ssl, head, strlen(head)) > 0;
    while (good && !whole(text, size)) {
        int got = SSL_read(ssl, text + size, sizeof text - 1 - size);
        good = got > 0;
        size += got;
    }
    worker->failed += !good || memcmp(text, "HTTP/1.1 200", 12);
    worker->resumed += SSL_session_reused(ssl);
    worker->made++;
    return ssl;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
    while (hold ? worker->made < worker->amount : now() < until) {
        SSL *ssl = open_one(context, worker);
        if (hold) continue;
        /* OpenSSL resumes no session whose connection was not shut down. */
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        close(SSL_get_fd(ssl));
        SSL_free(ssl);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    signal(SIGPIPE, SIG_IGN);
    struct worker workers[THREADS] = { 0 };
    int made = 0, resumed = 0, failed = 0;
    port = atoi(argv[1]);
    head = argv[2];
    resume = !strcmp(argv[3], "resumed");
    hold = !strcmp(argv[3], "hold");
    double start = now();
    until = start + atof(argv[4]);
    for (int i = 0; i < THREADS; i++) {
        workers[i].amount = atoi(argv[4]) / THREADS + (i < atoi(argv[4]) % THREADS);
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        made += workers[i].made;
        resumed += workers[i].resumed;
        failed += workers[i].failed;
    }
    printf("%s {\"connections\":%d,\"resumed\":%d,\"failed\":%d,\"seconds\":%.6f}\n",
           hold ? "READY" : "RESULT", made, resumed, failed, now() - start);
    fflush(stdout);
    while (hold && getchar() != EOF) continue;
    return 0;
}
