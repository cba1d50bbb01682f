/* Puts load on a server and checks every answer: one thread, epoll.
 *
 * usage: load run|hold PORT PATH CONNECTIONS SECONDS TOKENS PACE LIMIT [HEADERS]
 * A PATH under /v1/ is asked, and its answers are read, in OpenAI's form. HEADERS go with each request.
 * run: after one small request on every connection it prints "ready" and waits for a line; then
 *   each connection asks, again and again for SECONDS (once if 0), for a plain chat (TOKENS 0) or
 *   a stream of TOKENS at PACE. Requests in progress are read to their end.
 * hold: every connection opens one such stream; "ready" comes when each has its first token, and
 *   the end after the line.
 * It prints one line of JSON and ends after LIMIT seconds: what is missing then is an error.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, BUFFER = 65536, TEXT_MAX = 8192, SAMPLES = 65536 };

enum state { CONNECTING, IDLE, HEAD, BODY, SIZE, CHUNK, CHUNK_END, TRAILER, OVER };

struct connection {
    int fd;
    enum state state;
    int answered;      /* requests on this socket, so that one that was kept may be closed */
    int line_done;     /* the last byte of the body ended a line */
    long tokens;       /* that were asked for; 0 is a plain chat */
    size_t left;       /* bytes of the body, or of the chunk */
    long lines;        /* of the body so far; in OpenAI's form, those with a token */
    int ended;         /* in OpenAI's form: the last event has come */
    double sent, first;
    size_t length;     /* of `text`: the head, then the last line of the body */
    char text[TEXT_MAX + 1];
};

static const char *path, *headers = "", *fault = "";
static int is_openai, port, poller, connection_count, holding, running, opened;
static long tokens, pace, answers, tokens_read, errors, reconnects, sample_count;
static double stop_at;
static double samples[SAMPLES]; /* seconds to the first byte of a body */
static struct connection *connections;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void connect_(struct connection *c)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    int on = 1;
    c->state = CONNECTING;
    c->answered = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect");
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event))
        fail("epoll_ctl");
}

static void ask(struct connection *c)
{
    char body[512], request[2048];
    if (c->fd < 0) {
        connect_(c); /* once that is done, this is called again */
        return;
    }
    int small = !running && !holding;
    c->tokens = tokens && small ? 1 : tokens;
    int length = snprintf(body, sizeof body, is_openai
        ? "{\"model\":\"smollm2:135m\",\"messages\":[{\"role\":\"user\",\"content\":"
          "\"tokens=%ld pace=%ld\"}],\"stream\":%s}"
        : "{\"model\":\"smollm2:135m\",\"message\":\"tokens=%ld pace=%ld\",\"stream\":%s}",
        c->tokens, pace, tokens ? "true" : "false");
    length = snprintf(request, sizeof request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "%sContent-Length: %d\r\n\r\n%s", path, headers, length, body);
    c->state = HEAD;
    c->length = 0;
    c->lines = c->line_done = c->ended = 0;
    c->first = 0;
    c->sent = now();
    /* If this fails, the socket is closed, and the next event says so. */
    if (send(c->fd, request, (size_t)length, MSG_NOSIGNAL) != length && errno != EPIPE
        && errno != ECONNRESET)
        fail("send");
}

static void wrong(struct connection *c, const char *what)
{
    errors++;
    if (!*fault)
        fault = what;
    c->state = OVER;
}

static int wants_more(void)
{
    return running && !holding && now() < stop_at;
}

/* The answer is complete: check its end, and continue. */
static void finish(struct connection *c)
{
    c->text[c->length] = 0;
    int done = strstr(c->text, "\"done\":true") || strstr(c->text, "\"done\": true");
    if (is_openai)
        done = c->tokens ? c->ended : strstr(c->text, "\"finish_reason\"") != NULL;
    if (!done)
        wrong(c, "the last line is not done");
    else if (c->tokens && c->lines != c->tokens + !is_openai)
        wrong(c, "the count of tokens is wrong");
    else {
        if (running) {
            answers++;
            tokens_read += c->tokens;
            if (sample_count < SAMPLES)
                samples[sample_count++] = c->first - c->sent;
        }
        c->answered++;
        c->state = OVER;
    }
}

/* Read bytes of the body: count its lines, keep the last one. */
static void take_body(struct connection *c, const char *data, size_t length)
{
    if (!c->first) {
        c->first = now();
        opened++;
    }
    while (length) {
        const char *end = memchr(data, '\n', length);
        size_t part = end ? (size_t)(end - data) + 1 : length;
        if (c->line_done)
            c->length = 0;
        if (c->length + part <= TEXT_MAX) {
            memcpy(c->text + c->length, data, part);
            c->length += part;
        }
        c->line_done = end != NULL;
        if (c->line_done && is_openai) {
            c->text[c->length] = 0;
            c->lines += strstr(c->text, "\" token\"") != NULL;
            c->ended |= !strncmp(c->text, "data: [DONE]", 12);
        } else
            c->lines += c->line_done;
        data += part;
        length -= part;
    }
}

