/* Where the benchmark's C programs listen and connect: unix:PATH, or a TCP port of 127.0.0.1. */
#ifndef RELAY_PLACE_H
#define RELAY_PLACE_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

union place {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_in internet;
};

static socklen_t parse(const char *text, union place *place)
{
    memset(place, 0, sizeof *place);
    if (strncmp(text, "unix:", 5) == 0) {
        place->local.sun_family = AF_UNIX;
        strncpy(place->local.sun_path, text + 5, sizeof place->local.sun_path - 1);
        return sizeof place->local;
    }
    place->internet.sin_family = AF_INET;
    place->internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    place->internet.sin_port = htons((unsigned short)atoi(text));
    return sizeof place->internet;
}

static void send_at_once(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* a unix socket refuses it */
}

#endif
