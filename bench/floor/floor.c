/* The floor: what the system calls of a direct call cost, with next to nothing in between.
 *
 * One thread and one epoll serve callers and one runtime, as rapid does. For each call it reads a
 * request of the caller, answers the runtime's next, reads the runtime's response, answers that and
 * the caller, and reads the next next. Nothing is checked, and a request has 64 KB at most.
 *
 * floor INVOKE_PORT RUNTIME_API_PORT RUNTIME...   (loopback)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

enum { MAX_FD = 65536, SIZE = 65536 };

static char *texts[MAX_FD];                     /* by descriptor: what has come of a request */
static int sizes[MAX_FD];
static int queue[MAX_FD];                       /* callers that wait, oldest first */
static char *payloads[MAX_FD];                  /* by descriptor */
static int lengths[MAX_FD];
static unsigned head, tail;
static int parked = -1, caller = -1;            /* the runtime's next; whose call runs */

static int listen_on(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 256)) {
        perror("listen");
        exit(1);
    }
    return fd;
}

static void answer(int fd, const char *status, const char *headers, const char *body, int length)
{
    static char out[SIZE + 1024];
    int size = snprintf(out, 1024,
                        "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n",
                        status, headers, length);
    memcpy(out + size, body, length);
    if (fd >= 0 && send(fd, out, size + length, MSG_NOSIGNAL) < 0)
        perror("send");
}

static void start_next(void)
{
    while (head != tail && queue[head % MAX_FD] < 0)
        head++;
    if (parked < 0 || head == tail)
        return;
    int to = parked;
    parked = -1;
    caller = queue[head++ % MAX_FD];
    answer(to, "200 OK",
           "Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n"
           "Lambda-Runtime-Deadline-Ms: 9999999999999\r\n"
           "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:f\r\n",
           payloads[caller], lengths[caller]);
}

/* Finds the body: sized, or one chunk, which is how Go's runtime sends it. NULL: not all is here. */
static char *body_of(char *text, int size, int *length)
{
    char *body = memmem(text, size, "\r\n\r\n", 4), *sized;
    if (!body)
        return NULL;
    body += 4;
    *length = 0;
    if (memmem(text, body - text, "chunked", 7)) {
        if (memcmp(text + size - 5, "0\r\n\r\n", 5))
            return NULL;
        *length = (int)strtol(body, &body, 16);
        return body + 2;
    }
    if ((sized = memmem(text, body - text, "Content-Length: ", 16)))
        *length = atoi(sized + 16);
    return size - (body - text) < *length ? NULL : body;
}

static void serve(int fd)
{
    int length;
    char *text = texts[fd], *body = body_of(text, sizes[fd], &length);
    if (!body)
        return;
    sizes[fd] = 0;
    if (!memcmp(text, "GET", 3)) {
        parked = fd;
    } else if (strstr(text, "/runtime/")) {
        int to = caller;
        answer(fd, "202 Accepted", "", "{}", 2);
        answer(to, "200 OK", "", body, length);
    } else {
        payloads[fd] = realloc(payloads[fd], length + 1);
        memcpy(payloads[fd], body, length);
        lengths[fd] = length;
        queue[tail++ % MAX_FD] = fd;
    }
    start_next();
}

/* Whoever connects next may get the same descriptor. */
static void forget(int fd)
{
    for (unsigned i = head; i != tail; i++)
        if (queue[i % MAX_FD] == fd)
            queue[i % MAX_FD] = -1;
    if (caller == fd)
        caller = -1;
    sizes[fd] = 0;
    close(fd);
}

int main(int count, char **words)
{
    if (count < 4) {
        fprintf(stderr, "usage: floor INVOKE_PORT RUNTIME_API_PORT RUNTIME...\n");
        return 2;
    }
    int listeners[] = {listen_on(atoi(words[1])), listen_on(atoi(words[2]))};
    if (!fork()) {
        char address[64];
        snprintf(address, sizeof address, "127.0.0.1:%s", words[2]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("AWS_LAMBDA_RUNTIME_API", address, 1);
        execvp(words[3], words + 3);
        perror(words[3]);
        _exit(1);
    }
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN}, events[64];
    for (int i = 0; i < 2; i++) {
        event.data.fd = listeners[i];
        epoll_ctl(poller, EPOLL_CTL_ADD, listeners[i], &event);
    }
    for (;;) {
        int ready = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd, one = 1;
            if (fd == listeners[0] || fd == listeners[1]) {
                event.data.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
                setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                epoll_ctl(poller, EPOLL_CTL_ADD, event.data.fd, &event);
                continue;
            }
            if (!texts[fd])
                texts[fd] = malloc(SIZE);
            int size = (int)recv(fd, texts[fd] + sizes[fd], SIZE - 1 - sizes[fd], 0);
            if (size <= 0) {
                forget(fd);
                continue;
            }
            sizes[fd] += size;
            texts[fd][sizes[fd]] = 0;
            serve(fd);
        }
    }
}
