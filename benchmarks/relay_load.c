/*
 * Both ends of a relay under load: a client that dials the relay, and the server it relays to.
 *
 *     relay_load up|down RELAY SERVER STREAMS BYTES   prints seconds for BYTES on each stream
 *     relay_load ask RELAY SERVER CLIENTS SECONDS     prints requests a second, their p50 in us
 *     relay_load connect RELAY SERVER CLIENTS SECONDS prints connections a second
 *
 * RELAY and SERVER are each unix:PATH or a TCP port of 127.0.0.1. One thread with epoll for each
 * end, so that the load stays cheaper than what it measures. A stream's bytes are counted at its
 * end; a lost or an additional byte, or 60 seconds without a result, makes it fail.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "relay_place.h"

enum { BUFFER_BYTES = 256 * 1024, MESSAGE_BYTES = 200, EVENTS = 64, MOST_SAMPLES = 1 << 22 };

enum mode { UP, DOWN, ASK, CONNECT };

struct end {
    int fd;
    int greeted;  /* the first byte of a connection is echoed: the relay has dialled */
    size_t moved; /* bytes of the stream, or of the message */
    double asked;
};

static enum mode mode;
static union place relay, server;
static socklen_t relay_bytes, server_bytes;
static size_t stream_bytes;
static int listener;

