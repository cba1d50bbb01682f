/* A fast fake Ollama: one thread, epoll, answers prepared in advance, in its own form and, at
 * /v1/chat/completions, in OpenAI's.
 *
 * usage: upstream
 * It listens on a free port of 127.0.0.1 and prints the number. The prompt says what to answer:
 * "tokens=500 pace=50" is a stream of 500 tokens, 50 a second; pace=0 is as fast as they are read.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 65536, EVENTS = 256, REQUEST_MAX = 16384, BLOCK_TOKENS = 1024, TOKENS_MAX = 1000000 };

#define MODEL "{\"model\":\"smollm2:135m\",\"created_at\":\"2026-11-23T07:47:56.771624816Z\","
#define SAID(text) "\"message\":{\"role\":\"assistant\",\"content\":\"" text "\"},"
#define TOKEN MODEL SAID(" token") "\"done\":false}\n"
#define END                                                                                     \
    "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":331542986,"                      \
    "\"load_duration\":41531441,\"prompt_eval_count\":16,\"prompt_eval_duration\":22605989,"    \
    "\"eval_count\":8,\"eval_duration\":263927630}"
#define PLAIN MODEL SAID("The capital of France is Paris.") END
#define LAST MODEL SAID("") END "\n"
#define OPENAI(kind) "{\"id\":\"chatcmpl-96\",\"object\":\"chat.completion" kind \
    "\",\"created\":1795529072,\"model\":\"smollm2:135m\",\"system_fingerprint\":\"fp_ollama\","
#define CHOICE(key, text, reason) "\"choices\":[{\"index\":0,\"" key                         \
    "\":{\"role\":\"assistant\",\"content\":\"" text "\"},\"finish_reason\":" reason "}]"
#define USAGE "\"usage\":{\"prompt_tokens\":16,\"completion_tokens\":8,\"total_tokens\":24}}"
#define V1_TOKEN "data: " OPENAI(".chunk") CHOICE("delta", " token", "null") "}\n\n"
#define V1_LAST                                                                          \
    "data: " OPENAI(".chunk") CHOICE("delta", "", "\"stop\"") "}\n\n"                    \
    "data: " OPENAI(".chunk") "\"choices\":[]," USAGE "\n\ndata: [DONE]\n\n"
#define V1_PLAIN                                                                         \
    OPENAI("") CHOICE("message", "The capital of France is Paris.", "\"stop\"") "," USAGE
#define TAGS                                                                                   \
    "{\"models\":[{\"name\":\"smollm2:135m\",\"model\":\"smollm2:135m\",\"modified_at\":"      \
    "\"2026-11-23T07:40:00Z\",\"size\":270898672,\"digest\":\"9077fe9d2ae1\",\"details\":{}}]}"
#define VERSION "{\"version\":\"0.24.0\"}"
#define SHOW "{\"model_info\":{\"llama.vocab_size\":49152},\"capabilities\":[\"completion\"]}"
#define DATE "Date: Mon, 23 Nov 2026 07:47:56 GMT\r\n"
#define STREAM_HEAD(type)                                              \
    "HTTP/1.1 200 OK\r\nContent-Type: " type "\r\n" DATE               \
    "Transfer-Encoding: chunked\r\n\r\n"

struct bytes {
    char *data;
    size_t length;
};

/* The form of the answers at one path. */
struct form {
    struct bytes plain, stream_head, token, block, tail;
};

struct connection {
    const struct form *form;   /* of the stream under way */
    int fd, timer;             /* `timer` is -1 unless a paced stream is under way */
    struct bytes head;         /* what is left to write: first this, ... */
    size_t token_bytes;        /* ... then so much of the tokens that are due, ... */
    size_t tail;               /* ... then so much of the end */
    long to_come;              /* tokens whose time has not come */
    size_t length;             /* of what was read of a request */
    char request[REQUEST_MAX + 1];
};

static struct connection *connections[FDS]; /* by socket, and by timer */
static struct bytes tags, version, show, unknown;
static struct form native, openai;
static int poller;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct bytes whole(const char *status, const char *body)
{
    char *text;
    int length = asprintf(&text, "HTTP/1.1 %s\r\nContent-Type: application/json; charset=utf-8\r\n"
                          DATE "Content-Length: %zu\r\n\r\n%s", status, strlen(body), body);
    return (struct bytes){text, (size_t)length};
}

static struct bytes chunk(const char *data, const char *more)
{
    char *text;
    int length = asprintf(&text, "%zx\r\n%s\r\n%s", strlen(data), data, more);
    return (struct bytes){text, (size_t)length};
}

static struct form make_form(const char *plain, const char *head, const char *token, const char *last)
{
    struct form form = {
        .plain = whole("200 OK", plain),
        .stream_head = {strdup(head), strlen(head)},
        .token = chunk(token, ""),
        .tail = chunk(last, "0\r\n\r\n"),
    };
    size_t length = form.token.length;
    form.block = (struct bytes){malloc(length * BLOCK_TOKENS), length * BLOCK_TOKENS};
    for (size_t i = 0; i < BLOCK_TOKENS; i++)
        memcpy(form.block.data + i * length, form.token.data, length);
    return form;
}

static void make_answers(void)
{
    native = make_form(PLAIN, STREAM_HEAD("application/x-ndjson"), TOKEN, LAST);
    openai = make_form(V1_PLAIN, STREAM_HEAD("text/event-stream"), V1_TOKEN, V1_LAST);
    tags = whole("200 OK", TAGS);
    version = whole("200 OK", VERSION);
    show = whole("200 OK", SHOW);
    unknown = whole("404 Not Found", "{\"error\":\"unknown\"}");
}

static void watch(int fd, uint32_t events, struct connection *connection)
{
    if (fd >= FDS)
        fail("too many files");
    connections[fd] = connection;
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        fail("epoll_ctl");
}

