/* The board in real time, on a pseudo-terminal or a TCP port. */
#define _GNU_SOURCE
#include "host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define STEP_US 1000u
#define READ_BYTES 1024u /* in one step: ten times what 1 Mbit/s brings */
#define STALL_US 10000u
#define NONE (-1)

static struct core core;
static const char *link_path;
static int serial = NONE;
static int slave = NONE;
static int listener = NONE;
static int tcp_port;

static struct {
    enum outrider_state state;
    bool asked;
    bool turning;
} seen;

/* One line of JSON; dropped where nobody reads, for a board does not wait. */
static void say(const char *format, ...)
{
    char line[512];
    va_list arguments;

    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line - 1u, format, arguments);
    va_end(arguments);
    if (size > 0 && (size_t)size < sizeof line - 1u) {
        line[size++] = '\n';
        if (write(STDOUT_FILENO, line, (size_t)size) < 0) {
            return;
        }
    }
}

static void look(void)
{
    const uint64_t now_us = hal_time_us();
    const bool asked = host.wanted_radps[0] != 0.0f || host.wanted_radps[1] != 0.0f;
    const bool turning = host.plant.speed_radps[0] != 0.0 || host.plant.speed_radps[1] != 0.0;

    if (core.state != seen.state) {
        seen.state = core.state;
        say("{\"event\": \"state\", \"us\": %" PRIu64 ", \"state\": %d, \"reason\": %d, \"faults\": %" PRIu32 "}",
            now_us, (int)core.state, (int)core.stop_reason, core.faults);
    }
    if (asked != seen.asked) {
        seen.asked = asked;
        say("{\"event\": \"asked\", \"us\": %" PRIu64 ", \"on\": %d}", now_us, asked ? 1 : 0);
    }
    if (turning != seen.turning) {
        seen.turning = turning;
        say("{\"event\": \"turning\", \"us\": %" PRIu64 ", \"on\": %d}", now_us, turning ? 1 : 0);
    }
}

static void say_counts(void)
{
    const struct core_counts *c = &core.counts;
    say("{\"event\": \"counts\", \"us\": %" PRIu64 ", \"executed\": %" PRIu32 ", \"stale\": %" PRIu32
        ", \"repeated\": %" PRIu32 ", \"refused\": %" PRIu32 ", \"good\": %" PRIu32 ", \"bad\": %" PRIu32
        ", \"sent\": %" PRIu32 ", \"unsent\": %" PRIu32 ", \"sequence\": %" PRIu32
        ", \"damaged\": %" PRIu64 ", \"flash_written\": %" PRIu64 ", \"state\": %d}",
        hal_time_us(), c->commands_executed, c->commands_stale, c->commands_repeated, c->commands_refused,
        c->frames_good, c->frames_bad, host.frames_out, c->frames_unsent, core.sequence_executed,
        host.to_board.damaged + host.to_host.damaged, host.flash_written, (int)core.state);
}

static void unplug(void)
{
    if (serial >= 0) {
        (void)close(serial);
    }
    if (slave >= 0) {
        (void)close(slave);
    }
    serial = NONE;
    slave = NONE;
    host.tx_size = 0u;
    /* As udev does: the terminal's number is given to the next one that opens, and a host that tries again
       by the old name would take that one from whoever owns it. */
    if (link_path != NULL) {
        (void)unlink(link_path);
    }
}

/* A new pseudo-terminal; `link_path` leads to it. */
static bool plug_terminal(void)
{
    char name[128];
    struct termios raw;

    serial = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (serial < 0 || grantpt(serial) != 0 || unlockpt(serial) != 0 || ptsname_r(serial, name, sizeof name) != 0) {
        return false;
    }
    /* Held open, so that a host that comes and goes is not taken for a broken line. */
    slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || tcgetattr(slave, &raw) != 0) {
        return false;
    }
    cfmakeraw(&raw);
    if (tcsetattr(slave, TCSANOW, &raw) != 0) {
        return false;
    }
    if (link_path != NULL) {
        (void)unlink(link_path);
        if (symlink(name, link_path) != 0) {
            return false;
        }
    }
    say("{\"event\": \"port\", \"us\": %" PRIu64 ", \"port\": \"%s\"}", hal_time_us(),
        link_path == NULL ? name : link_path);
    return true;
}

static bool listen_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)tcp_port)};
    socklen_t size = sizeof address;
    const int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        return false;
    }
    say("{\"event\": \"port\", \"us\": %" PRIu64 ", \"port\": \"tcp://127.0.0.1:%d\"}", hal_time_us(),
        (int)ntohs(address.sin_port));
    return true;
}