static void read_head(struct connection *c)
{
    char *header;
    c->text[c->length] = 0;
    if (strncmp(c->text, "HTTP/1.1 200", 12)) {
        static char status[32];
        if (!*fault)
            snprintf(status, sizeof status, "HTTP status %.3s", c->text + strcspn(c->text, " ") + 1);
        wrong(c, status);
        return;
    }
    c->length = c->left = 0;
    if (strcasestr(c->text, "\r\ntransfer-encoding: chunked\r\n"))
        c->state = SIZE;
    else if ((header = strcasestr(c->text, "\r\ncontent-length:"))
             && (c->left = strtoul(header + 17, NULL, 10)))
        c->state = BODY;
    else
        wrong(c, "the answer has no length");
}

/* Read one byte of the framing around the body. */
static void take_byte(struct connection *c, char byte)
{
    switch (c->state) {
    case HEAD:
        if (c->length == TEXT_MAX) {
            wrong(c, "the head is too long");
            return;
        }
        c->text[c->length++] = byte;
        if (byte == '\n' && c->length >= 4 && !memcmp(c->text + c->length - 4, "\r\n\r\n", 4))
            read_head(c);
        return;
    case SIZE:
        if (byte == '\n')
            c->state = c->left ? CHUNK : TRAILER;
        else if (isxdigit((unsigned char)byte))
            c->left = c->left * 16
                + (size_t)(byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
        return;
    case CHUNK_END:
        if (byte == '\n')
            c->state = SIZE;
        return;
    case TRAILER:
        if (byte == '\n')
            finish(c);
        return;
    default:
        wrong(c, "there is more than was asked for");
    }
}

static void take(struct connection *c, const char *data, size_t length)
{
    for (size_t i = 0; i < length && c->state != OVER;) {
        if (c->state != BODY && c->state != CHUNK) {
            take_byte(c, data[i++]);
            continue;
        }
        size_t part = length - i < c->left ? length - i : c->left;
        take_body(c, data + i, part);
        i += part;
        c->left -= part;
        if (!c->left && c->state == BODY)
            finish(c);
        else if (!c->left)
            c->state = CHUNK_END;
    }
}

/* The server has closed: it may, on an idle connection where no answer has begun. */
static void closed(struct connection *c)
{
    close(c->fd);
    c->fd = -1;
    if (c->state == HEAD && !c->length && c->answered) {
        reconnects++;
        connect_(c);
    } else if (c->state != IDLE && c->state != OVER)
        wrong(c, "the connection was closed too early");
}

static void progress(struct connection *c, unsigned events)
{
    static char buffer[BUFFER];
    ssize_t count = -1;
    if (c->state == CONNECTING && events & EPOLLOUT && !(events & (EPOLLERR | EPOLLHUP)))
        ask(c);
    if (events & EPOLLIN)
        while ((count = read(c->fd, buffer, sizeof buffer)) > 0) {
            take(c, buffer, (size_t)count);
            if (count < BUFFER && !(events & EPOLLRDHUP))
                break;
        }
    if (c->state == OVER && !*fault) { /* after a fault nothing more is asked */
        c->state = IDLE;
        if (wants_more())
            ask(c);
    }
    if (count == 0 || events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        closed(c);
}

static int settled(void)
{
    if (holding)
        return opened >= connection_count || *fault;
    for (int i = 0; i < connection_count; i++)
        if (connections[i].state != IDLE && connections[i].state != OVER)
            return 0;
    return 1;
}

/* Return the number of events. */
static int handle_events(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++)
        progress(events[i].data.ptr, events[i].events);
    return count;
}

/* Continue until every connection has what it waits for; after `limit`, that is an error. */
static void go_on(double limit)
{
    while (!settled()) {
        if (now() > limit) {
            errors++;
            if (!*fault)
                fault = "the time is over";
            return;
        }
        handle_events(100);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(void)
{
    qsort(samples, (size_t)sample_count, sizeof *samples, ascending);
    return sample_count ? samples[sample_count / 2] : 0;
}

int main(int count, char **arguments)
{
    if (count < 9 || count > 10 || (strcmp(arguments[1], "run") && strcmp(arguments[1], "hold"))) {
        fputs("usage: load run|hold PORT PATH CONNECTIONS SECONDS TOKENS PACE LIMIT "
              "[HEADERS]\n", stderr);
        return 2;
    }
    holding = !strcmp(arguments[1], "hold");
    port = atoi(arguments[2]);
    path = arguments[3];
    is_openai = !strncmp(path, "/v1/", 4);
    headers = count == 10 ? arguments[9] : "";
    connection_count = atoi(arguments[4]);
    double seconds = atof(arguments[5]), limit = atof(arguments[8]);
    tokens = atol(arguments[6]);
    pace = atol(arguments[7]);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    poller = epoll_create1(0);
    connections = calloc((size_t)connection_count, sizeof *connections);
    if (!connections)
        fail("calloc");
    for (int i = 0; i < connection_count; i++) {
        connections[i].fd = -1;
        connect_(&connections[i]);
    }
    go_on(now() + limit);
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF)
        return 1;

    double started = now();
    while (holding && handle_events(0) > 0)
        ; /* one that was closed meanwhile is an error */
    if (!holding && !errors) {
        running = 1;
        stop_at = started + seconds;
        for (int i = 0; i < connection_count; i++)
            ask(&connections[i]);
        go_on(started + limit);
    }
    printf("{\"count\": %ld, \"tokens\": %ld, \"errors\": %ld, \"fault\": \"%s\", "
           "\"opened\": %d, \"reconnects\": %ld, \"seconds\": %.6f, \"first_ms\": %.4f}\n",
           answers, tokens_read, errors, fault, opened, reconnects, now() - started,
           median() * 1e3);
    return 0;
}