static void stop_timer(struct connection *c)
{
    if (c->timer < 0)
        return;
    connections[c->timer] = NULL;
    close(c->timer);
    c->timer = -1;
}

static void drop(struct connection *c)
{
    stop_timer(c);
    connections[c->fd] = NULL;
    close(c->fd);
    free(c);
}

static void start_timer(struct connection *c, long pace)
{
    static unsigned started;
    long interval = 1000000000 / pace;
    /* The golden ratio spreads the streams over the interval, so that they do not tick together. */
    long first = 1 + (long)((double)interval * (uint32_t)(started++ * 2654435769u) / 4294967296.0);
    struct itimerspec spec = {
        .it_interval = {interval / 1000000000, interval % 1000000000},
        .it_value = {first / 1000000000, first % 1000000000},
    };
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (c->timer < 0 || timerfd_settime(c->timer, 0, &spec, NULL))
        fail("timerfd");
    watch(c->timer, EPOLLIN, c);
}

/* Make `tokens` more of a stream due, and its end after the last one. */
static void release(struct connection *c, long tokens)
{
    if (tokens > c->to_come)
        tokens = c->to_come;
    c->to_come -= tokens;
    c->token_bytes += (size_t)tokens * c->form->token.length;
    if (c->to_come == 0) {
        c->tail = c->form->tail.length;
        stop_timer(c);
    }
}

static void start_stream(struct connection *c)
{
    long tokens = 8, pace = 0;
    char *order = strstr(c->request, "tokens=");
    if (order)
        sscanf(order, "tokens=%ld pace=%ld", &tokens, &pace);
    if (tokens < 1 || tokens > TOKENS_MAX || pace < 0 || pace > 1000000)
        tokens = 1, pace = 0;
    c->head = c->form->stream_head;
    c->to_come = tokens;
    if (pace && tokens > 1)
        start_timer(c, pace);
    release(c, pace ? 1 : tokens);
}

/* Write what is due, as far as the socket accepts it; -1 if the client is gone. */
static int flush_answer(struct connection *c)
{
    const struct form *form = c->form;
    while (c->head.length || c->token_bytes || c->tail) {
        size_t each = form->token.length, begun = (each - c->token_bytes % each) % each;
        size_t length = form->block.length - begun;
        if (length > c->token_bytes)
            length = c->token_bytes;
        struct iovec parts[] = {
            {c->head.data, c->head.length},
            {form->block.data + begun, length},
            {form->tail.data + form->tail.length - c->tail, length < c->token_bytes ? 0 : c->tail},
        };
        ssize_t written = writev(c->fd, parts, 3);
        if (written < 0)
            return errno == EAGAIN ? 0 : -1;
        size_t left = (size_t)written, of_head = left < c->head.length ? left : c->head.length;
        c->head.data += of_head;
        c->head.length -= of_head;
        left -= of_head;
        size_t of_tokens = left < length ? left : length;
        c->token_bytes -= of_tokens;
        c->tail -= left - of_tokens;
    }
    return 0;
}

static int busy(const struct connection *c)
{
    return c->head.length || c->token_bytes || c->tail || c->to_come;
}

/* Answer the request if it is complete. */
static void answer(struct connection *c)
{
    c->request[c->length] = 0;
    char *body = strstr(c->request, "\r\n\r\n");
    if (!body || busy(c))
        return;
    body += 4;
    char *header = strcasestr(c->request, "\r\ncontent-length:");
    size_t length = header && header < body ? strtoul(header + 17, NULL, 10) : 0;
    if ((size_t)(c->request + c->length - body) < length)
        return;
    int is_openai = !strncmp(c->request, "POST /v1/chat/completions ", 26);
    int streams = is_openai
        ? strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true")
        : !strstr(body, "\"stream\":false") && !strstr(body, "\"stream\": false");
    c->form = is_openai ? &openai : &native;
    if (!strncmp(c->request, "GET /api/version ", 17))
        c->head = version;
    else if (!strncmp(c->request, "GET /api/tags ", 14))
        c->head = tags;
    else if (!strncmp(c->request, "POST /api/show ", 15))
        c->head = show;
    else if (!is_openai && strncmp(c->request, "POST /api/chat ", 15))
        c->head = unknown;
    else if (streams)
        start_stream(c);
    else
        c->head = c->form->plain;
    c->length = 0; /* nobody sends the next request before the answer's end */
}

/* Read and write what is possible; -1 if the client is gone. */
static int progress(struct connection *c, uint32_t events)
{
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        return -1;
    if (events & EPOLLIN) {
        ssize_t count = read(c->fd, c->request + c->length, REQUEST_MAX - c->length);
        if (count == 0 || (count < 0 && errno != EAGAIN))
            return -1;
        if (count > 0)
            c->length += (size_t)count;
        answer(c);
    }
    return flush_answer(c);
}

static void accept_all(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            fail("calloc");
        c->fd = fd;
        c->timer = -1;
        c->form = &native;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, c);
    }
}

static int start_listening(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096)
        || getsockname(fd, (struct sockaddr *)&address, &size))
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void)
{
    struct epoll_event events[EVENTS];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    make_answers();
    poller = epoll_create1(0);
    int listener = start_listening();
    watch(listener, EPOLLIN, NULL);
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            struct connection *c = connections[fd];
            uint64_t ticks;
            if (fd == listener)
                accept_all(listener);
            else if (!c)
                continue; /* closed by an event before this one */
            else if (fd == c->timer) {
                if (read(fd, &ticks, sizeof ticks) == sizeof ticks)
                    release(c, (long)ticks);
                if (flush_answer(c))
                    drop(c);
            } else if (progress(c, events[i].events))
                drop(c);
        }
    }
}