static void accept_tcp(void)
{
    const int on = 1;
    const int came = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (came >= 0) {
        unplug(); /* the newest one counts: the one before may be a dead host's */
        serial = came;
        (void)setsockopt(serial, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
}

static void receive(void)
{
    uint8_t bytes[READ_BYTES];
    const uint64_t now_us = hal_time_us();

    if (serial >= 0) {
        const ssize_t size = read(serial, bytes, sizeof bytes);
        if (size > 0) {
            line_put(&host.to_board, bytes, (size_t)size, now_us);
        } else if (listener >= 0 && (size == 0 || (errno != EAGAIN && errno != EINTR))) {
            unplug();
        }
    }
    const size_t size = line_get(&host.to_board, bytes, sizeof bytes, now_us);
    core_receive(&core, bytes, size, now_us);
}

static void transmit(void)
{
    static uint8_t bytes[READ_BYTES];
    static size_t held;

    line_put(&host.to_host, host.tx, host.tx_size, hal_time_us());
    host.tx_size = 0u;
    do {
        held += line_get(&host.to_host, bytes + held, sizeof bytes - held, hal_time_us());
        const ssize_t size = serial >= 0 && held > 0u ? write(serial, bytes, held) : 0;
        if (size <= 0) {
            held = serial >= 0 ? held : 0u;
            break;
        }
        held -= (size_t)size;
        memmove(bytes, bytes + size, held);
    } while (host.to_host.held > 0u);
}

/* False when the emulator is to end. */
static bool control(void)
{
    static char text[1024];
    static size_t size;
    char *end;

    const ssize_t came = read(STDIN_FILENO, text + size, sizeof text - 1u - size);
    if (came <= 0) {
        return came < 0 && (errno == EAGAIN || errno == EINTR);
    }
    size += (size_t)came;
    text[size] = '\0';
    while ((end = strchr(text, '\n')) != NULL) {
        *end = '\0';
        if (strcmp(text, "quit") == 0) {
            return false;
        }
        if (strcmp(text, "counts") == 0) {
            say_counts();
        } else if (strcmp(text, "unplug") == 0) {
            unplug();
            say("{\"event\": \"unplugged\", \"us\": %" PRIu64 "}", hal_time_us());
        } else if (strcmp(text, "plug") == 0) {
            if (listener < 0 && serial < 0 && !plug_terminal()) {
                return false;
            }
        } else if (!host_command(text)) {
            say("{\"event\": \"unknown\", \"us\": %" PRIu64 "}", hal_time_us());
        } else {
            say("{\"event\": \"done\", \"us\": %" PRIu64 "}", hal_time_us());
        }
        const size_t used = (size_t)(end - text) + 1u;
        size -= used;
        memmove(text, end + 1, size + 1u);
    }
    size = size == sizeof text - 1u ? 0u : size; /* a line without end is no command */
    return true;
}

static bool wait_until(uint64_t deadline_us)
{
    struct pollfd ready[3] = {{serial, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}, {listener, POLLIN, 0}};
    const uint64_t now_us = hal_time_us();
    const uint64_t left_us = deadline_us > now_us ? deadline_us - now_us : 0u;
    const struct timespec timeout = {0, (long)(1000.0 * (double)left_us / host.rate)};

    (void)ppoll(ready, 3u, &timeout, NULL);
    if ((ready[1].revents & (POLLIN | POLLHUP)) != 0 && !control()) {
        return false;
    }
    if ((ready[2].revents & POLLIN) != 0) {
        accept_tcp();
    }
    return true;
}

static void run(void)
{
    uint64_t next_us = hal_time_us() + STEP_US;
    uint64_t before_us = hal_time_us();

    while (wait_until(next_us)) {
        receive();
        const uint64_t now_us = hal_time_us();
        if (now_us - before_us > STALL_US) {
            say("{\"event\": \"stall\", \"us\": %" PRIu64 ", \"gap_us\": %" PRIu64 "}", now_us, now_us - before_us);
        }
        before_us = now_us;
        if (now_us >= next_us) {
            next_us = now_us - next_us > STEP_US ? now_us + STEP_US : next_us + STEP_US;
            host_plant_exchange(1e-6 * (double)now_us);
            core_step(&core, now_us);
        }
        transmit();
        look();
        if (host.restart_wanted) {
            host.restart_wanted = false;
            host.boots++;
            core_init(&core);
            say("{\"event\": \"restarted\", \"us\": %" PRIu64 ", \"version\": %" PRIu32 "}", now_us,
                core.update.running.version);
        }
    }
}

/* `emulate [--rate R] [--link PATH] [--tcp PORT] [--flash FILE] [--plant SOCKET] [--silent S] [--key HEX] [--seed N]`; --rate first,
   for the others may ask what time it is */
int host_emulate(int count, char **arguments)
{
    const char *flash = NULL;
    bool tcp = false;

    for (int i = 0; i + 1 < count; i += 2) {
        const char *value = arguments[i + 1];
        if (strcmp(arguments[i], "--link") == 0) {
            link_path = value;
        } else if (strcmp(arguments[i], "--tcp") == 0) {
            tcp = true;
            tcp_port = atoi(value);
        } else if (strcmp(arguments[i], "--flash") == 0) {
            flash = value;
        } else if (strcmp(arguments[i], "--plant") == 0 && !host_plant_open(value)) {
            fprintf(stderr, "plant %s: %s\n", value, strerror(errno));
            return 1;
        } else if (strcmp(arguments[i], "--rate") == 0) {
            host.rate = atof(value);
        } else if (strcmp(arguments[i], "--silent") == 0) {
            host.plant.silent_max_s = atof(value);
        } else if (strcmp(arguments[i], "--key") == 0) {
            if (!host_read_key(value)) {
                fprintf(stderr, "--key: expected 64 hexadecimal digits\n");
                return 2;
            }
        } else if (strcmp(arguments[i], "--seed") == 0) {
            line_init(&host.to_board, strtoull(value, NULL, 10));
            line_init(&host.to_host, strtoull(value, NULL, 10) + 1u);
        }
    }
    if (flash == NULL) {
        host_flash_blank();
        /* Without a memory of its own: two starts must not count the same. */
        host.boots = (uint32_t)(hal_time_us() / 1000u) & 0xFFFFu;
    } else if (!host_flash_open(flash)) {
        fprintf(stderr, "flash %s: %s\n", flash, strerror(errno));
        return 1;
    }
    (void)fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
    (void)signal(SIGPIPE, SIG_IGN);
    core_init(&core);
    if (!(tcp ? listen_tcp() : plug_terminal())) {
        fprintf(stderr, "port: %s\n", strerror(errno));
        return 1;
    }
    run();
    unplug();
    if (link_path != NULL && !tcp) {
        (void)unlink(link_path);
    }
    free(host.flash);
    return 0;
}
