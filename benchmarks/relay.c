/*
 * The relay's limit: what a plain relay in C comes to that reads and writes 256 KiB at a time.
 *
 *     relay LISTEN TARGET      each unix:PATH or a TCP port of 127.0.0.1
 *
 * One thread for each direction of each connection, and blocking calls only. It bounds nothing and
 * is nobody's relay but a benchmark's.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay_place.h"

enum { BUFFER_BYTES = 256 * 1024, STACK_BYTES = 512 * 1024, BACKLOG = 1024 };

struct pair {
    int accepted;
    int dialled;
};

static union place target;
static socklen_t target_bytes;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void copy(int from, int to)
{
    static __thread char buffer[BUFFER_BYTES];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        for (ssize_t put = 0, n; put < got; put += n)
            if ((n = write(to, buffer + put, (size_t)(got - put))) < 0)
                return;
    shutdown(to, SHUT_WR);
}

static void *down(void *both)
{
    struct pair *pair = both;
    copy(pair->dialled, pair->accepted);
    return NULL;
}

static void *serve(void *both)
{
    struct pair *pair = both;
    pthread_t back;
    pair->dialled = socket(target.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair->dialled >= 0 && connect(pair->dialled, &target.any, target_bytes) == 0) {
        send_at_once(pair->accepted);
        send_at_once(pair->dialled);
        if (pthread_create(&back, NULL, down, pair) == 0) {
            copy(pair->accepted, pair->dialled);
            pthread_join(back, NULL);
        }
    }
    close(pair->accepted);
    close(pair->dialled);
    free(pair);
    return NULL;
}

int main(int count, char **arguments)
{
    union place place;
    pthread_attr_t detached;
    if (count != 3) {
        fprintf(stderr, "usage: relay LISTEN TARGET\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    socklen_t bytes = parse(arguments[1], &place);
    target_bytes = parse(arguments[2], &target);
    int one = 1, listener = socket(place.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, &place.any, bytes) != 0 || listen(listener, BACKLOG) != 0)
        fail("listen");
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, STACK_BYTES);
    for (;;) {
        pthread_t thread;
        struct pair *pair = malloc(sizeof *pair);
        if (pair == NULL || (pair->accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0)
            fail("accept");
        if (pthread_create(&thread, &detached, serve, pair) != 0)
            fail("thread");
    }
}