static void fail(const char *what)
{
    fprintf(stderr, "relay_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void require(int held, const char *what)
{
    if (!held)
        fail(what);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void watch(int epoll, struct end *end, unsigned events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = end};
    require(epoll_ctl(epoll, operation, end->fd, &event) == 0, "epoll_ctl");
}

/* Sends what the socket takes of a stream, and its end; whether all of it was sent. */
static int pour(struct end *end)
{
    static const char payload[BUFFER_BYTES];
    while (end->moved < stream_bytes) {
        size_t left = stream_bytes - end->moved;
        ssize_t n = send(end->fd, payload, left < sizeof payload ? left : sizeof payload,
                         MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return 0;
        require(n > 0, "send");
        end->moved += (size_t)n;
    }
    shutdown(end->fd, SHUT_WR);
    return 1;
}

/* Receives a buffer of a stream; 0 at its end. Each thread reads into a buffer of its own. */
static ssize_t drain(struct end *end)
{
    static __thread char buffer[BUFFER_BYTES];
    ssize_t n = recv(end->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    require(n >= 0 || errno == EAGAIN, "recv");
    if (n > 0)
        end->moved += (size_t)n;
    return n;
}

/* One event at the server; whether the connection is over. */
static int answer(int epoll, struct end *end, unsigned events)
{
    char message[MESSAGE_BYTES];
    if (events & EPOLLOUT) {
        if (pour(end))
            watch(epoll, end, EPOLLIN, EPOLL_CTL_MOD);
        return 0;
    }
    if (mode == UP && end->greeted) {
        ssize_t n = drain(end);
        require(n != 0 || end->moved == stream_bytes, "bytes were lost or added on the way up");
        return n == 0;
    }
    ssize_t n = recv(end->fd, message, sizeof message, MSG_DONTWAIT);
    if (n <= 0)
        return !(n < 0 && errno == EAGAIN);
    if (mode == DOWN && end->greeted)
        watch(epoll, end, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    else
        require(send(end->fd, message, (size_t)n, 0) == n, "answer");
    end->greeted = 1;
    return 0;
}

static void *serve(void *unused)
{
    struct epoll_event ready[EVENTS];
    struct end door = {.fd = listener};
    int epoll = epoll_create1(0);
    watch(epoll, &door, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = ready[i].data.ptr;
            if (end == &door) {
                end = calloc(1, sizeof *end);
                require(end != NULL, "memory");
                end->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                require(end->fd >= 0, "accept");
                send_at_once(end->fd);
                watch(epoll, end, EPOLLIN, EPOLL_CTL_ADD);
            } else if (answer(epoll, end, ready[i].events)) {
                close(end->fd);
                free(end);
            }
        }
    }
    return unused;
}

static void dial(struct end *end)
{
    memset(end, 0, sizeof *end);
    end->fd = socket(relay.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(end->fd >= 0 && connect(end->fd, &relay.any, relay_bytes) == 0, "connect");
    send_at_once(end->fd);
}

static void greet(struct end *end)
{
    char byte = 'g';
    require(send(end->fd, &byte, 1, 0) == 1 && recv(end->fd, &byte, 1, 0) == 1, "greeting");
}

static void stream(int epoll, struct end *ends, int count)
{
    struct epoll_event ready[EVENTS];
    for (int i = 0; i < count; i++) {
        dial(&ends[i]);
        greet(&ends[i]);
    }
    double began = now();
    for (int i = 0; i < count; i++) {
        watch(epoll, &ends[i], mode == UP ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_ADD);
        if (mode == DOWN)
            require(send(ends[i].fd, "s", 1, 0) == 1, "start");
    }
    for (int open = count; open > 0;) {
        int found = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < found; i++) {
            struct end *end = ready[i].data.ptr;
            if (ready[i].events & EPOLLOUT) {
                if (pour(end))
                    watch(epoll, end, EPOLLIN, EPOLL_CTL_MOD);
            } else if (drain(end) == 0) {
                require(end->moved == stream_bytes, "bytes were lost or added on the way");
                close(end->fd);
                open--;
            }
        }
    }
    printf("%.9f\n", now() - began);
}

static void ask(struct end *end)
{
    static const char message[MESSAGE_BYTES];
    size_t bytes = mode == ASK ? MESSAGE_BYTES : 1;
    end->moved = 0;
    end->asked = now();
    require(send(end->fd, message, bytes, 0) == (ssize_t)bytes, "request");
}

static int by_time(const void *one, const void *other)
{
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

static void repeat(int epoll, struct end *ends, int count, double seconds)
{
    struct epoll_event ready[EVENTS];
    float *times = calloc(MOST_SAMPLES, sizeof *times);
    int done = 0;
    require(times != NULL, "memory");
    for (int i = 0; i < count; i++) {
        dial(&ends[i]);
        if (mode == ASK)
            greet(&ends[i]);
    }
    double began = now(), elapsed = 0;
    for (int i = 0; i < count; i++) {
        watch(epoll, &ends[i], EPOLLIN, EPOLL_CTL_ADD);
        ask(&ends[i]);
    }
    while ((elapsed = now() - began) < seconds && done < MOST_SAMPLES - EVENTS) {
        int found = epoll_wait(epoll, ready, EVENTS, 1000);
        for (int i = 0; i < found; i++) {
            struct end *end = ready[i].data.ptr;
            require(drain(end) > 0, "the relay closed a connection");
            if (mode == ASK && end->moved < MESSAGE_BYTES)
                continue;
            times[done++] = (float)(now() - end->asked);
            if (mode == CONNECT) {
                close(end->fd);
                dial(end);
                watch(epoll, end, EPOLLIN, EPOLL_CTL_ADD);
            }
            ask(end);
        }
    }
    require(done > 0, "nothing was answered");
    qsort(times, (size_t)done, sizeof *times, by_time);
    printf("%.3f %.3f\n", done / elapsed, times[done / 2] * 1e6);
}

int main(int count, char **arguments)
{
    static const char *const names[] = {"up", "down", "ask", "connect"};
    pthread_t thread;
    int one = 1;
    require(count == 6, "usage: relay_load up|down|ask|connect RELAY SERVER COUNT BYTES|SECONDS");
    while (mode < CONNECT && strcmp(arguments[1], names[mode]) != 0)
        mode++;
    relay_bytes = parse(arguments[2], &relay);
    server_bytes = parse(arguments[3], &server);
    int many = atoi(arguments[4]);
    stream_bytes = strtoul(arguments[5], NULL, 10);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, exit);
    alarm(60); /* its signal ends the process */
    if (server.any.sa_family == AF_UNIX)
        unlink(server.local.sun_path);
    listener = socket(server.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    require(bind(listener, &server.any, server_bytes) == 0 && listen(listener, 1024) == 0, "listen");
    struct end *ends = calloc((size_t)many, sizeof *ends);
    int epoll = epoll_create1(0);
    require(ends != NULL && epoll >= 0, "memory");
    require(pthread_create(&thread, NULL, serve, NULL) == 0, "thread");
    if (mode == UP || mode == DOWN)
        stream(epoll, ends, many);
    else
        repeat(epoll, ends, many, atof(arguments[5]));
    fflush(stdout);
    _exit(0); /* the server's thread is still at it */
}
